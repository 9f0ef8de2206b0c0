"""`alphatune inspect`: sizes, fingerprints and adapters from the files, and one line where they are no good."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from toy_checkpoint import write_adapter, write_dense, write_packed
from transformers import AutoModelForCausalLM

import alphatune
from alphatune.__main__ import main
from alphatune.errors import UserError
from alphatune.hf.scales import fingerprint
from alphatune.packed.linear import packed_layers
from alphatune.tools.inspect import inspect


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dense/, packed/ with adapters a (its own), b (LoRA) and other (of another base), and grouped/."""
    folder = tmp_path_factory.mktemp("inspect")
    write_dense(folder / "dense")
    write_packed(folder / "dense", folder / "packed")
    write_packed(folder / "dense", folder / "grouped", alphatune.UniformConfig(4, 24))
    write_adapter(folder / "packed", folder / "packed" / "a", 1)
    write_adapter(folder / "packed", folder / "packed" / "b", 2, lora=True)
    write_adapter(folder / "grouped", folder / "packed" / "other", 3)
    return folder


@pytest.mark.parametrize("name", ["packed", "grouped"])
def test_what_it_says_of_a_packed_model_is_so(home: Path, name: str) -> None:
    report, model = inspect(home / name), AutoModelForCausalLM.from_pretrained(home / name)
    stored = load_file(home / name / "model.safetensors")
    layers = packed_layers(model)
    assert report.kind == "packed" and [layer.name for layer in report.layers] == list(layers)
    for told in report.layers:
        layer = layers[told.name]
        assert told.shape == (layer.out_features, layer.in_features)
        assert (told.bits, told.group_size) == (layer.bits, layer.grouping.size)
        held = [t for t in (layer.qweight, layer.alpha, layer.offset) if t is not None]
        assert told.bytes == sum(t.numel() * t.element_size() for t in held)
    assert report.bytes == sum(t.numel() * t.element_size() for t in stored.values())
    dense = AutoModelForCausalLM.from_pretrained(home / "dense")
    assert report.fp32_bytes == 4 * sum(p.numel() for p in dense.parameters())
    assert report.bytes == sum(layer.bytes for layer in report.layers) + sum(report.other.values())
    assert report.fingerprint == fingerprint(model)


def test_adapters_are_found_and_matched_with_the_base(home: Path) -> None:
    found = {a["name"]: a for a in inspect(home / "packed").adapters}
    assert {name: (a["type"], a["fits"]) for name, a in found.items()} == {
        "a": ("ALPHATUNING", True), "b": ("LORA", None), "other": ("ALPHATUNING", False)}  # fmt: skip
    adapter = inspect(home / "packed" / "a")
    assert adapter.kind == "adapter" and adapter.details["trainable"] == "first"
    assert adapter.fingerprint == inspect(home / "packed").fingerprint
    assert adapter.bytes == found["a"]["bytes"] == sum(
        t.numel() * 4 for t in load_file(home / "packed" / "a" / "adapter_model.safetensors").values())  # fmt: skip


def test_the_table_and_the_json(home: Path, capsys: Any) -> None:
    assert main(["inspect", str(home / "packed")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("packed: packed checkpoint, alphatune_bcq") and "192 x 64     2" in out
    assert "times smaller" in out and "adapter a: ALPHATUNING" in out and "of another base" in out
    assert main(["inspect", str(home / "packed"), "--json", "--headers-only"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["fingerprint"] is None and values["ratio"] > 2 and len(values["layers"]) == 8
    assert main(["inspect", str(home / "packed" / "a")]) == 0
    assert "base fingerprint: " in capsys.readouterr().out


def test_a_plain_checkpoint_is_described_by_its_headers(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules["alphatune.tools.inspect"], "packed_fingerprint", None)  # would read the weights
    report = inspect(home / "dense")
    assert report.kind == "plain" and report.ratio == 1.0 and report.fingerprint is None
    assert ("transformer.h.0.attn.c_attn.weight", (64, 192)) in [(layer.name, layer.shape) for layer in report.layers]


def test_mistakes_are_told_in_one_line(home: Path, tmp_path: Path) -> None:
    def copy(name: str, of: str = "packed") -> Path:
        return Path(shutil.copytree(home / of, tmp_path / name))

    def edit(folder: Path, **quantization: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"].update(quantization)
        (folder / "config.json").write_text(json.dumps(config))

    folder = copy("cut")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match="model.safetensors: not a whole safetensors file"):
        inspect(folder)
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        inspect(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle files can run code"):
        inspect(folder)
    folder = copy("foreign")
    edit(folder, quant_method="gptq")
    with pytest.raises(UserError, match="quantised by gptq; known here"):
        inspect(folder)
    folder = copy("names")
    edit(folder, modules={"decoder.fc1": 32})
    with pytest.raises(UserError, match="has no layer decoder.fc1"):
        inspect(folder)
    for number, size in enumerate(("h", None, 7.5, True)):
        folder = copy(f"size-{number}")
        edit(folder, modules={"transformer.h.0.attn.c_attn": size})
        with pytest.raises(UserError, match=f"gives {size!r} as the number of weights per scale"):
            inspect(folder)
    for number, (part, change) in enumerate([
        ("qweight", lambda t: t.flatten()), ("qweight", lambda t: t[:-1]), ("alpha", lambda t: t[:, :1].clone()),
    ]):  # fmt: skip
        folder = copy(f"shape-{number}")
        stored = load_file(folder / "model.safetensors")
        stored[f"transformer.h.0.attn.c_attn.{part}"] = change(stored[f"transformer.h.0.attn.c_attn.{part}"])
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=f"c_attn.{part} has shape .* config.json implies"):
            inspect(folder)
    folder = copy("swapped")
    shutil.copyfile(home / "dense" / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(UserError, match="lack codes or scales of transformer.h.0"):
        inspect(folder)
    for text, match in (
        ("[]", "holds a list"),
        ("\x00{", "not JSON"),
        ("[" * 20_000, "not JSON"),
        ('{"quantization_config": 3}', "quantised by 3"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=match):
            inspect(folder)
    folder = copy("listed")
    config = json.loads((folder / "config.json").read_text()) | {"dtype": []}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="describes no model: list index out of range"):  # transformers' own fault
        inspect(folder)
    folder = copy("part")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(UserError, match="this part of the checkpoint is missing"):
        inspect(folder)
    (folder / "a" / "adapter_model.safetensors").rename(folder / "a" / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle file, which is not read"):
        inspect(folder / "a")
    (folder / "model.safetensors.index.json").unlink()
    told = {a["name"]: a for a in inspect(folder).adapters}
    assert "pickle" in told["a"]["error"] and told["b"]["type"] == "LORA"
    (folder / "a" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="names no peft_type"):
        inspect(folder / "a")
    with pytest.raises(UserError, match="has no config.json"):
        inspect(tmp_path)
