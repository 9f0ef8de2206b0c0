"""`import alphatune` is enough, whenever it comes, and costs nothing by itself."""

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
    "alphatune first": ("import json, sys\nimport alphatune", "", ""),
    "alphatune last": (
        "import json, sys\nimport transformers.modeling_utils, peft",
        "import alphatune",
        "",
    ),
    "between, with its own names": ("import json, sys", "from alphatune import AlphaTuningConfig", "import alphatune"),
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


@pytest.mark.parametrize("order", [pytest.param(o, marks=[pytest.mark.slow] if "between" in o else []) for o in ORDERS])
def test_packed_models_and_adapters_load_whatever_is_imported_first(
    order: str, saved: tuple[Path, Path, list[list[float]]]
) -> None:
    first, late, latest = ORDERS[order]
    base, adapter, expected = saved
    printed = python(first + LOAD.format(late=late, latest=latest), str(base), str(adapter))
    found = json.loads(next(line for line in printed.splitlines() if line.startswith("[[")))
    assert found == [pytest.approx(values, abs=1e-6) for values in expected]


# --- the hook itself, on a host that is imported in no time

HOOK = """
import sys, importlib, importlib.util, alphatune
alphatune._PLUGINS["host.part"] = "plugin"
assert importlib.util.find_spec("host.part") and "plugin" not in sys.modules  # looking is not importing
import host
assert "plugin" not in sys.modules
import host.part
print("plugin" in sys.modules, host.part.value, host.part.__file__.endswith("part.py"))
importlib.reload(alphatune), importlib.reload(host.part)
print(sum(type(f).__name__ == "_AfterImport" for f in sys.meta_path))
"""


def _host(folder: Path, plugin: str) -> Path:
    (folder / "host").mkdir()
    (folder / "host" / "__init__.py").write_text("")
    (folder / "host" / "part.py").write_text("value = 7\n")
    (folder / "plugin.py").write_text(plugin)
    return folder


def test_a_plugin_follows_the_module_that_it_extends(tmp_path: Path) -> None:
    printed = python(HOOK, path=_host(tmp_path, "from host import part\nassert part.value == 7\n"))
    assert printed.split() == ["True", "7", "True", "1"]


def test_a_broken_plugin_does_not_break_its_host(tmp_path: Path) -> None:
    code = 'import alphatune; alphatune._PLUGINS["host.part"] = "plugin"; import host.part; print(host.part.value)'
    printed = python(code, path=_host(tmp_path, "raise ImportError('too old')\n"))
    assert "7" in printed and "plugin cannot be used: ImportError: too old" in printed


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
