"""The packed linear layer: signs as bits, scales as float32, one class for BCQ and uniform codes.

W^T = sum_i spread(alpha_i) * B_i (+ spread(offset)), rebuilt from the bits whenever it is needed, so that what stays in
memory is packed. Training differentiates the scales only (Eq. 3-4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from alphatune.packed.dense import DenseWeight, plain_weight_t
from alphatune.packed.product import (
    fast,
    fastest,
    multiply,
    rebuild,
    scale_gradient,
    tell_of_dense_weights,
    times_plane,
)
from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import WORD


class PackedLinear(nn.Module):
    """y = x W^T + b with W held as q packed sign planes.

    Replaces `nn.Linear` and GPT-2's `Conv1D` alike: both map [..., in] to [..., out].

    Buffers: `qweight` int32 [ceil(in/32), q, out]; `alpha` float32 [G, q, R]; `offset` float32 [G, R] or None. Nothing
    in it trains: an adapter (`alphatune.hf.scales`) holds trained scales and computes with them through `product`.

    "Which" scales train: "first" (alpha_1), "all" (every alpha), or "gain", one factor per group that multiplies
    everything, offset included (for uniform codes that is the step size s of PEQA).
    """

    qweight: Tensor
    alpha: Tensor
    offset: Tensor | None
    bias: Tensor | None

    def __init__(
        self, qweight: Tensor, alpha: Tensor, offset: Tensor | None, bias: Tensor | None, grouping: Grouping
    ) -> None:
        super().__init__()
        self.grouping = grouping
        self.in_features, self.out_features = grouping.columns, grouping.rows
        self.bits = qweight.shape[1]
        self.register_buffer("qweight", qweight)
        self.register_buffer("alpha", alpha)
        self.register_buffer("offset", offset)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone(), False))
        self._dense: DenseWeight | None = None  # only inside `dense_weights`
        self._kept = DenseWeight()  # empty, but on a CPU whose kernels are slower, or missing

    @classmethod
    def empty(cls, grouping: Grouping, bits: int, offset: bool, bias: Tensor | None) -> PackedLinear:
        """A layer of the right shapes whose buffers are filled by loading a state dict."""
        words, scales = -(-grouping.columns // WORD), grouping.scales_shape
        return cls(  # float32 said aloud: transformers builds models under another default dtype
            torch.zeros(words, bits, grouping.rows, dtype=torch.int32),
            torch.zeros(scales[0], bits, scales[1], dtype=torch.float32),
            torch.zeros(scales, dtype=torch.float32) if offset else None,
            bias,
            grouping,
        )

    def initial_scale(self, which: str) -> Tensor:
        """The values that training of `which` starts from, as a new tensor: [G, R], or [G, q, R] for "all"."""
        initial = {"first": self.alpha[:, 0], "all": self.alpha, "gain": self._gain()}[which]
        return initial.detach().clone()

    def effective(self, scale: Tensor | None, which: str | None) -> tuple[Tensor, Tensor | None]:
        """alpha and offset with `scale` in the place of what `which` names; the layer's own where `scale` is None."""
        if scale is None:
            return self.alpha, self.offset
        if which == "first":
            return torch.cat([scale[:, None], self.alpha[:, 1:]], dim=1), self.offset
        if which == "all":
            return scale, self.offset
        ratio = scale / self._gain()
        return self.alpha * ratio[:, None], None if self.offset is None else self.offset * ratio

    def weight_t(self, scale: Tensor | None = None, which: str | None = None) -> Tensor:
        """The dense W^T [in, out], float32, without gradient; with an adapter's `scale` if one is given."""
        alpha, offset = self.effective(scale, which)
        return rebuild(self.qweight, alpha.detach(), None if offset is None else offset.detach(), self.grouping)

    @property
    def weight(self) -> Tensor:
        """The dense W [out, in], rebuilt at every access, for code that asks a linear layer for it (T5 does)."""
        return self.dense_weight(None, None)

    def dense_weight(self, scale: Tensor | None, which: str | None) -> Tensor:
        """The dense W [out, in] with `scale` in the place of what `which` names, differentiable in it as `product` is.

        Code that multiplies by the weight instead of calling the layer (`nn.MultiheadAttention`) needs it in the dtype
        of the bias.
        """
        alpha, offset, trained = self._scales(scale, which)
        weight: Tensor = _PackedWeight.apply(self.qweight, alpha, offset, self.grouping, trained).T
        return weight if self.bias is None else weight.to(self.bias.dtype)

    def forward(self, x: Tensor, scale: Tensor | None = None, which: str | None = None) -> Tensor:
        return self.product(x, scale, which)

    def product(self, x: Tensor, scale: Tensor | None, which: str | None) -> Tensor:
        """[..., in] -> [..., out] with `scale` in the place of what `which` names, differentiable in both."""
        device = "cpu" if x.is_cpu else x.device.type
        if torch.is_autocast_enabled(device):  # as nn.Linear does; forward and backward then agree on the dtype
            x = x.to(torch.get_autocast_dtype(device))
        training = torch.is_grad_enabled() and scale is not None and scale.requires_grad
        if torch.jit.is_tracing():  # plain operations: a trace cannot hold a Python function
            y = x @ plain_weight_t(self.qweight, *self.effective(scale, which), self.grouping).to(x.dtype)
        elif self._dense is not None and not training:
            made_of = (self.qweight, self.alpha, self.offset, scale, which, x.dtype)
            y = x @ self._dense.of(made_of, scale, lambda: self.weight_t(scale, which).to(x.dtype))
        elif which == "gain" and scale is not None and self.grouping.count == self.out_features:
            # one gain per output: scale the frozen product, so neither x nor a weight gradient is needed
            # in float32: next to 1 the steps of half precision are wider than what training changes
            y = (self._times_weight(x, None, None, 0) * (scale / self._gain())[0]).to(x.dtype)
        else:
            y = self._times_weight(x, scale, which, 1 if which == "first" else self.bits)
        held = self._parameters  # an attribute would take a microsecond; a replica of DataParallel has no other
        bias = held["bias"] if "bias" in held else self.bias  # noqa: SIM401
        return y if bias is None else y + bias.to(x.dtype)

    def _times_weight(self, x: Tensor, scale: Tensor | None, which: str | None, trained: int) -> Tensor:
        """x W^T with gradients, or by the fastest path where nothing asks for them."""
        held = self._buffers  # as attributes of a module they would take a microsecond each
        qweight, own_alpha = cast(Tensor, held["qweight"]), cast(Tensor, held["alpha"])
        own_offset = held["offset"]
        sources = (x, scale, own_alpha, own_offset)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in sources):
            self._kept.drop()  # training rebuilds: what it saves must be bits
            alpha, offset, _ = self._scales(scale, which)
            return _PackedProduct.apply(x, qweight, alpha, offset, self.grouping, trained)
        path = fastest(x, qweight, own_alpha, own_offset, self.grouping)
        if path == "dense" and not (self.training and torch.is_grad_enabled()):  # a training's memory is not for it
            made_of = (qweight, own_alpha, own_offset, scale, which, x.dtype)
            tell_of_dense_weights(fast())
            if torch.are_deterministic_algorithms_enabled():  # the very product that a rebuilt weight gives
                return x @ self._kept.of((*made_of, "in, out"), scale, lambda: self.weight_t(scale, which).to(x.dtype))
            turned = self._kept.of(
                (*made_of, "out, in"), scale, lambda: self.weight_t(scale, which).T.contiguous().to(x.dtype)
            )
            return linear(x, turned)  # at few rows a third faster than the other way round
        if scale is not None:
            own_alpha, own_offset = self.effective(scale, which)
        if path is not None and path != "dense":
            return path(x, qweight, own_alpha, own_offset)
        return multiply(x, qweight, own_alpha, own_offset, self.grouping)

    def _scales(self, scale: Tensor | None, which: str | None) -> tuple[Tensor, Tensor | None, int]:
        """alpha and offset to compute with, whose gradients are those of Eq. 4, and how many planes train."""
        alpha, offset = self.effective(scale, which)
        if which in ("first", "all") and scale is not None:
            alpha = _DivideGradient.apply(alpha, self.grouping.members(alpha.device)[:, None])
        return alpha, offset, 1 if which == "first" else self.bits

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, group_size={self.grouping.size}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """`to`, `half` and the like move codes and scales but leave their dtypes; the bias goes as any layer's does."""
        bias, moved = self._parameters.get("bias"), moved_only(fn)

        def applied(tensor: Tensor) -> Tensor:
            return fn(tensor) if tensor is bias else moved(tensor)

        return super()._apply(applied, recurse)

    def _gain(self) -> Tensor:
        """The initial gain [G, R]: s for uniform codes (alpha_1 = s / 2), alpha_1 for BCQ; 1 where that is 0."""
        first = self.alpha[:, 0]
        gain = first if self.offset is None else 2 * first
        return torch.where(gain == 0, torch.ones_like(gain), gain)


