"""The packed product and the rebuilt weight on a GPU, as Triton kernels that read the stored bits.

Few rows are multiplied as the bits are decoded, many rows by tensor cores, a tile of decoded weights after another; no
dense weight is written to memory. Sums are float32. Where one program per block of outputs would leave processors idle,
several share the inputs, and their sums are added up in a fixed order: which finishes first makes no difference.

With TRITON_INTERPRET=1 in the environment before this file is imported, the kernels run on a CPU, slowly.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alphatune.quant.grouping import Grouping

# Chosen from counts of operations and of shared memory, not from times: `make bench-gpu` shows both sides of each.
FEW = 4  # rows up to which no tensor core is used: a power of two
MANY = 512  # rows up to which a tile decoded again for every 128 of them is expected to cost less than a dense weight
OUTPUTS = 64  # of one program
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OPTIONS = {"enable_fp_fusion": True}  # multiply and add in one, rounded once


@triton.jit
def _weights(  # type: ignore[no-untyped-def]
    qweight, alpha, offset, first, o, inputs, outputs, size, span,
    PLANES: tl.constexpr, OFFSET: tl.constexpr, WHOLE: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """W^T [32 WORDS, outputs o] from word `first` on, float32: plane after plane, offset last, as everywhere.

    WHOLE: no word has inputs of two groups, so its scales are read once.
    """
    word = first + tl.arange(0, WORDS)
    k = word[:, None] * 32 if WHOLE else word[:, None] * 32 + tl.arange(0, 32)[None, :]
    group, known = (k // size)[:, :, None], (k < inputs)[:, :, None] & (o < outputs)[None, None, :]
    there = (word * 32 < inputs)[:, None] & (o < outputs)[None, :]
    shared = tl.cdiv(outputs, span)  # scales of one plane and group
    owner = (o // span)[None, None, :]
    shift = tl.arange(0, 32)[None, :, None]
    weight = tl.zeros((WORDS, 32, o.shape[0]), tl.float32)
    for plane in tl.static_range(PLANES):
        bits = tl.load(qweight + (word[:, None] * PLANES + plane) * outputs + o[None, :], mask=there, other=0)
        scale = tl.load(alpha + (group * PLANES + plane) * shared + owner, mask=known, other=0.0)
        weight += tl.where(((bits[:, None, :] >> shift) & 1) != 0, scale, -scale)
    if OFFSET:
        weight += tl.load(offset + group * shared + owner, mask=known, other=0.0)
    return tl.reshape(weight, (WORDS * 32, o.shape[0]))


@triton.jit
def _few(  # type: ignore[no-untyped-def]
    x, qweight, alpha, offset, y,
    rows, inputs, outputs, size, span, words,
    ROWS: tl.constexpr, PLANES: tl.constexpr, OFFSET: tl.constexpr, WHOLE: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Part of y [splits, rows, outputs]: that of `words` words of inputs, for all rows, ROWS at most."""
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    split = tl.program_id(1)
    row, lane = tl.arange(0, ROWS), tl.arange(0, 32)
    sums = tl.zeros((ROWS, 32, OUTPUTS), tl.float32)
    for word in range(split * words, tl.minimum((split + 1) * words, tl.cdiv(inputs, 32))):
        k = word * 32 + lane
        known = (row < rows)[:, None] & (k < inputs)[None, :]
        values = tl.load(x + row[:, None] * inputs + k[None, :], mask=known, other=0.0).to(tl.float32)
        weight = _weights(qweight, alpha, offset, word, o, inputs, outputs, size, span, PLANES, OFFSET, WHOLE, 1)
        sums += values[:, :, None] * weight[None, :, :]
    place = y + (split * rows + row)[:, None] * outputs + o[None, :]
    tl.store(place, tl.sum(sums, axis=1), mask=(row < rows)[:, None] & (o < outputs)[None, :])


