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

from alphatune.packed.kept import KeptWeight
from alphatune.packed.product import fast, multiply, rebuild, tell_of_dense_weights
from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import WORD, sign_bits, times_codes


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
        self._dense: Tensor | None = None  # [in, out], only inside `dense_weights`
        self._kept = KeptWeight()  # empty, but on a CPU without a kernel for bits

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
        return self.weight_t().T

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, None, None)

    def product(self, x: Tensor, scale: Tensor | None, which: str | None) -> Tensor:
        """[..., in] -> [..., out] with `scale` in the place of what `which` names, differentiable in both."""
        device = "cpu" if x.is_cpu else x.device.type
        if torch.is_autocast_enabled(device):  # as nn.Linear does; forward and backward then agree on the dtype
            x = x.to(torch.get_autocast_dtype(device))
        if self._dense is not None:
            y = x @ self._dense.to(x.dtype)
        elif which == "gain" and scale is not None and self.grouping.count == self.out_features:
            # one gain per output: scale the frozen product, so neither x nor a weight gradient is needed
            y = self._times_weight(x, None, None, 0) * (scale / self._gain())[0].to(x.dtype)
        else:
            y = self._times_weight(x, scale, which, 1 if which == "first" else self.bits)
        bias = self._parameters["bias"]
        return y if bias is None else y + bias.to(x.dtype)

    def _times_weight(self, x: Tensor, scale: Tensor | None, which: str | None, trained: int) -> Tensor:
        """x W^T with gradients, or by the fastest path where nothing asks for them."""
        held = self._buffers  # as attributes of a module they would take a microsecond each
        qweight, own_alpha, own_offset = held["qweight"], held["alpha"], held["offset"]
        sources = (x, scale, own_alpha, own_offset)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in sources):
            self._kept.drop()  # training rebuilds: what it saves must be bits
            alpha, offset = self.effective(scale, which)
            if which in ("first", "all") and scale is not None:
                alpha = _DivideGradient.apply(alpha, self.grouping.members(alpha.device)[:, None])
            return _PackedProduct.apply(x, qweight, alpha, offset, self.grouping, trained)
        if fast() or not x.is_cpu:
            if scale is not None:
                own_alpha, own_offset = self.effective(scale, which)
            return multiply(x, cast(Tensor, qweight), cast(Tensor, own_alpha), own_offset, self.grouping)
        weight = self._kept.find(qweight, own_alpha, own_offset, scale)
        if weight is None:
            tell_of_dense_weights()
            weight = self._kept.put(self.weight_t(scale, which), qweight, own_alpha, own_offset, scale)
        return x @ weight.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, group_size={self.grouping.size}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """`to`, `half` and the like move this layer but leave its dtypes: codes cannot change, scales are float32."""
        return super()._apply(moved_only(fn), recurse)

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
    """Within the block, packed layers keep their dense weights: decoding rebuilds each once, not once per token."""
    holders: dict[PackedLinear, Any] = {}  # what computes with a layer: itself, or the adapter around it
    for module in model.modules():  # parents come first
        layer = getattr(module, "base_layer", module)
        if isinstance(layer, PackedLinear) and hasattr(module, "weight_t"):
            holders.setdefault(layer, module)
    for layer, holder in holders.items():
        layer._dense = holder.weight_t()
    try:
        yield
    finally:
        for layer in holders:
            layer._dense = None


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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, qweight, alpha, offset = ctx.saved_tensors
        grad, grouping = grads[0], ctx.grouping
        dx = dalpha = doffset = None
        if ctx.needs_input_grad[0]:
            alone = torch.is_grad_enabled()  # a graph of this product would hold the weight
            dx = grad @ rebuild(qweight, alpha, offset, grouping, reuse=not alone).to(grad.dtype).T
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            dweight_t = (x.reshape(-1, grouping.columns).T @ grad.reshape(-1, grouping.rows)).float()  # [in, out]
            if ctx.needs_input_grad[2]:
                dalpha = torch.zeros_like(alpha)
                for i in range(ctx.trained):
                    dalpha[:, i] = grouping.total(times_codes(dweight_t, sign_bits(qweight[:, i], grouping.columns)))
            if ctx.needs_input_grad[3]:
                doffset = grouping.total(dweight_t)
        return dx, None, dalpha, doffset, None, None


class _DivideGradient(torch.autograd.Function):
    """Identity whose gradient is divided by g, the weights per scale (Eq. 4; the paper found it steadies training)."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, members: Tensor) -> Tensor:
        ctx.save_for_backward(members)
        return alpha.view_as(alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] / ctx.saved_tensors[0], None
