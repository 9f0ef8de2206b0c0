"""The compiled kernels, called with tensors; float32 on a CPU, contiguous, no gradients."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from alphatune.native import machine
from alphatune.packed.kernels import decode, eight, gradient, lookup, signs, tiles
from alphatune.quant.grouping import Grouping

SMALLEST_GROUP = 24  # below it, words shared between groups cost lookups more than they save
Call = Callable[..., None]
Product = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""x [..., in], qweight, alpha, offset -> [..., out]."""


class _Rooms(threading.local):
    """Working memory of one thread, reused from call to call: fresh pages cost more than most products."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def room(self, use: str, floats: int) -> Tensor:
        """At least so many float32, overwritten by the next call with the same `use`."""
        held = self.held.get(use)
        if held is None or held.numel() < floats:
            held = self.held[use] = torch.empty(floats, dtype=torch.float32, device="cpu")
        return held


_ROOMS = _Rooms()


@functools.cache
def _rebuild(planes: int, offset: bool) -> Call:
    return machine.compiled(f"rebuild-{planes}-{int(offset)}", lambda: decode.module(planes, offset), 7)


@functools.cache
def registers() -> lookup.Registers | None:
    """Those of this CPU that sums can be looked up in, None where it has none."""
    if machine.has("avx512f"):
        return lookup.AVX512
    return lookup.AVX2 if machine.has("avx2", "fma") else None


def rebuild(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, reuse: bool) -> Tensor:
    """W^T [in, out]. With `reuse` it lies where the last one of this thread lay, which is gone then."""
    if grouping.span > 1:
        alpha, offset = _each_output(alpha, offset, grouping)
    qweight, alpha = qweight.contiguous(), alpha.contiguous()
    offset = None if offset is None else offset.contiguous()
    shape = grouping.columns, grouping.rows
    count = shape[0] * shape[1]
    if reuse:
        weight = _ROOMS.room("weight", count)[:count].view(shape)
    else:
        weight = torch.empty(shape, dtype=torch.float32, device="cpu")
    _rebuild(qweight.shape[1], offset is not None)(
        qweight.data_ptr(), alpha.data_ptr(), 0 if offset is None else offset.data_ptr(), weight.data_ptr(),
        *shape, min(grouping.size, grouping.columns),
    )  # fmt: skip
    return weight


def times_codes(values: Tensor, qweight: Tensor, plane: int) -> Tensor:
    """`values` float32 [in, out] times the codes of one plane; lies and goes where a rebuilt weight does."""
    values, qweight = values.contiguous(), qweight.contiguous()
    inputs, outputs = values.shape
    result = _ROOMS.room("weight", values.numel())[: values.numel()].view(inputs, outputs)
    machine.compiled("signs", signs.module, 6)(
        qweight[:, plane].data_ptr(), values.data_ptr(), result.data_ptr(), inputs, outputs, qweight.shape[1] * outputs
    )
    return result


def scale_gradient(x: Tensor, dy: Tensor, qweight: Tensor, plane: int, grouping: Grouping) -> Tensor:
    """[groups, out]: of y = x W^T, the gradient of one plane's scales, from dy; needs `registers()`, no group that
    spans rows."""
    wide = registers()
    assert wide is not None and grouping.span == 1
    kernel = machine.compiled(f"gradient-{wide.inputs}", lambda: gradient.module(wide), 10)
    x, dy, qweight = x.contiguous(), dy.contiguous(), qweight.contiguous()
    inputs, outputs = grouping.columns, grouping.rows
    result = torch.empty((grouping.per_row, outputs), dtype=torch.float32, device="cpu")
    kernel(
        qweight[:, plane].data_ptr(), x.data_ptr(), dy.data_ptr(), result.data_ptr(),
        _ROOMS.room("working", gradient.scratch(wide)).data_ptr(),
        x.numel() // inputs, inputs, outputs, min(grouping.size, inputs), qweight.shape[1] * outputs,
    )  # fmt: skip
    return result


def by_bytes(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """x [rows, in] times (codes int8 [out, in] times scale [out])^T, for the few rows that a kernel is made for."""
    x, codes, scale = x.contiguous(), codes.contiguous(), scale.contiguous()
    y = torch.empty((len(x), len(codes)), dtype=torch.float32, device="cpu")
    kernel = machine.compiled(f"eight-{len(x)}", lambda: eight.module(len(x)), 6)
    kernel(codes.data_ptr(), x.data_ptr(), scale.data_ptr(), y.data_ptr(), codes.shape[1], len(codes))
    return y


def by_tiles(rows: int, planes: int, offset: bool, grouping: Grouping) -> Product:
    """The product of so many rows, by decoding a tile of weights after another; any number of rows, any CPU."""
    kernel = machine.compiled(f"tiles-{planes}-{int(offset)}", lambda: tiles.module(planes, offset), 10)
    return _product(kernel, tiles.SCRATCH, (rows, grouping.columns), grouping)


def by_lookup(rows: int, planes: int, offset: bool, grouping: Grouping) -> Product:
    """The product of so many rows, by tables of the signed sums of a few inputs; needs `registers()`."""
    wide = registers()
    assert wide is not None
    name = f"lookup-{wide.inputs}-{rows}-{planes}-{int(offset)}"
    kernel = machine.compiled(name, lambda: lookup.module(wide, rows, planes, offset), 9)
    return _product(kernel, lookup.scratch(wide, rows, planes, grouping.rows), (grouping.columns,), grouping)


def _product(kernel: Call, scratch: int, sizes: tuple[int, ...], grouping: Grouping) -> Product:
    sizes = (*sizes, grouping.rows, min(grouping.size, grouping.columns))
    spanning, outputs, empty, room = grouping.span > 1, grouping.rows, torch.empty, _ROOMS.room

    def product(x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None) -> Tensor:
        if spanning:
            alpha, offset = _each_output(alpha, offset, grouping)
        x, qweight, alpha = x.contiguous(), qweight.contiguous(), alpha.contiguous()
        offset = None if offset is None else offset.contiguous()
        y = empty((*x.shape[:-1], outputs), dtype=torch.float32, device="cpu")
        kernel(
            qweight.data_ptr(), x.data_ptr(), alpha.data_ptr(), 0 if offset is None else offset.data_ptr(),
            y.data_ptr(), room("working", scratch).data_ptr(), *sizes,
        )  # fmt: skip
        return y

    return product


def _each_output(alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> tuple[Tensor, Tensor | None]:
    """Where groups span rows: a scale of its own for every output."""
    alpha = alpha.repeat_interleave(grouping.span, dim=2)[:, :, : grouping.rows]
    if offset is not None:
        offset = offset.repeat_interleave(grouping.span, dim=1)[:, : grouping.rows]
    return alpha, offset