def moved_only(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `nn.Module._apply` does to a tensor, less any change of its dtype."""

    def moved(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        return result if result.dtype == tensor.dtype else tensor.to(result.device)

    return moved


@contextmanager
def dense_weights(model: nn.Module) -> Iterator[None]:
    """Within the block, packed layers keep their dense weights: decoding rebuilds each once, not once per token.

    They are those of whatever adapter is in use; a layer that trains does not use them.
    """
    before = {layer: layer._dense for layer in packed_layers(model).values()}
    for layer in before:
        layer._dense = DenseWeight()
    try:
        yield
    finally:
        for layer, dense in before.items():
            layer._dense = dense


def packed_layers(model: nn.Module) -> dict[str, PackedLinear]:
    """The packed layers of a model by module name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, PackedLinear)}


class _PackedProduct(torch.autograd.Function):
    """x W^T. Saves the bits, not the dense weight, and rebuilds it for the backward pass (Eq. 3).

    Only the first `trained` planes of alpha get a gradient; that of the others is zero.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, trained: int
    ) -> Tensor:
        scales_train = alpha.requires_grad or (offset is not None and offset.requires_grad)
        ctx.save_for_backward(x if scales_train else None, qweight, alpha, offset)
        ctx.grouping, ctx.trained = grouping, trained
        return x @ rebuild(qweight, alpha, offset, grouping, reuse=True).to(x.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, qweight, alpha, offset = ctx.saved_tensors
        grad, grouping = grads[0], ctx.grouping
        dx = dalpha = doffset = None
        if ctx.needs_input_grad[0]:
            alone = torch.is_grad_enabled()  # a graph of this product would hold the weight
            dx = grad @ rebuild(qweight, alpha, offset, grouping, reuse=not alone).to(grad.dtype).T
        first = None
        if ctx.needs_input_grad[2] and ctx.trained == 1 and not ctx.needs_input_grad[3]:
            first = scale_gradient(x, grad, qweight, 0, grouping)
        if first is not None:
            dalpha = torch.zeros_like(alpha)
            dalpha[:, 0] = first
        elif ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            dweight_t = (x.reshape(-1, grouping.columns).T @ grad.reshape(-1, grouping.rows)).float()  # [in, out]
            dalpha, doffset = _scale_gradients(
                dweight_t, qweight, alpha, ctx.needs_input_grad[2:4], grouping, ctx.trained
            )
        return dx, None, dalpha, doffset, None, None


class _PackedWeight(torch.autograd.Function):
    """W^T [in, out] in float32, for code that multiplies by the weight itself; gradients as `_PackedProduct`'s."""

    @staticmethod
    def forward(
        ctx: Any, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, trained: int
    ) -> Tensor:
        ctx.save_for_backward(qweight, alpha)
        ctx.grouping, ctx.trained = grouping, trained
        return rebuild(qweight, alpha, offset, grouping)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qweight, alpha = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:3]
        return None, *_scale_gradients(grads[0].float(), qweight, alpha, wanted, ctx.grouping, ctx.trained), None, None


def _scale_gradients(
    dweight_t: Tensor, qweight: Tensor, alpha: Tensor, wanted: tuple[bool, bool], grouping: Grouping, trained: int
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of alpha and offset, where wanted, from that of W^T [in, out]."""
    dalpha = doffset = None
    if wanted[0]:
        dalpha = torch.zeros_like(alpha)
        for i in range(trained):
            dalpha[:, i] = grouping.total(times_plane(dweight_t, qweight, i))
    if wanted[1]:
        doffset = grouping.total(dweight_t)
    return dalpha, doffset


class _DivideGradient(torch.autograd.Function):
    """Identity whose gradient is divided by g, the weights per scale (Eq. 4; the paper found it steadies training)."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, members: Tensor) -> Tensor:
        ctx.save_for_backward(members)
        return alpha.view_as(alpha)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] / ctx.saved_tensors[0], None
