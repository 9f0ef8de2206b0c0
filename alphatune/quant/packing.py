"""Signs as bits: 32 of them in an int32, in the layout that LUT-GEMM kernels read.

A matrix of q sign planes over [out, in] weights is stored as int32 [ceil(in / 32), q, out]. Bit k % 32 (lowest first)
of word k // 32 belongs to input k, and 1 means +1. Missing inputs of the last word are stored as 0 bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

WORD = 32
_CACHED = 1 << 17  # weights; their bits, signs and sums then stay in a CPU core's own cache


def pack(signs: Tensor) -> Tensor:
    """[out, q, in] bool -> int32 [ceil(in / 32), q, out]."""
    out, q, n_in = signs.shape
    words = -(-n_in // WORD)
    padded = signs
    if n_in % WORD:
        padded = torch.zeros(out, q, words * WORD, dtype=torch.bool, device=signs.device)
        padded[:, :, :n_in] = signs
    # Eight bools at a time are a 64-bit number; this product moves the lowest bit of its byte i to bit 56 + i.
    # Flat: a part of one row may count as contiguous with strides that are no multiples of 8.
    gathered = (padded.contiguous().flatten().view(torch.int64) * 0x0102040810204080) >> 56
    return gathered.to(torch.uint8).view(torch.int32).view(out, q, words).permute(2, 1, 0).contiguous()


def unpack(packed: Tensor, n_in: int) -> Tensor:
    """int32 [ceil(in / 32), q, out] -> [out, q, in] bool, for `n_in` inputs."""
    words, q, out = packed.shape
    bits = (packed[:, :, :, None] >> torch.arange(WORD, device=packed.device, dtype=torch.int32)) & 1
    return bits.bool().permute(2, 1, 0, 3).reshape(out, q, words * WORD)[:, :, :n_in].contiguous()


def sign_bits(plane: Tensor, n_in: int, room: Tensor | None = None) -> Tensor:
    """One plane [ceil(in / 32), out] as float sign bits [in, out]: the int32 sign bit is set where the code is -1.

    Xor-ing it into a float's bits multiplies that float by the code: no conversion, no multiplication.

    Args:
        room: int32 of at least 32 ceil(in / 32) rows to write to, which saves an allocation.
    """
    words, out = plane.shape
    shifts = torch.arange(WORD - 1, -1, -1, device=plane.device, dtype=torch.int32)
    moved = torch.empty(words * WORD, out, dtype=torch.int32, device=plane.device) if room is None else room
    moved = moved[: words * WORD].view(words, WORD, out)
    torch.bitwise_left_shift((~plane)[:, None, :], shifts[None, :, None], out=moved)  # input k's inverted bit at bit 31
    return moved.view(-1, out)[:n_in].bitwise_and_(-(2**31))


def times_codes(values: Tensor, signs: Tensor) -> Tensor:
    """`values` (float32, broadcastable to [in, out]) times the codes whose `sign_bits` are given and overwritten."""
    return signs.bitwise_xor_(values.contiguous().view(torch.int32)).view(torch.float32)


def blocks(n_in: int, out: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Words, and the inputs they hold, to work on at once: on a CPU what its cache holds, elsewhere everything."""
    words = -(-n_in // WORD)
    step = max(1, _CACHED // (WORD * out)) if device.type == "cpu" else words
    for start in range(0, words, step):
        stop = min(start + step, words)
        yield slice(start, stop), slice(start * WORD, min(stop * WORD, n_in))
