"""Codes and scales for the output error of rows that have one set of scales each.

With H = R R^T the output error of a row is the squared norm of its error times R. So the scales of fixed codes are the
least squares of w R by the planes times R, a handful of unknowns, and what GPTQ's feedback leaves over is the
residual that they start from. Columns lie in the feedback's order, as rows: [in, n].
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from alphatune.quant import bcq
from alphatune.quant.curvature import Curvature, times_factor
from alphatune.quant.feedback import Codebook, feedback

_LEAST = 1 / 16  # of the offset: what a scale must be for its plane to be told from the rest
_TOLERANCE = 1e-6  # what is left of a singular system's pivot, its diagonal 1, after float32 rounding is about 1e-7


def refine(
    rows: Tensor, signs: Tensor, scales: Tensor, curvature: Curvature, solver: str, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`calibrated.refine` for rows [n, in] with signs [n, q, in] and scales [k, n]; errors [n] have the damping."""
    bits, offset = signs.shape[1], scales.shape[0] > signs.shape[1]
    order, factor = curvature.order, curvature.factor
    weights, codes = rows.T[order], numbers_of(signs).T[order]
    target, ones, groups = times_factor(factor, weights), factor.sum(dim=0), torch.zeros_like(order)
    best: tuple[Tensor, Tensor, Tensor] | None = None  # codes, scales, error
    for turn in range(rounds + 1):
        if turn and solver == "gptq":
            scales = torch.cat([scales[:bits].abs().sort(dim=0, descending=True).values, scales[bits:]])
            codes, residual = feedback(weights.clone(), Codebook(scales[None], bits), groups, curvature.upper)
            planes = _planes_that_leave(residual, target, codes, scales, bits, factor, ones)
        else:
            codes = Codebook(scales[None], bits).nearest(0, rows).T[order] if turn else codes
            planes = list(times_factor(factor, _plus_minus(codes, bits)).unbind(dim=1))
            residual = _left_by(target, planes, scales, ones)
        error = residual.square().sum(dim=0)
        best = best or (codes, scales, error)
        change, gain = _correction([*planes, ones] if offset else planes, residual)
        scales, error = scales + change, error - gain
        better = error < best[2]
        if not bool(better.any()):
            break
        best = tuple(map(partial(torch.where, better), (codes, scales, error), best))  # type: ignore[assignment]
    assert best is not None
    return *_in_order(best[0][order.argsort()].T, best[1], bits), best[2]


def _left_by(target: Tensor, planes: list[Tensor], scales: Tensor, ones: Tensor) -> Tensor:
    """The residual [in, n] of the target when these planes, the first scales and the offset are taken away."""
    residual = target.clone() if len(scales) <= len(planes) else target - ones[:, None] * scales[-1]
    for plane, scale in zip(planes, scales, strict=False):
        residual -= plane * scale
    return residual


def _planes_that_leave(
    residual: Tensor, target: Tensor, codes: Tensor, scales: Tensor, bits: int, factor: Tensor, ones: Tensor
) -> list[Tensor]:
    """The planes of `codes` times R when `residual` is known to be what they leave: one product fewer.

    The first plane, whose scale is the largest, is what is left of the target by the residual and all others. Where
    that scale is small beside the offset, too little would be left, and the plane is multiplied after all.
    """
    signs = _plus_minus(codes, bits)
    others = list(times_factor(factor, signs[:, 1:].contiguous()).unbind(dim=1)) if bits > 1 else []
    first = target - residual
    for plane, scale in zip(others, scales[1:bits], strict=True):
        first -= plane * scale
    largest = scales[0]
    small = ~(largest > 0)
    if len(scales) > bits:
        first -= ones[:, None] * scales[bits]
        small |= largest < _LEAST * scales[bits].abs()
    first /= largest
    if bool(small.any()):
        first[:, small] = times_factor(factor, signs[:, 0, small].contiguous())
    return [first, *others]


def numbers_of(signs: Tensor) -> Tensor:
    """Signs [n, q, in] as the numbers of their codes, the last plane as the lowest digit: uint8 [n, in]."""
    numbers = signs[:, 0].to(torch.uint8)
    for i in range(1, signs.shape[1]):
        numbers = numbers * 2 + signs[:, i]
    return numbers


def _plus_minus(codes: Tensor, bits: int) -> Tensor:
    """The planes of codes [in, n] as -1.0 and +1.0: [in, q, n]."""
    digits = torch.arange(bits - 1, -1, -1, device=codes.device, dtype=torch.uint8)
    return (((codes[:, None] >> digits[:, None] & 1) * 2).view(torch.int8) - 1).float()


def _correction(planes: list[Tensor], residual: Tensor) -> tuple[Tensor, Tensor]:
    """What the scales must change by so that the residual [in, n] is least: [k, n] float32; and by how much it falls.

    By the planes times R: [in, n] each, or [in] where all rows share it.
    """
    k, n = len(planes), residual.shape[1]
    gram = torch.empty(k, k, n, dtype=torch.float64, device=residual.device)
    moment = torch.empty(k, n, dtype=torch.float64, device=residual.device)
    for i, plane in enumerate(planes):
        moment[i] = _dots(plane, residual)
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = _dots(plane, planes[j])
    change = bcq.least_squares(gram, moment, _TOLERANCE)
    return change.float(), (change * moment).sum(dim=0).float()


def _dots(one: Tensor, other: Tensor) -> Tensor:
    """The products of the columns of two matrices [in, n], or of one column [in] with them."""
    return one @ other if one.ndim == 1 else (one * other).sum(dim=0)


def _in_order(codes: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Signs [n, q, in] and scales [k, n] of codes [n, in]: the same weights with scales that are not negative, the
    largest first."""
    alpha, order = scales[:bits].abs().sort(dim=0, descending=True)
    digits = bits - 1 - order.T
    negative = (scales[:bits] < 0).gather(0, order).T
    signs = (codes[:, None] >> digits[:, :, None].to(torch.uint8) & 1).bool()
    return signs ^ negative[:, :, None], torch.cat([alpha, scales[bits:]])
