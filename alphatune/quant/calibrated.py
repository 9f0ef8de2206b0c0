"""Codes and scales that minimise the error of a layer's output, ||X (W - W_q)^T||^2, for calibration inputs X.

Not in the paper. With H = X^T X / T, that error is e H e^T for each row e of W - W_q, so rows are solved apart:

- scales for fixed codes: least squares in the metric H, all groups of a row jointly, offset included;
- codes for fixed scales: GPTQ's error feedback (arXiv 2210.17323). Column after column takes the nearest value of its
  row's (group's) codebook, and columns not yet coded are moved to make up for the error. GPTQ rounds to a uniform
  grid; here the grid is the 2^q sums of the row's scales.

The two alternate; the best of all rounds is kept for each row. Pure tensor functions; H is collected in
`alphatune/packed/calibration.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alphatune.quant import bcq, whole_rows
from alphatune.quant.curvature import Curvature, output_error
from alphatune.quant.feedback import Codebook, feedback
from alphatune.quant.grouping import Grouping


def rebuild(signs: Tensor, scales: Tensor, grouping: Grouping) -> Tensor:
    """W_q [n, in] from signs [n, q, in] and scales [G, k, n]; k = q + 1 has the offset last."""
    weight = torch.zeros(grouping.rows, grouping.columns, device=signs.device)
    for i in range(scales.shape[1]):
        spread = grouping.spread(scales[:, i]).T
        weight += torch.where(signs[:, i], spread, -spread) if i < signs.shape[1] else spread
    return weight


def best_scales(
    rows: Tensor, signs: Tensor, hessian: Tensor, grouping: Grouping, offset: bool, target: Tensor | None = None
) -> Tensor:
    """The scales that minimise the output error for fixed codes: the groups of a row are solved jointly.

    Args:
        rows: [n, in] weights.
        signs: [n, q, in].
        hessian: [in, in].
        target: rows @ hessian, if it is known already.

    Returns:
        [G, k, n] float32, k = q or, with `offset`, q + 1.
    """
    n, groups, size = len(rows), grouping.per_row, grouping.size
    planes = _with_ones(signs, offset)
    k = planes.shape[1]
    cut = _cut(planes, groups, size)  # [n, G, k, g]
    gram = torch.empty(n, groups, k, groups, k, dtype=torch.float64, device=rows.device)
    for b in range(groups):  # B_a H B_b^T for the groups a from b on; the rest by symmetry
        start, stop = b * size, min((b + 1) * size, grouping.columns)
        pushed = planes[:, :, start:stop] @ hessian[start:stop, start:]  # [n, k, in - start]
        products = cut[:, b:] @ _cut(pushed, groups - b, size).transpose(2, 3)  # [n, G - b, k, k]
        gram[:, b:, :, b] = products
        gram[:, b, :, b:] = products.permute(0, 3, 1, 2)
    moment = cut @ _cut((rows @ hessian if target is None else target)[:, None], groups, size).transpose(2, 3)
    unknowns = groups * k
    solved = _rounded_solution(gram.view(n, unknowns, unknowns), moment.double().view(n, unknowns, 1))
    return solved.view(n, groups, k).permute(1, 2, 0).float().contiguous()


def nearest(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping) -> Tensor:
    """The code of each weight whose value is nearest, whatever that does to the output: signs [n, q, in]."""
    book = Codebook(scales, bits)
    parts = [book.nearest(i, part.contiguous()) for i, part in enumerate(rows.split(grouping.size, dim=1))]
    return _signs(torch.cat(parts, dim=1), bits)


def by_feedback(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping, curvature: Curvature) -> Tensor:
    """The codes that GPTQ's error feedback gives with the codebook of `scales` [G, k, n]: signs [n, q, in]."""
    order = curvature.order
    codes, _ = feedback(rows.T[order], Codebook(scales, bits), order // grouping.size, curvature.upper)
    return _signs(codes[order.argsort()].T, bits)


def _signs(codes: Tensor, bits: int) -> Tensor:
    """The planes [n, q, in] of codes uint8 [n, in]."""
    digits = torch.arange(bits - 1, -1, -1, device=codes.device, dtype=torch.uint8)
    return (codes[:, None] >> digits[:, None] & 1).bool()


def refine(
    rows: Tensor, signs: Tensor, scales: Tensor, grouping: Grouping, curvature: Curvature, solver: str, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Better codes and scales for the output error, from given ones; no row gets worse in the damped output error.

    First the scales are solved for the given codes. Then, `rounds` times, codes for the scales ("gptq": by feedback,
    "hessian": the nearest) and scales for the codes. A row keeps the best it has seen, the start included.

    Args:
        rows: [n, in] weights.
        signs: [n, q, in].
        scales: [G, k, n]; k = q + 1 has the offset last.
        grouping: of these rows; groups that span rows are not possible here.
        solver: "hessian" or "gptq".

    Returns:
        signs, scales and the damped output errors [n]; in each group the scales are not negative and the largest comes
        first, offset last.
    """
    if grouping.per_row == 1:
        signs, scales, error = whole_rows.refine(rows, signs, scales[0], curvature, solver, rounds)
        return signs, scales[None], error
    bits, offset = signs.shape[1], scales.shape[1] > signs.shape[1]
    hessian = curvature.hessian
    target = rows @ hessian
    best_signs, best = signs, scales
    error = output_error(rows - rebuild(signs, scales, grouping), hessian)
    for turn in range(rounds + 1):
        if turn:
            signs = (
                by_feedback(rows, scales, bits, grouping, curvature)
                if solver == "gptq"
                else nearest(rows, scales, bits, grouping)
            )
        signs, scales = _in_order(signs, best_scales(rows, signs, hessian, grouping, offset, target), grouping)
        new_error = output_error(rows - rebuild(signs, scales, grouping), hessian)
        better = new_error < error
        if not bool(better.any()):
            break
        best_signs = torch.where(better[:, None, None], signs, best_signs)
        best = torch.where(better, scales, best)
        error = torch.where(better, new_error, error)
    return best_signs, best, error


def rows_at_once(grouping: Grouping, unknowns: int) -> int:
    """How many rows `refine` can take so that its temporaries stay near 200 MB; `unknowns` are those of one group."""
    planes = 2**22 // (grouping.columns * unknowns)
    systems = 2**22 // (grouping.per_row * unknowns) ** 2
    return max(1, min(planes, systems))


def _cut(values: Tensor, groups: int, size: int) -> Tensor:
    """[n, k, in] -> [n, G, k, g]; a shorter last group is filled with zeros."""
    missing = groups * size - values.shape[2]
    if missing:
        values = torch.nn.functional.pad(values, (0, missing))
    return values.view(*values.shape[:2], groups, size).transpose(1, 2)


def _in_order(signs: Tensor, scales: Tensor, grouping: Grouping) -> tuple[Tensor, Tensor]:
    """The same weights with scales that are not negative, the largest of a group first."""
    bits = signs.shape[1]
    alpha, order = scales[:, :bits].abs().sort(dim=1, descending=True)  # [G, q, n]

    def by_weight(values: Tensor) -> Tensor:  # [G, q, n] -> [n, q, in]
        return values.permute(2, 1, 0).repeat_interleave(grouping.size, dim=2)[:, :, : grouping.columns]

    positive = signs == by_weight(scales[:, :bits] >= 0)
    return positive.gather(1, by_weight(order)), torch.cat([alpha, scales[:, bits:]], dim=1)


def _rounded_solution(gram: Tensor, moment: Tensor) -> Tensor:
    """`bcq.normal_solution` for systems that were computed in float32 and whose unknowns may differ in scale.

    The diagonal is brought to 1 first. What is left of a singular system after float32 rounding is then about 1e-7.
    """
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()[:, :, None]  # [n, k, 1]
    return scale * bcq.normal_solution(scale * gram * scale.transpose(1, 2), scale * moment, tolerance=1e-6)


def _with_ones(signs: Tensor, ones: bool) -> Tensor:
    """The planes as -1.0 and +1.0, and a plane of ones at the end for the offset: [n, q, g] -> [n, q (+ 1), g]."""
    planes = signs.float() * 2 - 1
    return torch.nn.functional.pad(planes, (0, 0, 0, 1), value=1.0) if ones else planes
