"""What surrounds a packed layer changes nothing in it: torch's defaults, threads, replicas, writes behind its back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import alphatune
from alphatune.errors import UserError
from alphatune.hf.scales import AlphaTuningLayer
from alphatune.native.presence import fast
from alphatune.packed.dense import DenseWeight
from alphatune.packed.walk import quantize_layer
from alphatune.settings import BCQConfig

native_only = pytest.mark.skipif(not fast(), reason="needs compiled kernels: pip install 'alphatune[fast]'")


@pytest.fixture
def defaults() -> Iterator[None]:
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def _layer(rows: int = 64, columns: int = 96) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows)


@pytest.mark.parametrize("solver", ["greedy", "alternating", "weighted", "hessian", "gptq"])
def test_a_default_device_is_not_where_codes_are_found(defaults: None, solver: str) -> None:
    layer, hessian = _layer(), torch.eye(96) + 0.1
    config = BCQConfig(bits=3, solver=solver)
    expected, _ = quantize_layer(layer, config, "layer", None, hessian)
    torch.set_default_device("meta")
    found, _ = quantize_layer(layer, config, "layer", None, hessian)
    assert torch.equal(found.qweight, expected.qweight) and torch.equal(found.alpha, expected.alpha)


@native_only
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_s_defaults_are_not_those_of_the_measurement(
    defaults: None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alphatune.packed.kernels import crossover

    def gain(x: torch.Tensor, one: Any, other: Any) -> float:
        assert x.dtype == torch.float32 and x.is_cpu
        one(x), other(x)
        return 1.0

    monkeypatch.setattr(crossover, "_gain", gain)
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    assert isinstance(crossover.measure(3, False, None), crossover.Limits)


@pytest.mark.parametrize("k", [1, 3])
def test_the_bits_of_one_row_are_packed_whatever_its_strides(k: int) -> None:
    from alphatune.quant.packing import pack

    signs = torch.rand(k * 64) > 0.5
    odd = signs.as_strided((1, k, 64), (1, 64, 1))  # contiguous, says torch
    assert odd.is_contiguous() and torch.equal(pack(odd), pack(signs.view(1, k, 64).clone()))


@pytest.mark.parametrize("solver", ["hessian", "gptq"])
def test_one_row_alone_is_solved_as_among_others(solver: str) -> None:
    """The last piece of a large layer may be one row, too."""
    one, two = _layer(1, 64), nn.Linear(64, 2)
    with torch.no_grad():
        two.weight.copy_(one.weight.expand(2, 64))
    config, hessian = BCQConfig(bits=2, solver=solver, offset=True), torch.eye(64) + 0.1
    alone, _ = quantize_layer(one, config, "layer", None, hessian)
    among, _ = quantize_layer(two, config, "layer", None, hessian)
    assert torch.equal(alone.qweight, among.qweight[..., :1])
    assert torch.allclose(alone.weight, among.weight[:1], atol=1e-6)


def test_a_weight_dropped_while_it_is_made_is_still_given() -> None:
    kept, weight = DenseWeight(), torch.ones(2)
    scale = torch.ones(1)

    def rebuild() -> torch.Tensor:
        other = threading.Thread(target=kept.drop)
        other.start()
        other.join()
        return weight

    assert torch.equal(kept.of((scale,), scale, rebuild), weight)
    kept.drop()
    assert torch.equal(kept.of((scale,), scale, rebuild), weight)


@pytest.mark.filterwarnings("ignore:packed layers keep")
def test_scales_written_through_data_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, _ = quantize_layer(_layer(), BCQConfig(bits=3))
    layer, x = AlphaTuningLayer(packed).eval(), torch.randn(2, 96)
    layer.add("task", "first")
    layer.set_adapter("task")
    monkeypatch.setattr("alphatune.packed.product.fast", lambda: False)
    monkeypatch.setattr("alphatune.packed.linear.fast", lambda: False)
    with torch.no_grad(), alphatune.packed.linear.dense_weights(layer):
        before = layer(x)
        layer.alphatuning_scale["task"].data.mul_(3)
        assert torch.allclose(layer(x), x @ layer.weight_t() + packed.bias, atol=1e-4)
        assert not torch.allclose(layer(x), before, atol=1e-2)


def test_a_replica_without_parameters_of_its_own_has_its_bias() -> None:
    """As DataParallel makes them: buffers and parameters are plain attributes."""
    packed, _ = quantize_layer(_layer(), BCQConfig(bits=3))
    x = torch.randn(2, 96)
    expected = packed(x)
    bias = packed._parameters.pop("bias")
    object.__setattr__(packed, "bias", bias)
    assert torch.equal(packed(x), expected)


def test_scales_of_half_precision_are_refused() -> None:
    packed, _ = quantize_layer(_layer(), BCQConfig(bits=3))
    packed.alpha = packed.alpha.half()
    for call in (lambda: packed(torch.randn(2, 96)), packed.weight_t):
        with torch.no_grad(), pytest.raises(UserError, match=r"are torch.float16: they must be float32; load the"):
            call()


def test_a_merged_adapter_moves_and_is_taken_off_where_it_is_disabled() -> None:
    packed, _ = quantize_layer(_layer(), BCQConfig(bits=3))
    layer = AlphaTuningLayer(packed)
    base = layer.weight.clone()
    layer.add("task", "first")
    layer.set_adapter("task")
    with torch.no_grad():
        layer.alphatuning_scale["task"].mul_(2)
    layer.merge()
    assert not torch.equal(layer.weight, base)
    layer.enable_adapters(False)
    assert torch.equal(layer.weight, base) and torch.equal(layer.weight_t(), base.T)
    layer.enable_adapters(True)
    layer.merge()
    layer.to("meta")
    layer.unmerge()
    assert layer.base_layer.alpha.is_meta
