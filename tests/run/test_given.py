"""Runs that begin with a packed checkpoint end as those that pack it themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import alphatune
from alphatune.__main__ import main
from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.learn import models
from alphatune.run import given, record
from alphatune.run.execute import execute
from alphatune.run.identity import unused
from alphatune.run.pipeline import ADAPTER, Run
from alphatune.store import Store, file_sha256

SETTINGS = {
    "alphatuning": (alphatune.BCQConfig(2, 16, offset=True), ["quant.q=2", "quant.group_size=16", "quant.offset=true"]),
    "peqa": (alphatune.UniformConfig(2), ["quant.q=2"]),
    "bcq_lora": (alphatune.BCQConfig(2), ["quant.q=2"]),
}


def _packed(quick: list[str], settings: alphatune.BCQConfig | alphatune.UniformConfig, folder: Path) -> Path:
    """The small backbone, packed by the library and saved."""
    config = config_of(quick)
    model, tokenizer = models.load(config, Store(config.runtime.artifacts))
    alphatune.quantize_model(model, settings, progress=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", SETTINGS)
def test_the_same_codes_lead_to_the_same_run(method: str, quick: list[str], tmp_path: Path) -> None:
    settings, named = SETTINGS[method]
    folder = _packed(quick, settings, tmp_path / "packed")
    before = {path.name: file_sha256(path) for path in folder.iterdir()}
    own = [*quick, f"method={method}", *named]
    given = [*own, f"model.name_or_path={folder}", "method.quantize=given"]
    packs, takes = (record.read(execute(config_of(each))) for each in (own, given))
    for same in ("validation_loss", "scores", "sizes", "curves", "label"):
        assert packs[same] == takes[same], same
    assert packs["quantization"] and not takes["quantization"]
    assert "quantize" not in "".join(takes["stages"])
    if method != "bcq_lora":
        one, other = (Run(c, load(c.task, c.data)).adapted().path for c in map(config_of, (own, given)))
        left, right = (load_file(next((p / ADAPTER).glob("*.safetensors"))) for p in (one, other))
        assert left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)
    assert before == {path.name: file_sha256(path) for path in folder.iterdir()}  # it serves other tasks as it is


def test_what_says_how_codes_are_found_is_told_to_do_nothing(quick: list[str]) -> None:
    given = ["method.quantize=given", "quant.solver=gptq", "quant.rounds=2", "quant.q=2"]
    lines = unused(config_of([*quick, *given]), given)
    assert [line.partition(":")[0] for line in lines] == ["quant.solver=gptq", "quant.rounds=2"]
    assert lines[0] == "quant.solver=gptq: method.quantize=given takes the model's codes; the setting has no effect"


def test_its_adapter_is_packaged_and_its_base_is_the_checkpoint(quick: list[str], tmp_path: Path) -> None:
    folder = _packed(quick, alphatune.BCQConfig(2), tmp_path / "packed")
    made = execute(config_of([*quick, f"model.name_or_path={folder}", "method.quantize=given", "quant.q=2"]))
    store = next(o.partition("=")[2] for o in quick if o.startswith("runtime.artifacts="))
    call = [str(made), "OUT", "--artifacts", store, "--model", str(folder)]
    call[1] = str(tmp_path / "adapter")
    assert main(["package", *call, "--as", "adapter", "--base", str(folder)]) == 0
    tuned = _logits(folder, tmp_path / "adapter")
    call[1] = str(tmp_path / "model")
    assert main(["package", *call, "--as", "model"]) == 0
    assert _logits(tmp_path / "model") == tuned
    assert "binary codes (given)" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    call[1] = str(tmp_path / "base")
    assert main(["package", *call, "--as", "base"]) == 2


def _logits(folder: Path, adapter: Path | None = None) -> list[float]:
    """A few logits of a saved model."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return [float(x) for x in model.eval()(torch.arange(2, 14).view(2, 6)).logits[0, -1, :8]]


def test_a_config_that_names_codes_over_dense_weights_is_told(quick: list[str], tmp_path: Path) -> None:
    config = config_of([*quick, "method.quantize=given", "quant.q=2"])
    model: Any = models.load(config, Store(config.runtime.artifacts))[0]
    with pytest.raises(UserError, match="tiny: is not packed"):
        given.check(model, config)
    model.config.quantization_config = alphatune.BCQConfig(2)
    with pytest.raises(UserError, match="names codes, but no layer has any"):
        given.check(model, config)
