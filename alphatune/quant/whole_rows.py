"""Codes and scales for the output error of rows that have one set of scales each.

With H = R R^T the output error of a row is the squared norm of its error times R. So the scales of fixed codes are the
least squares of w R by the planes times R, a handful of unknowns, and what GPTQ's feedback leaves over is the
residual that they start from. Columns lie in the feedback's order, as rows: [in, n].
"""

from __future__ import annotations

import torch
from torch import Tensor

from alphatune.quant import bcq
from alphatune.quant.curvature import Curvature, times_factor
from alphatune.quant.feedback import Codebook, feedback

_TOLERANCE = 1e-6  # what is left of a singular system's pivot, its diagonal 1, after float32 rounding is about 1e-7


def refine(
    rows: Tensor, signs: Tensor, scales: Tensor, curvature: Curvature, solver: str, rounds: int
) -> tuple[Tensor, Tensor]:
    """`calibrated.refine` for rows [n, in] with signs [n, q, in] and scales [k, n]."""
    bits, offset = signs.shape[1], scales.shape[0] > signs.shape[1]
    order, factor = curvature.order, curvature.factor
    weights, target = rows.T[order], torch.empty(0)
    ones = factor.sum(dim=0) if offset else None
    groups = torch.zeros_like(order)
    codes = numbers_of(signs).T[order]
    best: tuple[Tensor, Tensor, Tensor] | None = None  # codes, scales, error
    for turn in range(rounds + 1):
        residual = None
        if turn and solver == "gptq":
            codes, residual = feedback(weights.clone(), Codebook(scales[None], bits), groups, curvature.upper)
        elif turn:
            codes = Codebook(scales[None], bits).nearest(0, rows).T[order]
        planes = times_factor(factor, _plus_minus(codes, bits))
        if residual is None:
            target = times_factor(factor, weights) if not len(target) else target
            residual = target - (planes * scales[:bits]).sum(dim=1)
            if ones is not None:
                residual -= ones[:, None] * scales[bits]
        error = residual.square().sum(dim=0)
        best = best or (codes, scales, error)
        change, gain = _correction(planes, ones, residual)
        scales, error = scales + change, error - gain
        better = error < best[2]
        if not bool(better.any()):
            break
        codes_, scales_, error_ = (
            torch.where(better, *pair) for pair in zip((codes, scales, error), best, strict=True)
        )
        best = codes_, scales_, error_
    assert best is not None
    return _in_order(best[0][order.argsort()].T, best[1], bits)


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


def _correction(planes: Tensor, ones: Tensor | None, residual: Tensor) -> tuple[Tensor, Tensor]:
    """What the scales must change by so that the residual [in, n] is least: [k, n] float32; and by how much it falls.

    By the planes times R [in, q, n] and, where there is an offset, ones times R [in].
    """
    q, n = planes.shape[1:]
    k = q + (ones is not None)
    gram = torch.empty(k, k, n, dtype=torch.float64, device=planes.device)
    moment = torch.empty(k, n, dtype=torch.float64, device=planes.device)
    for i in range(q):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = (planes[:, i] * planes[:, j]).sum(dim=0)
        moment[i] = (planes[:, i] * residual).sum(dim=0)
    if ones is not None:
        gram[q, :q] = gram[:q, q] = (ones @ planes.flatten(1)).view(q, n)
        gram[q, q] = ones.square().sum()
        moment[q] = ones @ residual
    change = bcq.least_squares(gram, moment, _TOLERANCE)
    return change.float(), (change * moment).sum(dim=0).float()


def _in_order(codes: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Signs [n, q, in] and scales [k, n] of codes [n, in]: the same weights with scales that are not negative, the
    largest first."""
    alpha, order = scales[:bits].abs().sort(dim=0, descending=True)
    digits = bits - 1 - order.T
    negative = (scales[:bits] < 0).gather(0, order).T
    signs = (codes[:, None] >> digits[:, :, None].to(torch.uint8) & 1).bool()
    return signs ^ negative[:, :, None], torch.cat([alpha, scales[bits:]])
