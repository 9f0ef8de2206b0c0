"""The compiled kernels, called with tensors; float32 on a CPU, contiguous, no gradients."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from alphatune.packed.kernels import decode, machine, tiles, triples
from alphatune.quant.grouping import Grouping

Call = Callable[..., None]


class _Rooms(threading.local):
    """Working memory of one thread, reused from call to call: fresh pages cost more than most products."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def room(self, use: str, floats: int) -> Tensor:
        """At least so many float32, overwritten by the next call with the same `use`."""
        held = self.held.get(use)
        if held is None or held.numel() < floats:
            held = self.held[use] = torch.empty(floats)
        return held


_ROOMS = _Rooms()


@functools.cache
def _rebuild(planes: int, offset: bool) -> Call:
    return machine.compiled(f"rebuild-{planes}-{int(offset)}", lambda: decode.module(planes, offset), 7)


@functools.cache
def _tiles(planes: int, offset: bool) -> Call:
    return machine.compiled(f"tiles-{planes}-{int(offset)}", lambda: tiles.module(planes, offset), 10)


@functools.cache
def _triples(rows: int, planes: int, offset: bool) -> Call:
    name = f"triples-{rows}-{planes}-{int(offset)}"
    return machine.compiled(name, lambda: triples.module(rows, planes, offset), 9)


@functools.cache
def permutes() -> bool:
    """Whether this CPU has the instructions that looking up triples needs."""
    return machine.has("avx2", "fma")


def rebuild(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, reuse: bool) -> Tensor:
    """W^T [in, out]. With `reuse` it lies where the last one of this thread lay, which is gone then."""
    qweight, alpha, offset, size = _plain(qweight, alpha, offset, grouping)
    shape = grouping.columns, grouping.rows
    count = shape[0] * shape[1]
    weight = _ROOMS.room("weight", count)[:count].view(shape) if reuse else torch.empty(shape)
    _rebuild(qweight.shape[1], offset is not None)(
        qweight.data_ptr(), alpha.data_ptr(), _address(offset), weight.data_ptr(), *shape, size
    )
    return weight


def by_tiles(x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """[..., in] -> [..., out] by decoding a tile of weights after another; any number of rows, any CPU."""
    qweight, alpha, offset, size = _plain(qweight, alpha, offset, grouping)
    x, y, inputs = _ends(x, grouping)
    _tiles(qweight.shape[1], offset is not None)(
        qweight.data_ptr(), x.data_ptr(), alpha.data_ptr(), _address(offset), y.data_ptr(),
        _ROOMS.room("tile", tiles.SCRATCH).data_ptr(), x.numel() // inputs, inputs, grouping.rows, size,
    )  # fmt: skip
    return y


def by_triples(x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """[..., in] -> [..., out] by tables of the sums of three inputs; one kernel per number of rows."""
    qweight, alpha, offset, size = _plain(qweight, alpha, offset, grouping)
    x, y, inputs = _ends(x, grouping)
    rows, planes = x.numel() // inputs, qweight.shape[1]
    working = _ROOMS.room("sums", triples.scratch(rows, planes, grouping.rows))
    _triples(rows, planes, offset is not None)(
        qweight.data_ptr(), x.data_ptr(), alpha.data_ptr(), _address(offset), y.data_ptr(), working.data_ptr(),
        inputs, grouping.rows, size,
    )  # fmt: skip
    return y


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _ends(x: Tensor, grouping: Grouping) -> tuple[Tensor, Tensor, int]:
    """The inputs in one piece, room for the outputs, and how many inputs a row has."""
    return x.contiguous(), x.new_empty((*x.shape[:-1], grouping.rows)), grouping.columns


def _plain(
    qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping
) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Bits and scales in one piece each, with a scale for every output, and how many inputs a group has."""
    if grouping.span > 1:  # groups of whole rows: every output gets its own copy
        alpha = alpha.repeat_interleave(grouping.span, dim=2)[:, :, : grouping.rows]
        if offset is not None:
            offset = offset.repeat_interleave(grouping.span, dim=1)[:, : grouping.rows]
    size = min(grouping.size, grouping.columns)
    return qweight.contiguous(), alpha.contiguous(), None if offset is None else offset.contiguous(), size
