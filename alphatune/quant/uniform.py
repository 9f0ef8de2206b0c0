"""Uniform asymmetric quantisation for PEQA (arXiv 2305.14152): w ~ s (c - z), c an integer of q bits.

The step s is searched to minimise the squared error, the zero point z is an integer and stays frozen. Written as
binary codes it is the special case alpha_i = s 2^(i-2) with an offset, so the packed layer serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SHRINKS = 96  # clipping ratios tried, from the full range down to a quarter of it


def search(vectors: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Step, zero point and codes of each row of `vectors` [n, g].

    Every clipping ratio of a grid is tried; the best is then refined by alternating the least-squares step for the
    codes with nearest codes for the step, kept only while the error falls.

    Returns:
        step [n] > 0, zero [n] (integer-valued float), codes [n, g] uint8 in 0 .. 2^bits - 1.
    """
    vectors = vectors.float()
    top = 2**bits - 1
    low = vectors.amin(dim=1).clamp(max=0)
    high = vectors.amax(dim=1).clamp(min=0)
    full = torch.where(high > low, high - low, torch.ones_like(high)) / top
    best = _Fit(vectors, full, torch.round(-low / full), top)
    for shrink in torch.linspace(1.0, 0.25, _SHRINKS).tolist()[1:]:
        step = full * shrink
        best.offer(step, torch.round(-low * shrink / step))
    best.refine()
    return best.step, best.zero, best.codes().to(torch.uint8)


def symmetric(vectors: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same search for values that lie symmetrically around 0: the zero point is (2^bits - 1) / 2.

    This grid needs no offset as binary codes. Returned is what `search` returns.
    """
    vectors = vectors.float()
    top = 2**bits - 1
    full = vectors.abs().amax(dim=1) * 2 / top
    full = torch.where(full > 0, full, torch.ones_like(full))
    best = _Fit(vectors, full, torch.full_like(full, top / 2), top, shift=0.5)
    for shrink in torch.linspace(1.0, 0.25, _SHRINKS).tolist()[1:]:
        best.offer(full * shrink, best.zero)
    best.refine()
    return best.step, best.zero, best.codes().to(torch.uint8)


class _Fit:
    """The best step and zero point so far, row by row."""

    def __init__(self, vectors: Tensor, step: Tensor, zero: Tensor, top: int, shift: float = 0.0) -> None:
        self.vectors, self.step, self.zero, self.top = vectors, step, zero, top
        self.shift = shift  # 1/2 for zero points that lie between two codes
        self.error = self._error(step, zero)

    def codes(self) -> Tensor:
        return self._codes(self.step, self.zero)

    def offer(self, step: Tensor, zero: Tensor) -> bool:
        """Take the rows where this is better; True if there was one."""
        error = self._error(step, zero)
        better = error < self.error
        self.step = torch.where(better, step, self.step)
        self.zero = torch.where(better, zero, self.zero)
        self.error = torch.where(better, error, self.error)
        return bool(better.any())

    def refine(self) -> None:
        """Least-squares steps for the codes and nearest codes for the step in turn, while the error falls."""
        for _ in range(8):
            centred = self.codes() - self.zero[:, None]
            energy = centred.square().sum(dim=1)
            step = torch.where(energy > 0, (self.vectors * centred).sum(dim=1) / energy.clamp(min=1), self.step)
            if not self.offer(torch.where(step > 0, step, self.step), self.zero):
                break

    def _codes(self, step: Tensor, zero: Tensor) -> Tensor:
        nearest = torch.round(self.vectors / step[:, None] - self.shift) + (zero + self.shift)[:, None]
        return nearest.clamp(0, self.top)

    def _error(self, step: Tensor, zero: Tensor) -> Tensor:
        rebuilt = step[:, None] * (self._codes(step, zero) - zero[:, None])
        return (self.vectors - rebuilt).square().sum(dim=1)


def as_binary(step: Tensor, zero: Tensor, codes: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same weights as binary planes: alpha [n, q], signs [n, q, g], offset [n].

    Bit i of the code (lowest first) is plane i; alpha_i = s 2^(i-2) for i = 1 .. q and offset = sum(alpha) - s z.
    """
    powers = 2.0 ** (torch.arange(bits, device=step.device) - 1)
    alpha = step[:, None] * powers
    shifts = torch.arange(bits, device=codes.device)[None, :, None]
    signs = ((codes.to(torch.int32)[:, None, :] >> shifts) & 1).bool()
    return alpha, signs, alpha.sum(dim=1) - step * zero
