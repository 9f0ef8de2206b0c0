"""Layers that are not called but read, and layers that a packed one cannot stand for: found by what they do."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.utils import parametrizations, prune

import alphatune
from alphatune.errors import UserError
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.packed.walk import linear_layers, quantize_layer, quantize_layers, staying_layers
from alphatune.settings import BCQConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor", "ignore:.* stays? dense")


class Block(nn.Module):
    """Two linear layers, of which a test changes one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both, one after the other."""
        out: torch.Tensor = self.two(self.one(x).relu())
        return out


class Stack(nn.Module):
    """Blocks, as a transformer has them."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All blocks, one after the other."""
        for layer in self.layers:
            x = layer(x)
        return x


class Doubled(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Twice what its parent does."""
        return 2 * super().forward(input)


class Renamed(nn.Linear):
    """A subclass that computes the same."""


def stack(change: Any = None) -> Stack:
    torch.manual_seed(0)
    made = Stack(Block(), Block()).eval()
    if change is not None:
        change(made)
    return made


def encoder(dtype: torch.dtype = torch.float32, **settings: Any) -> Stack:
    """Blocks of torch's own, whose attention multiplies by `out_proj.weight` and never calls `out_proj`."""
    torch.manual_seed(0)
    made = [nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, **settings) for _ in range(2)]
    return Stack(*made).to(dtype)


