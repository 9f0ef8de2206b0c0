"""`alphatune export`: plain checkpoints that need no alphatune, and kernel tensors that mean what their format says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from toy_checkpoint import IDS, logits, write_adapter, write_dense, write_packed
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

import alphatune
from alphatune.__main__ import main
from alphatune.errors import UserError
from alphatune.packed.linear import packed_layers
from alphatune.tools import export

FORMATS = {
    "rows": alphatune.BCQConfig(3),
    "short": alphatune.BCQConfig(2, 24),  # the last group of a row is shorter
    "spanning": alphatune.BCQConfig(1, "4h"),  # scales that several rows share
    "uniform": alphatune.UniformConfig(4, 32),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dense/, a packed folder per format, and an adapter of rows/."""
    folder = tmp_path_factory.mktemp("export")
    write_dense(folder / "dense")
    for name, config in FORMATS.items():
        write_packed(folder / "dense", folder / name, config)
    write_adapter(folder / "rows", folder / "adapter", 1)
    write_adapter(folder / "rows", folder / "lora", 1, lora=True)
    return folder


def run(*arguments: object) -> None:
    assert main(["export", *map(str, arguments)]) == 0


def unpacked(folder: Path) -> dict[str, np.ndarray]:
    """W [out, in] of every layer, by the words of docs/cli.md, bit by bit."""
    described = json.loads((folder / "lut_gemm.json").read_text())["layers"]
    tensors, found = load_file(folder / "lut_gemm.safetensors"), {}
    for name, about in described.items():
        binary, alpha = tensors[f"{name}.binary"], tensors[f"{name}.alpha"].astype(np.float32)
        n_in, n_out = about["in_features"], about["out_features"]
        assert binary.dtype == np.int32 and binary.shape == (-(-n_in // 32), about["bits"], n_out)
        weight = np.zeros((n_out, n_in), np.float32)
        for k in range(n_in):
            group = k // about["group_size"]
            for i in range(about["bits"]):
                bit = (binary[k // 32, i] >> (k % 32)) & 1
                weight[:, k] += alpha[group, i] * np.where(bit == 1, 1, -1)
            if f"{name}.q_bias" in tensors:
                weight[:, k] += tensors[f"{name}.q_bias"][group].astype(np.float32)
        found[name] = weight
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_kernel_tensors_rebuild_the_weights(home: Path, name: str, tmp_path: Path) -> None:
    run(home / name, tmp_path / "out", "--to", "lut-gemm", "--dtype", "float32")
    layers = packed_layers(AutoModelForCausalLM.from_pretrained(home / name))
    found = unpacked(tmp_path / "out")
    assert found.keys() == layers.keys()
    for layer, weight in found.items():
        assert np.allclose(weight, layers[layer].weight.numpy(), atol=1e-6), layer
    described = json.loads((tmp_path / "out" / "lut_gemm.json").read_text())["layers"]
    assert all(d["whole_words"] == (name != "short") for d in described.values())
    has_offset = name == "uniform"
    assert all(("q_bias" in d["tensors"]) == has_offset and "bias" in d["tensors"] for d in described.values())


def test_scales_are_float16_unless_asked_and_must_fit(home: Path, tmp_path: Path) -> None:
    run(home / "rows", tmp_path / "half", "--to", "lut-gemm", "--adapter", home / "adapter")
    tensors = load_file(tmp_path / "half" / "lut_gemm.safetensors")
    assert {t.dtype.name for n, t in tensors.items() if n.endswith(".alpha")} == {"float16"}
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "rows"), home / "adapter")
    merged = packed_layers(tuned.merge_and_unload())
    for layer, weight in unpacked(tmp_path / "half").items():
        assert np.allclose(weight, merged[layer].weight.numpy(), atol=2e-3)
    model = AutoModelForCausalLM.from_pretrained(home / "rows")
    next(iter(packed_layers(model).values())).alpha.fill_(1e6)
    with pytest.raises(UserError, match="c_attn.alpha does not fit into torch.float16"):
        export.write_lut_gemm(model, tmp_path)


PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert "alphatune" not in sys.modules
out = model(input_ids=torch.tensor(eval(sys.argv[2]))).logits
print(out.double().sum().item(), out.abs().max().item())
"""


def test_a_dense_export_loads_without_alphatune(home: Path, tmp_path: Path) -> None:
    run(home / "uniform", tmp_path / "out", "--to", "dense")
    expected = logits(AutoModelForCausalLM.from_pretrained(home / "uniform"))
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "out"), str(IDS.tolist())], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    total, largest = map(float, done.stdout.split())
    assert total == pytest.approx(float(expected.double().sum()), rel=1e-4, abs=1e-2)
    assert largest == pytest.approx(float(expected.abs().max()), rel=1e-4)


@pytest.mark.parametrize("name", ["rows", "short"])
def test_a_dense_export_computes_the_same(home: Path, name: str, tmp_path: Path) -> None:
    run(home / name, tmp_path / "out", "--to", "dense")
    dense, packed = (AutoModelForCausalLM.from_pretrained(f) for f in (tmp_path / "out", home / name))
    assert not packed_layers(dense) and torch.allclose(logits(dense), logits(packed), atol=1e-4)
    original = AutoModelForCausalLM.from_pretrained(home / "dense")
    assert dense.state_dict().keys() == original.state_dict().keys()
    assert {n: t.shape for n, t in dense.state_dict().items()} == {n: t.shape for n, t in original.state_dict().items()}


def test_adapters_and_half_precision(home: Path, tmp_path: Path) -> None:
    run(home / "rows", tmp_path / "out", "--to", "dense", "--adapter", home / "adapter")
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "rows"), home / "adapter")
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    assert torch.allclose(found, logits(tuned), atol=1e-4)
    assert not torch.allclose(found, logits(AutoModelForCausalLM.from_pretrained(home / "rows")), atol=1e-2)
    run(home / "rows", tmp_path / "out", "--to", "dense", "--dtype", "bfloat16", "--overwrite")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_models_with_ordinary_linear_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = OPTForCausalLM(OPTConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, ffn_dim=64,
                                          num_attention_heads=2, max_position_embeddings=32,
                                          word_embed_proj_dim=16))  # fmt: skip
    alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
    expected = logits(model)
    export.to_dense(model).save_pretrained(tmp_path)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected, atol=1e-5)


def test_mistakes_are_told_in_one_line(home: Path, tmp_path: Path, capsys: Any) -> None:
    for match, *arguments in (
        ("is not packed", home / "dense", tmp_path / "o", "--to", "dense"),
        ("LoRA cannot be merged into packed layers", home / "rows", tmp_path / "o", "--to", "dense", "--adapter",
         home / "lora"),
        ("belongs to another packed base", home / "short", tmp_path / "o", "--to", "dense", "--adapter",
         home / "adapter"),
        ("float16 or float32", home / "rows", tmp_path / "o", "--to", "lut-gemm", "--dtype", "bfloat16"),
        ("holds what is read", home / "rows", home / "rows", "--to", "dense", "--overwrite"),
        ("the following arguments are required: --to", home / "rows", tmp_path / "o"),
    ):  # fmt: skip
        assert main(["export", *map(str, arguments)]) == 2
        err = capsys.readouterr().err
        assert match in err and err.count("\n") == 1
    assert not (tmp_path / "o").exists()
