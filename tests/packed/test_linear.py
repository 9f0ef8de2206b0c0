"""The packed layer against the dense layer it stands for: values, and gradients by autograd in float64."""

import gc

import pytest
import torch
from torch import nn

from alphatune.hf.scales import AlphaTuningLayer
from alphatune.packed.linear import PackedLinear, dense_weights, packed_layers
from alphatune.packed.walk import quantize_layer
from alphatune.quant import packing
from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import pack
from alphatune.settings import UniformConfig

SHAPES = {  # out, in, group size
    "row-wise": (5, 40, None),
    "grouped": (4, 12, 3),
    "ragged": (3, 10, 4),
    "spanning": (5, 8, 16),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
with_offset = pytest.mark.parametrize("offset", [False, True], ids=["bcq", "offset"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case:
    """A packed layer of random codes and scales beside the tensors it was made of."""

    def __init__(self, shape, offset=False, bits=3, bias=True):
        self.g = Grouping.of(*shape)
        self.signs = normal(self.g.rows, bits, self.g.columns, seed=1) > 0
        groups, shared = self.g.scales_shape
        self.alpha = normal(groups, bits, shared, seed=2).abs() + 0.1
        self.offset = normal(groups, shared, seed=3) if offset else None
        self.bias = normal(self.g.rows, seed=4) if bias else None
        self.layer = PackedLinear(pack(self.signs), self.alpha, self.offset, self.bias, self.g)

    def group_of(self, row, column):
        if self.g.size > self.g.columns:
            return 0, row // (self.g.size // self.g.columns)
        return column // self.g.size, row

    def dense(self, alpha, offset):
        """W [out, in] by the definition, weight by weight, in float64 and differentiable in alpha and offset."""
        rows = []
        for r in range(self.g.rows):
            row = []
            for c in range(self.g.columns):
                group, shared = self.group_of(r, c)
                code = self.signs[r, :, c].double() * 2 - 1
                value = (alpha[group, :, shared].double() * code).sum()
                row.append(value if offset is None else value + offset[group, shared].double())
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def weights_per_scale(self):
        count = torch.zeros(self.g.scales_shape, dtype=torch.float64)
        for r in range(self.g.rows):
            for c in range(self.g.columns):
                count[self.group_of(r, c)] += 1
        return count


def loss_of(y):
    """Some smooth function of the outputs whose gradient is different everywhere."""
    return (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() + y.square().sum() / 3


def adapt(layer, which):
    """The layer as runs train it, inside an adapter, and the parameter that trains."""
    adapted = AlphaTuningLayer(layer)
    adapted.add("task", which)
    adapted.set_adapter("task")
    return adapted, adapted.alphatuning_scale["task"]


def close(a, b, atol=1e-5, rtol=1e-4):
    return torch.allclose(a.double(), b.double(), atol=atol, rtol=rtol)


# --- values


@each_shape
@with_offset
def test_weight_is_the_sum_over_planes_written_out(shape, offset):
    case = Case(shape, offset)
    assert case.layer.weight_t().shape == (case.g.columns, case.g.rows)
    assert close(case.layer.weight_t().T, case.dense(case.alpha, case.offset))


@pytest.mark.parametrize("shape", [(5, 200, None), (4, 200, 24), (5, 70, 7), (6, 100, 300)], ids=str)
@with_offset
@pytest.mark.parametrize("cached", [1, 5 * 64])
def test_a_weight_rebuilt_in_several_blocks_is_the_same(shape, offset, cached, monkeypatch):
    """Blocks of one word and of two; the last one is short, groups begin and end inside blocks."""
    case = Case(shape, offset)
    monkeypatch.setattr(packing, "_CACHED", cached)
    assert len(list(packing.blocks(case.g.columns, case.g.rows, torch.device("cpu")))) > 1
    assert close(case.layer.weight_t().T, case.dense(case.alpha, case.offset))


@each_shape
@with_offset
@pytest.mark.parametrize("bias", [True, False])
def test_forward_is_the_dense_linear_map(shape, offset, bias):
    case = Case(shape, offset, bias=bias)
    x = normal(2, 3, case.g.columns)
    expected = nn.functional.linear(x.double(), case.dense(case.alpha, case.offset))
    assert close(case.layer(x), expected + case.bias.double() if bias else expected)


def test_a_single_vector_is_mapped_and_differentiated():
    case = Case((5, 8, None))
    layer, scale = adapt(case.layer, "first")
    x = normal(8)
    loss_of(layer(x)).backward()
    alone = scale.grad.clone()
    scale.grad = None
    y = layer(x[None])
    assert close(layer(x), y[0])
    loss_of(y).backward()
    assert close(scale.grad, alone)


def test_bias_is_copied_and_frozen():
    bias = nn.Parameter(torch.ones(5))
    layer = PackedLinear(*Case((5, 8, None), bias=False).layer.buffers(), None, bias, Grouping.of(5, 8, None))
    assert layer.bias.requires_grad is False and torch.equal(layer.bias, bias)
    bias.data.zero_()
    assert torch.equal(layer.bias, torch.ones(5))


def test_what_stays_in_memory_is_bits_and_scales():
    layer = Case((8, 64, 16), bits=3, bias=False).layer
    held = sum(t.numel() * t.element_size() for t in [*layer.buffers(), *layer.parameters()])
    assert held == 8 * 64 * 3 // 8 + 4 * 3 * (8 * 64 // 16)  # codes, and one float32 per plane and group
    layer(normal(2, 64))
    layer.weight_t()
    assert sum(t.numel() * t.element_size() for t in [*layer.buffers(), *layer.parameters()]) == held
    assert layer._dense is None


def test_training_keeps_no_dense_weight_for_the_backward_pass():
    layer, _ = adapt(Case((61, 253, None), bits=2).layer, "first")
    saved, x = [], normal(2, 253).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = layer(x)
    alive = [o for o in gc.get_objects() if type(o) is torch.Tensor]
    assert y.requires_grad and saved
    assert not [t for t in saved + alive if tuple(t.shape) in {(61, 253), (253, 61)}]


# --- gradients of alpha: Eq. 4


@each_shape
@with_offset
@pytest.mark.parametrize("which", ["first", "all"])
def test_alpha_gradient_is_autograds_over_the_weights_per_scale(shape, offset, which):
    case = Case(shape, offset)
    layer, scale = adapt(case.layer, which)
    x = normal(2, 3, case.g.columns)
    loss_of(layer(x)).backward()

    alpha = case.alpha.double().requires_grad_()
    loss_of(nn.functional.linear(x.double(), case.dense(alpha, case.offset), case.bias.double())).backward()
    expected = alpha.grad / case.weights_per_scale()[:, None]
    assert close(scale.grad, expected[:, 0] if which == "first" else expected)


def test_alpha_gradient_is_the_masked_product_of_equation_4():
    case = Case((5, 40, None))
    layer, scale = adapt(case.layer, "first")
    x = normal(7, 40)
    y = layer(x)
    dy = normal(7, 5, seed=9)
    y.backward(dy)
    b1 = case.signs[:, 0].float() * 2 - 1  # [out, in]
    by_row = [float(sum(dy[n, r] * (x[n] @ b1[r]) for n in range(7))) / 40 for r in range(5)]
    assert close(scale.grad[0], torch.tensor(by_row))


def test_alpha_gradient_of_a_uniform_layer():
    dense = nn.Linear(24, 4)
    layer, _ = quantize_layer(dense, UniformConfig(3, 8))
    adapted, scale = adapt(layer, "all")
    x = normal(5, 24)
    loss_of(adapted(x)).backward()
    slope = torch.autograd.functional.jacobian(  # with the offset held fixed
        lambda a: loss_of(PackedLinear(layer.qweight, a, layer.offset, dense.bias, layer.grouping)(x)), layer.alpha
    )
    assert close(scale.grad, slope / 8)


@pytest.mark.parametrize("which", ["first", "all", "gain"])
def test_scale_gradient_agrees_with_finite_differences(which):
    case = Case((4, 12, 3), offset=which == "gain")
    layer, scale = adapt(case.layer, which)
    x = normal(6, 12)
    loss_of(layer(x)).backward()
    divisor = 1 if which == "gain" else 3  # Eq. 4 divides by g
    for index in [0, 5, scale.numel() - 1]:
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                scale.view(-1)[index] += sign * 0.05
                losses.append(loss_of(layer(x).double()))
                scale.view(-1)[index] -= sign * 0.05
        # the loss is quadratic in a scale, so the central difference has rounding errors only
        slope = float(losses[0] - losses[1]) / 0.1
        assert scale.grad.view(-1)[index].item() * divisor == pytest.approx(slope, rel=1e-2, abs=1e-2)


@each_shape
@with_offset
@pytest.mark.parametrize("which", [None, "first", "all", "gain"])
def test_input_gradient_is_that_of_the_dense_layer(shape, offset, which):
    case = Case(shape, offset)
    layer = adapt(case.layer, which)[0] if which else case.layer
    x = normal(2, 3, case.g.columns).requires_grad_()
    loss_of(layer(x)).backward()
    dense = x.detach().double().requires_grad_()
    loss_of(nn.functional.linear(dense, case.dense(case.alpha, case.offset), case.bias.double())).backward()
    assert close(x.grad, dense.grad)


def test_a_frozen_layer_passes_gradients_on_and_has_none():
    case = Case((5, 40, None))
    x = normal(2, 40).requires_grad_()
    case.layer(x).sum().backward()
    assert close(x.grad, case.dense(case.alpha, None).sum(dim=0).expand(2, -1))
    assert all(p.grad is None for p in case.layer.parameters())


# --- the gain: PEQA


def uniform_case(shape, bits=3):
    """A layer of uniform codes, with the step, codes and zero points it was made of, in float64."""
    out, n_in, _ = shape
    g = Grouping.of(*shape)
    groups, shared = g.scales_shape
    step = normal(groups, shared, seed=5).abs() + 0.2
    zero = (normal(groups, shared, seed=6).abs() * 3).round()
    codes = torch.randint(0, 2**bits, (out, n_in), generator=torch.Generator().manual_seed(7))
    signs = torch.stack([(codes >> i) & 1 for i in range(bits)], dim=1).bool()
    alpha = torch.stack([step * 2.0 ** (i - 1) for i in range(bits)], dim=1)  # alpha_i = s 2^(i-2), i from 1
    bias = normal(out, seed=8)
    layer = PackedLinear(pack(signs), alpha, alpha.sum(dim=1) - step * zero, bias, g)

    def weight(s):
        """W = s (codes - z), weight by weight."""
        rows = []
        for r in range(out):
            where = [(0, r // (g.size // n_in)) if g.size > n_in else (c // g.size, r) for c in range(n_in)]
            rows.append(torch.stack([s[w] * (codes[r, c] - zero[w]) for c, w in enumerate(where)]))
        return torch.stack(rows)

    return layer, step.double(), weight, bias.double()


@each_shape
def test_peqa_is_training_the_gain_of_a_uniform_layer(shape):
    layer, step, weight, bias = uniform_case(shape)
    x = normal(6, shape[1])
    layer, gain = adapt(layer, "gain")
    assert close(gain, step)  # the gain of uniform codes is s itself

    s = step.clone().requires_grad_()
    loss_of(nn.functional.linear(x.double(), weight(s), bias)).backward()
    loss_of(layer(x)).backward()
    assert close(gain.grad, s.grad, rtol=1e-3)  # not divided by g

    with torch.no_grad():
        gain -= 1e-3 * gain.grad
        s -= 1e-3 * s.grad
    assert close(layer.weight_t().T, weight(s.detach()), atol=1e-4)
    assert close(layer(x), nn.functional.linear(x.double(), weight(s.detach()), bias), atol=1e-3)


@with_offset
def test_row_wise_gain_gradient_has_the_closed_form(offset):
    case = Case((5, 40, None), offset)
    layer, gain = adapt(case.layer, "gain")
    y = layer(normal(2, 7, 40))
    dy = normal(2, 7, 5, seed=9)
    y.backward(dy)
    expected = (dy * (y.detach() - case.bias)).sum(dim=(0, 1)) / gain.detach()[0]  # sum_t dY (Y - bias) / s
    assert close(gain.grad[0], expected)


@each_shape
@with_offset
def test_gain_gradient_is_autograds_not_divided(shape, offset):
    case = Case(shape, offset)
    layer, gain = adapt(case.layer, "gain")
    x = normal(6, case.g.columns)
    loss_of(layer(x)).backward()
    s = gain.detach().double().requires_grad_()
    ratio = s / gain.detach().double()
    weight = case.dense(case.alpha * ratio[:, None], None if case.offset is None else case.offset * ratio)
    loss_of(nn.functional.linear(x.double(), weight, case.bias.double())).backward()
    assert close(gain.grad, s.grad, rtol=1e-3)


def test_a_group_of_zeros_has_gain_one_and_stays_zero():
    codes, alpha = pack(torch.ones(2, 1, 4).bool()), torch.tensor([[[0.0, 2.0]]])
    layer = PackedLinear(codes, alpha, None, None, Grouping.of(2, 4, None))
    layer, gain = adapt(layer, "gain")
    assert gain.tolist() == [[1.0, 2.0]]
    assert layer(torch.ones(1, 4)).tolist() == [[0.0, 8.0]]


# --- training and folding


@pytest.mark.parametrize("which", ["first", "all", "gain"])
def test_training_starts_from_the_quantised_weights(which):
    case = Case((4, 12, 3), offset=True)
    before = case.layer.weight_t()
    layer, _ = adapt(case.layer, which)
    assert close(layer.weight_t(), before)


def test_only_what_was_asked_for_changes():
    x, target = normal(16, 12), normal(16, 4, seed=3)
    for which in ("first", "all", "gain"):
        case = Case((4, 12, 3), offset=True)
        layer, scale = adapt(case.layer, which)
        assert [p is scale for p in layer.parameters() if p.requires_grad] == [True]
        optimizer = torch.optim.SGD([scale], lr=0.01)
        losses = []
        for _ in range(3):
            loss = (layer(x) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[2] < losses[1] < losses[0]
        assert torch.equal(case.layer.qweight, pack(case.signs)) and torch.equal(case.layer.bias, case.bias)
        layer.merge()
        alpha, offset = case.layer.alpha, case.layer.offset
        assert not torch.equal(alpha[:, 0], case.alpha[:, 0])
        assert torch.equal(alpha[:, 1:], case.alpha[:, 1:]) == (which == "first")
        assert torch.equal(offset, case.offset) == (which != "gain")


@pytest.mark.parametrize("which", ["first", "all", "gain"])
@each_shape
def test_merging_keeps_the_function_and_trains_nothing(which, shape):
    case = Case(shape, offset=True)
    layer, scale = adapt(case.layer, which)
    with torch.no_grad():
        scale *= torch.linspace(0.5, 1.5, scale.numel()).view_as(scale)
    x = normal(3, case.g.columns)
    before = layer(x).detach()
    layer.merge()
    assert close(case.layer(x), before) and close(layer(x), before)
    assert not any(p.requires_grad for p in case.layer.parameters())


# --- dense weights while decoding


@pytest.mark.parametrize("which", [None, "first", "gain"])
def test_dense_weights_give_the_same_output_and_are_dropped(which):
    case = Case((5, 40, None), offset=True)
    layer = case.layer
    if which:
        layer, scale = adapt(case.layer, which)
        with torch.no_grad():
            scale.mul_(1.5)
    model, x = nn.Sequential(layer), normal(3, 40)
    with torch.no_grad():
        expected = model(x)
        with dense_weights(model):
            assert close(model(x), expected)
            assert close(model(x), expected)  # this time with what was kept
        assert case.layer._dense is None


def test_dense_weights_are_dropped_after_an_error():
    model = nn.Sequential(Case((5, 40, None)).layer)
    with pytest.raises(RuntimeError, match="stopped"), dense_weights(model):
        raise RuntimeError("stopped")
    assert model[0]._dense is None


# --- saving, dtypes


@each_shape
@with_offset
def test_an_empty_layer_takes_a_state_dict(shape, offset):
    case = Case(shape, offset)
    empty = PackedLinear.empty(case.g, 3, offset, torch.zeros(case.g.rows))
    empty.load_state_dict(case.layer.state_dict())
    x = normal(2, case.g.columns)
    assert torch.equal(empty(x), case.layer(x))
    assert set(case.layer.state_dict()) == {"qweight", "alpha", "bias", *(["offset"] if offset else [])}


@pytest.mark.parametrize("which", ["first", "all", "gain"])
def test_bfloat16_inputs_leave_scales_in_float32(which):
    case = Case((5, 40, None))
    layer, scale = adapt(case.layer, which)
    x = normal(4, 40).bfloat16().requires_grad_()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    expected = nn.functional.linear(x.double(), case.dense(case.alpha, None), case.bias.double())
    assert close(y, expected, atol=0.3, rtol=0.05)
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and scale.grad.dtype == scale.dtype == torch.float32


@pytest.mark.parametrize("which", ["first", "gain"])
@pytest.mark.parametrize("shape", [(5, 40, None), (4, 12, 3)], ids=["row-wise", "grouped"])
def test_autocast_trains_like_float32(which, shape):
    gradients = []
    for autocast in (False, True):
        case = Case(shape)
        layer, scale = adapt(case.layer, which)
        x = normal(4, shape[1]).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)
            assert y.dtype == nn.Linear(shape[1], 2)(x).dtype
        loss_of(y.float()).backward()
        gradients.append((scale.grad, x.grad))
    for plain, cast in zip(*gradients, strict=True):
        assert cast.dtype == torch.float32
        assert close(cast, plain, rtol=0.05, atol=0.05 * float(plain.abs().max()))


def test_packed_layers_are_listed_by_name():
    one, other = Case((5, 8, None)).layer, Case((2, 4, 2)).layer
    model = nn.ModuleDict({"a": one, "b": nn.Linear(3, 3), "c": nn.Sequential(other)})
    assert list(packed_layers(model)) == ["a", "c.0"]
    assert "bits=3, group_size=2" in repr(model["c"])


@pytest.mark.parametrize("shape", [(2, 100), (4, 25)])
def test_inputs_of_another_width_are_refused_as_by_a_dense_layer(shape):
    layer = Case((5, 50, None)).layer
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(normal(*shape))


def test_a_gain_that_moved_less_than_a_step_of_half_precision_counts():
    layer, scale = adapt(Case((1, 40, None), bits=1, bias=False).layer, "gain")
    x = torch.full((1, 40), 8.0).bfloat16()
    with torch.no_grad():
        before = layer(x).float()
        scale *= 1.003  # in bfloat16 the ratio would be 1
        after = layer(x).float()
        assert torch.equal(after, (before * 1.003).bfloat16().float())
    torch.manual_seed(0)
    wide, scale = adapt(Case((1, 40, None), bits=1, bias=False).layer, "gain")
    x = torch.randn(400, 40).bfloat16()
    with torch.no_grad():
        before = wide(x)
        scale *= 1.003
        assert 0.1 < float((wide(x) != before).float().mean()) < 1  # those that were near a step


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casting_takes_the_bias_along_and_nothing_else(dtype):
    adapted, scale = adapt(Case((4, 12, 3), offset=True).layer, "first")
    adapted.to(dtype)
    layer = adapted.base_layer
    assert layer.bias.dtype == layer.weight.dtype == dtype
    assert {t.dtype for t in (scale, layer.alpha, layer.offset)} == {torch.float32}
    assert layer.qweight.dtype == torch.int32


def test_kept_dense_weights_are_of_the_dtype_they_are_used_in():
    case = Case((5, 40, None))
    x = normal(3, 40).bfloat16()
    with torch.no_grad(), dense_weights(case.layer):
        first = case.layer(x)
        assert case.layer._dense._kept.weight.dtype == torch.bfloat16
        assert torch.equal(first, case.layer(x))
        assert torch.equal(first, x @ case.layer.weight_t().bfloat16() + case.bias.bfloat16())
        assert case.layer(x.float()).dtype == torch.float32
