"""`alphatune.register()` is enough, whenever it comes; importing the package costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def python(code: str, *arguments: str, path: Path | None = None) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([str(path)] if path else [])])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_alphatune_imports_neither_torch_nor_transformers_nor_peft() -> None:
    code = "import sys, alphatune; print(sorted({'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)))"
    assert python(code).strip() == "[]"


LOAD = """
from transformers import AutoModelForCausalLM
import torch
{late}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(2, 14).view(2, 6)
values = lambda m: m(input_ids=ids).logits.detach().flatten()[:3].tolist()
base = values(model)
{latest}
from peft import PeftModel
print(json.dumps([base, values(PeftModel.from_pretrained(model, sys.argv[2]))]))
"""
ORDERS = {
    "alphatune first": ("import json, sys, alphatune\nalphatune.register()", "", ""),
    "alphatune last": (
        "import json, sys\nimport transformers.modeling_utils, peft",
        "import alphatune; alphatune.register()",
        "",
    ),
    "by a name of its own": ("import json, sys", "from alphatune import BCQConfig", ""),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[list[float]]]:
    """A packed model, an adapter for it, and what both compute."""
    import torch
    from peft import get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    import alphatune

    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32,
                                       bos_token_id=0, eos_token_id=0)).eval()  # fmt: skip
    alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
    model.save_pretrained(folder / "base")

    def values() -> list[float]:
        return model(input_ids=torch.arange(2, 14).view(2, 6)).logits.detach().flatten()[:3].tolist()

    expected = [values()]
    tuned = get_peft_model(model, alphatune.AlphaTuningConfig())
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "alphatuning_scale" in name:
                parameter *= 1.5
    tuned.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter", [*expected, values()]


@pytest.mark.parametrize("order", [pytest.param(o, marks=[pytest.mark.slow] if "name" in o else []) for o in ORDERS])
def test_packed_models_and_adapters_load_whatever_is_imported_first(
    order: str, saved: tuple[Path, Path, list[list[float]]]
) -> None:
    first, late, latest = ORDERS[order]
    base, adapter, expected = saved
    printed = python(first + LOAD.format(late=late, latest=latest), str(base), str(adapter))
    found = json.loads(next(line for line in printed.splitlines() if line.startswith("[[")))
    assert found == [pytest.approx(values, abs=1e-6) for values in expected]


def test_without_it_loading_stops_and_names_the_format(saved: tuple[Path, Path, list[list[float]]]) -> None:
    code = (
        "import sys\nfrom transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved[0])], capture_output=True, text=True)
    assert done.returncode != 0 and "alphatune_bcq" in done.stdout + done.stderr


def test_registering_twice_changes_nothing() -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    from alphatune.hf import quantizer, scales

    before = dict(AUTO_QUANTIZER_MAPPING), dict(PEFT_TYPE_TO_TUNER_MAPPING)
    quantizer.register()
    scales.register()
    assert before == (dict(AUTO_QUANTIZER_MAPPING), dict(PEFT_TYPE_TO_TUNER_MAPPING))


def test_an_unknown_name_is_no_attribute() -> None:
    import alphatune

    with pytest.raises(AttributeError, match="has no attribute nothing"):
        alphatune.nothing  # noqa: B018
    assert all(getattr(alphatune, name) for name in alphatune.__all__)