@triton.jit
def _many(  # type: ignore[no-untyped-def]
    x, qweight, alpha, offset, y,
    rows, inputs, outputs, size, span, words,
    ROWS: tl.constexpr, PLANES: tl.constexpr, OFFSET: tl.constexpr, WHOLE: tl.constexpr, OUTPUTS: tl.constexpr,
    WORDS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Part of y [splits, rows, outputs]: that of `words` words of inputs, for the ROWS rows of this program."""
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    split = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # rows x inputs can be more than 2^31
    lane = tl.arange(0, WORDS * 32)
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for word in range(split * words, tl.minimum((split + 1) * words, tl.cdiv(inputs, 32)), WORDS):
        k = word * 32 + lane
        known = (row < rows)[:, None] & (k < inputs)[None, :]
        values = tl.load(x + row[:, None] * inputs + k[None, :], mask=known, other=0.0)
        weight = _weights(qweight, alpha, offset, word, o, inputs, outputs, size, span, PLANES, OFFSET, WHOLE, WORDS)
        weight = weight.to(values.dtype)
        if WIDEN:  # the interpreter's product takes the bits of bfloat16 for integers
            values, weight = values.to(tl.float32), weight.to(tl.float32)
        sums = tl.dot(values, weight, sums, input_precision="ieee")  # float32 is not rounded to tf32
    place = y + (split * rows + row)[:, None] * outputs + o[None, :]
    tl.store(place, sums, mask=(row < rows)[:, None] & (o < outputs)[None, :])


@triton.jit
def _rebuild(  # type: ignore[no-untyped-def]
    qweight, alpha, offset, weight, inputs, outputs, size, span,
    PLANES: tl.constexpr, OFFSET: tl.constexpr, WHOLE: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """The 32 inputs of one word of W^T [inputs, outputs]."""
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    word = tl.program_id(1)
    k = word * 32 + tl.arange(0, 32)
    part = _weights(qweight, alpha, offset, word, o, inputs, outputs, size, span, PLANES, OFFSET, WHOLE, 1)
    place = weight + k.to(tl.int64)[:, None] * outputs + o[None, :]
    tl.store(place, part, mask=(k < inputs)[:, None] & (o < outputs)[None, :])


def multiply(
    x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, few: int = FEW
) -> Tensor:
    """[..., in] -> [..., out] in the dtype of x, which is one of `DTYPES`; all tensors on one device.

    Args:
        few: the number of rows up to which no tensor core is used.
    """
    x = x.contiguous()
    rows, words = x.numel() // grouping.columns, -(-grouping.columns // 32)
    variant = _variant(qweight, offset, grouping)
    tall = triton.next_power_of_2(rows)
    if rows <= few:
        kernel, extra = _few, {}
    else:  # three stages of loads, where that fits into the shared memory of any GPU
        light = x.dtype != torch.float32 and variant["WHOLE"]
        kernel, tall = _many, min(128 if light else 64, max(16, tall))
        extra = {"WORDS": 2 if light else 1, "WIDEN": not x.is_cuda, "num_stages": 3 if light else 1}
    across, down = triton.cdiv(grouping.rows, OUTPUTS), triton.cdiv(rows, tall)
    each = _words_of_each(words, across * down, _processors(x.device))
    splits = triton.cdiv(words, each)
    kind = x.dtype if splits == 1 else torch.float32
    y = torch.empty((splits, rows, grouping.rows), dtype=kind, device=x.device)
    sizes = rows, grouping.columns, grouping.rows, grouping.size, grouping.span, each
    with _on(x.device):
        kernel[(across, splits, down)](
            x, *_parts(qweight, alpha, offset), y, *sizes, ROWS=tall, **variant, **extra, **OPTIONS
        )
    y = y[0] if splits == 1 else y.sum(dim=0).to(x.dtype)
    return y.view(*x.shape[:-1], grouping.rows)


def rebuild(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """W^T [in, out], float32, with the bits of every other path."""
    weight = torch.empty((grouping.columns, grouping.rows), dtype=torch.float32, device=qweight.device)
    grid = triton.cdiv(grouping.rows, OUTPUTS), triton.cdiv(grouping.columns, 32)
    sizes = grouping.columns, grouping.rows, grouping.size, grouping.span
    with _on(qweight.device):
        _rebuild[grid](
            *_parts(qweight, alpha, offset), weight, *sizes, **_variant(qweight, offset, grouping), **OPTIONS
        )
    return weight


def _parts(qweight: Tensor, alpha: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one piece each; where there is no offset, something that is not read."""
    alpha = alpha.contiguous()
    return qweight.contiguous(), alpha, alpha if offset is None else offset.contiguous()


def _variant(qweight: Tensor, offset: Tensor | None, grouping: Grouping) -> dict[str, Any]:
    """What a kernel is compiled for."""
    whole = grouping.size >= grouping.columns or grouping.size % 32 == 0
    return {"PLANES": qweight.shape[1], "OFFSET": offset is not None, "WHOLE": whole, "OUTPUTS": OUTPUTS}


def _words_of_each(words: int, programs: int, processors: int) -> int:
    """How many of the words one program takes, an even number: every processor has four programs, each four words."""
    splits = max(1, min(-(-4 * processors // programs), words // 4))
    return -(-words // splits // 2) * 2


@functools.cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 in the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
