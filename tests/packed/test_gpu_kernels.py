"""The Triton kernels against sums written out in float64: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_product import Drawn

from alphatune.packed import product

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install 'alphatune[gpu]'", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("triton was imported before its interpreter was asked for", allow_module_level=True)

from alphatune.packed.kernels import gpu  # noqa: E402  # imports triton

ROUNDING = {torch.float32: 1e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}  # of weights and of results
# outputs, inputs, group size, planes, offset: sizes that end anywhere in a word, a block of outputs, a group
SHAPES = [
    (70, 150, None, 3, False),
    (65, 96, 32, 2, True),
    (64, 100, 24, 4, True),
    (3, 40, 7, 1, False),
    (70, 150, 300, 3, True),
    (5, 33, 165, 5, False),
    (1, 1, None, 2, True),
    (66, 130, 64, 8, False),
]


@pytest.fixture(params=[1, 30], ids=["whole", "split"])
def processors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program takes all inputs, or several share them."""
    monkeypatch.setattr(gpu, "_processors", lambda device: request.param)


def _moved(layer: Drawn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    qweight, alpha, offset = layer.parts
    return qweight.to(DEVICE), alpha.to(DEVICE), None if offset is None else offset.to(DEVICE)


def _error(layer: Drawn, x: torch.Tensor) -> float:
    y = gpu.multiply(x.to(DEVICE), *_moved(layer), layer.grouping)
    assert y.dtype == x.dtype and y.shape == (*x.shape[:-1], layer.grouping.rows)
    return layer.error(x, y.cpu())


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("rows", [1, 3, 6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_float64(shape: tuple[int, int, int | None, int, bool], rows: int) -> None:
    layer = Drawn(*shape)
    assert _error(layer, layer.inputs(rows)) < ROUNDING[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("shape", [(70, 150, None, 3, False), (40, 72, 24, 2, True)], ids=str)
def test_half_precision(shape: tuple[int, int, int | None, int, bool], rows: int, dtype: torch.dtype) -> None:
    layer = Drawn(*shape)
    assert _error(layer, layer.inputs(rows).to(dtype)) < ROUNDING[dtype]


@pytest.mark.parametrize("rows", [2, 4, 16, 17, 64, 129])
def test_any_number_of_rows(rows: int) -> None:
    layer = Drawn(20, 70, None, 2, True)
    assert _error(layer, layer.inputs(rows)) < ROUNDING[torch.float32]


def test_few_rows_are_exact_in_half_precision_until_the_end() -> None:
    layer = Drawn(64, 300, None, 3, False)
    x = layer.inputs(2).bfloat16()
    y = gpu.multiply(x.to(DEVICE), *_moved(layer), layer.grouping).cpu()
    exact = torch.from_numpy(x.double().numpy() @ layer.dense)
    assert ((y.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-4).all()


def test_inputs_that_are_not_in_one_piece_and_have_more_dimensions() -> None:
    layer = Drawn(40, 64, None, 3, False)
    assert _error(layer, layer.inputs(3, 2).transpose(0, 1)) < ROUNDING[torch.float32]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_rebuilt_weight_has_the_bits_of_torchs_own_sum(shape: tuple[int, int, int | None, int, bool]) -> None:
    layer = Drawn(*shape)
    fast, slow = gpu.rebuild(*_moved(layer), layer.grouping).cpu(), product._rebuild(*layer.parts, layer.grouping)
    assert torch.equal(fast.view(torch.int32), slow.view(torch.int32))


def test_a_program_has_no_more_than_its_share_and_no_word_is_left_out() -> None:
    for words in range(1, 200):
        for programs in (1, 9, 64, 1000):
            each = gpu._words_of_each(words, programs, 132)
            splits = -(-words // each)
            assert each % 2 == 0 and each * splits >= words > each * (splits - 1)
            assert splits == 1 or (splits <= words / 4 and programs * (splits - 1) < 4 * 132)


# --- which path is taken


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if the CPU's tensors lay on a GPU; names of the kernels' functions as they are called."""
    calls: list[str] = []
    monkeypatch.setattr(product, "fast", lambda: False)
    monkeypatch.setattr(product, "fast_on_gpu", lambda device: True)
    for name in ("multiply", "rebuild"):
        kernel = getattr(gpu, name)
        monkeypatch.setattr(gpu, name, lambda *a, name=name, kernel=kernel: calls.append(name) or kernel(*a))
    return calls


def test_the_product_on_a_gpu_is_the_kernels(called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)  # another test's run asked for it
    layer = Drawn(40, 64, None, 3, False)
    x = layer.inputs(2)
    assert layer.error(x, product.multiply(x, *layer.parts, layer.grouping)) < 1e-6 and called == ["multiply"]


@pytest.mark.parametrize("case", ["float64", "none", "many", "deterministic"])
def test_what_the_kernels_are_not_for_is_a_product_with_the_rebuilt_weight(
    case: str, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Drawn(40, 64, None, 3, False)
    x = layer.inputs({"none": 0, "many": gpu.MANY + 1}.get(case, 2))
    x = x.double() if case == "float64" else x
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: case == "deterministic")
    y = product.multiply(x, *layer.parts, layer.grouping)
    assert called == ["rebuild"] and y.dtype == x.dtype and y.shape == (len(x), 40)
    assert not len(x) or layer.error(x, y) < 1e-6


def test_without_triton_or_where_it_is_forbidden_torch_rebuilds(monkeypatch: pytest.MonkeyPatch) -> None:
    can = product.fast_on_gpu.__wrapped__
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert can(card) and not can(torch.device("cpu"))
    monkeypatch.setenv("ALPHATUNE_KERNELS", "0")
    assert not can(card)
    monkeypatch.delenv("ALPHATUNE_KERNELS")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not can(card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not can(card)


# --- code for a GPU, made without one

COMPILE = """
import sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from alphatune.packed.kernels import gpu

def shared_memory(kernel, x, planes, constants, stages):
    constants = {"PLANES": planes, "OFFSET": True, "OUTPUTS": gpu.OUTPUTS, **constants}
    pointers = {"x": x, "y": "*fp32", "weight": "*fp32", "qweight": "*i32", "alpha": "*fp32", "offset": "*fp32"}
    names = kernel.arg_names
    kinds = {n: "constexpr" if n in constants else pointers.get(n, "i32") for n in names}
    source = ASTSource(kernel, kinds, {(names.index(n),): v for n, v in constants.items() if n in names})
    made = triton.compile(source, GPUTarget("cuda", 80, 32), {"num_stages": stages, **gpu.OPTIONS})
    return made.metadata.shared, "mma" in made.asm["ptx"]

light = {"WORDS": 2, "WHOLE": True, "WIDEN": False}
heavy = {"WORDS": 1, "WHOLE": False, "WIDEN": False}
print(shared_memory(gpu._few, "*bf16", 3, {"ROWS": 4, "WHOLE": True}, 3))
print(shared_memory(gpu._many, "*bf16", 4, {"ROWS": 128, **light}, 3))
print(shared_memory(gpu._many, "*fp32", 3, {"ROWS": 16, **heavy}, 1))
"""


def test_the_kernels_compile_for_a_gpu_and_fit_into_its_shared_memory(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    few, light, heavy = map(eval, done.stdout.splitlines())
    assert all(shared < 99 << 10 for shared, _ in (few, light, heavy))  # the least of any GPU from Ampere on
    assert light[1] and not few[1]  # tensor cores