def dense_weight(layer: PackedLinear, alpha: torch.Tensor) -> torch.Tensor:
    """W [out, in] of a row-wise layer, from the bits one by one, differentiable in alpha [1, q, out]."""
    inputs = torch.arange(layer.in_features)
    signs = (layer.qweight[inputs // 32] >> (inputs % 32)[:, None, None]) & 1  # [in, q, out]
    return (alpha * (signs.double() * 2 - 1)).sum(dim=1).T


# --- weights that are read


@pytest.mark.parametrize("which", ["first", "all"])
def test_a_layer_whose_weight_is_read_trains_as_one_that_is_called(which: str) -> None:
    twin = encoder().double()
    model = alphatune.quantize_model(encoder(), BCQConfig(2), progress=False)
    layers = packed_layers(model)
    assert {name.rsplit(".", 1)[1] for name in layers} == {"out_proj", "linear1", "linear2"}
    tuned = get_peft_model(model, alphatune.AlphaTuningConfig(trainable=which)).train()
    x, dy = torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    out = tuned(x)
    out.backward(dy)

    alphas = {name: layer.alpha.double().requires_grad_() for name, layer in layers.items()}
    weights = {f"{name}.weight": dense_weight(layer, alphas[name]) for name, layer in layers.items()}
    expected = torch.func.functional_call(twin, weights, (x.double(),))
    expected.backward(dy.double())
    assert torch.allclose(out.double(), expected, atol=1e-5)
    scales = {n: p for n, p in tuned.named_parameters() if p.requires_grad}
    assert len(scales) == 6
    for name, scale in scales.items():
        layer = name.removeprefix("base_model.model.").removesuffix(".alphatuning_scale.default")
        gradient = alphas[layer].grad
        assert gradient is not None and scale.grad is not None and gradient.abs().max() > 0
        wanted = gradient[:, 0] if which == "first" else gradient
        assert torch.allclose(scale.grad.double(), wanted / layers[layer].in_features, atol=1e-5)  # Eq. 4


def test_the_fast_path_of_torchs_encoder_reads_the_same_weights() -> None:
    model, twin = encoder().eval(), encoder().eval()
    quantize_layers(model, BCQConfig(2), progress=False)
    with torch.no_grad():
        for name, layer in packed_layers(model).items():
            twin.get_submodule(name).weight.copy_(layer.weight_t().T)  # type: ignore[union-attr, operator]
        x = torch.randn(2, 4, 16)
        assert torch.allclose(model(x), twin(x), atol=1e-5)


def test_a_weight_that_is_read_has_the_dtype_that_its_reader_multiplies_in() -> None:
    model = encoder(torch.bfloat16).eval()
    quantize_layers(model, BCQConfig(2), progress=False)
    assert {layer.weight.dtype for layer in packed_layers(model).values()} == {torch.bfloat16}
    assert model(torch.randn(2, 4, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_low_rank_adapters_on_layers_that_are_read_train_too() -> None:
    model = alphatune.quantize_model(encoder(), BCQConfig(2), progress=False)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["out_proj", "linear1"])).train()
    x = torch.randn(2, 4, 16)
    before = tuned(x)
    before.square().sum().backward()
    moved = [p for n, p in tuned.named_parameters() if "lora_B" in n]
    assert len(moved) == 4 and all(p.grad is not None and p.grad.abs().max() > 0 for p in moved)
    with torch.no_grad():
        for p in moved:
            p.add_(0.1)
    assert not torch.allclose(tuned(x), before)
    with tuned.disable_adapter():
        assert torch.allclose(tuned(x), before, atol=1e-6)


# --- layers that stay dense


def _subclass(model: Stack) -> None:
    model.layers[0].one = Doubled(16, 24)


def _parametrized(model: Stack) -> None:
    parametrizations.weight_norm(model.layers[0].one)  # type: ignore[arg-type]


def _pruned(model: Stack) -> None:
    prune.l1_unstructured(model.layers[0].one, "weight", 0.5)  # type: ignore[no-untyped-call]


def _spectral(model: Stack) -> None:
    nn.utils.spectral_norm(model.layers[0].one)  # type: ignore[type-var]


def _shared(model: Stack) -> None:
    model.register_module("head", nn.Linear(16, 24))
    model.layers[0].one.weight = model.head.weight  # type: ignore[union-attr]


def _twice(model: Stack) -> None:
    model.register_module("also", model.layers[0].one)  # type: ignore[arg-type]


def _redirected(model: Stack) -> None:
    layer = model.layers[0].one
    layer.forward = lambda x: nn.functional.linear(x, layer.weight)  # type: ignore[method-assign, union-attr, arg-type]


CHANGES = {
    "subclass": (_subclass, "Doubled has a forward of its own"),
    "parametrized": (_parametrized, "its weight is computed from other parameters"),
    "pruned": (_pruned, "its weight is computed from other parameters"),
    "spectral": (_spectral, "its weight is computed from other parameters"),
    "shared": (_shared, "it shares its weight with another module"),
    "twice": (_twice, "it shares its weight with another module"),
    "redirected": (_redirected, "its calls are redirected, as for offloading"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_layers_that_a_packed_one_cannot_stand_for_stay_and_are_named(change: Any, reason: str) -> None:
    model = stack(change)
    left = copy.deepcopy(model.layers[0].one.state_dict())  # type: ignore[union-attr]
    assert staying_layers(model) == {"layers.0.one": reason}
    with pytest.warns(UserWarning, match=rf"one linear layer stays dense inside the blocks: layers.0.one \({reason}"):
        quantize_layers(model, BCQConfig(2), progress=False)
    assert list(packed_layers(model)) == ["layers.0.two", "layers.1.one", "layers.1.two"]
    after = model.layers[0].one.state_dict()  # type: ignore[union-attr]
    assert left.keys() == after.keys() and all(torch.equal(after[k], v) for k, v in left.items())
    with pytest.raises(UserError, match=f"modules: layers.0.one stays dense: {reason}"):
        alphatune.quantize_model(stack(change), BCQConfig(2, modules=["layers.0.one"]), progress=False)


def test_a_subclass_that_computes_the_same_is_packed_and_nothing_is_warned_of() -> None:
    model = stack()
    model.layers[0].one = Renamed(16, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_layers(model, BCQConfig(2), progress=False)
    assert len(packed_layers(model)) == 4


def test_blocks_that_stand_twice_in_a_model_are_packed_once() -> None:
    block = Block()
    model = Stack(block, block)
    assert list(linear_layers(model)) == ["layers.0.one", "layers.0.two"]
    quantize_layers(model, BCQConfig(2), progress=False)
    assert model.layers[0] is model.layers[1] and len(packed_layers(model)) == 2


def test_nothing_to_quantise_says_why() -> None:
    model = Stack(nn.Sequential(Doubled(8, 8)), nn.Sequential(Doubled(8, 8)))
    with pytest.raises(UserError, match="nothing to quantise; layers.0.0 stays dense: Doubled has a forward"):
        quantize_layers(model, BCQConfig(2), progress=False)


def test_matrices_that_no_linear_layer_holds_are_told_of() -> None:
    with pytest.warns(UserWarning, match=r"38% of the weights .* stay dense: layers.0.self_attn.in_proj_weight \(2 of"):
        quantize_layers(encoder(), BCQConfig(2), progress=False)  # 3 h^2 of 8 h^2


def test_weights_that_are_not_in_memory_are_refused() -> None:
    with torch.device("meta"):
        model = Stack(Block(), Block())
    with pytest.raises(UserError, match=r"layers.0.one: weights not in memory \(offloaded\?\): load the whole model"):
        quantize_layers(model, BCQConfig(2), progress=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("config", [
    BCQConfig(2, 8, "alternating", 3), BCQConfig(2, 24, "optimal"), BCQConfig(2, solver="gptq", offset=True),
    alphatune.UniformConfig(3, 5),
], ids=["alternating", "spanning", "gptq", "uniform"])  # fmt: skip
def test_another_default_dtype_changes_nothing(dtype: torch.dtype, config: Any) -> None:
    torch.manual_seed(1)
    x, shape = torch.randn(4, 24), (16, 24) if config.group_size != 24 else (16, 12)
    hessian = torch.eye(shape[1]) + 0.1
    layer = nn.Linear(shape[1], shape[0])

    def run() -> tuple[torch.Tensor, ...]:
        packed, _ = quantize_layer(layer, config, hessian=hessian)
        tuned = get_peft_model(nn.Sequential(packed), alphatune.AlphaTuningConfig(trainable="all"))
        y = tuned(x[:, : shape[1]])
        y.square().sum().backward()
        (scale,) = (p for p in tuned.parameters() if p.requires_grad)
        assert scale.grad is not None
        return packed.qweight, packed.alpha, packed.offset if packed.offset is not None else y, y, scale.grad

    expected = run()
    torch.set_default_dtype(dtype)
    try:
        found = run()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, expected, strict=True))
