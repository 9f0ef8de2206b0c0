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

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alphatune.quant import bcq
from alphatune.quant.grouping import Grouping

_BLOCK = 32  # columns whose feedback is applied one by one; later columns get it once per block
_FEW = 4  # bits up to which all levels are looked at instead of searched
_STRIPE = 192  # columns of the symmetric H multiplied at once: what lies below them is known by then


@dataclass(frozen=True)
class Curvature:
    """What a layer's inputs say about the cost of an error in its weights.

    `hessian` is H plus the damping, [in, in] float32. `order` and `upper` are for the feedback, None where it is not
    used: columns by falling H_jj, and the upper triangular U with U^T U = H^-1 in that order.
    """

    hessian: Tensor
    order: Tensor | None = None
    upper: Tensor | None = None

    @classmethod
    def of(cls, hessian: Tensor, damping: float, feedback: bool = False) -> Curvature:
        """From the second moments of the inputs; `damping` times the mean of their diagonal is added to it.

        The damping stands for errors on inputs that the calibration texts do not show: without it, weights on inputs
        that are always 0 there would be free. Inputs that are 0 altogether give the identity.
        """
        mean = float(hessian.diagonal().mean())
        exact = hessian.double()
        identity = torch.eye(len(exact), dtype=exact.dtype, device=exact.device)
        exact = exact + damping * mean * identity if mean > 0 else identity
        if not feedback:
            return cls(exact.float())
        order = exact.diagonal().argsort(descending=True, stable=True)
        # H = R R^T with R upper triangular: the Cholesky factor of the matrix read backwards. Then U = R^-1.
        backwards = order.flip(0)
        factor = torch.linalg.cholesky(exact[backwards][:, backwards]).flip(0, 1)
        upper = torch.linalg.solve_triangular(factor, identity, upper=True)
        return cls(exact.float(), order, upper.float())


def output_error(difference: Tensor, hessian: Tensor) -> Tensor:
    """e H e^T of each row e of `difference` [n, in]: its share of ||X (W - W_q)^T||^2 / T. Shape [n]."""
    error = difference.new_zeros(len(difference))
    for stripe, rest in _stripes(hessian):
        pushed = difference[:, stripe] @ rest
        error += 2 * torch.linalg.vecdot(pushed, difference[:, stripe.start :])
    return error


def _stripes(hessian: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of H from their own columns on, its diagonal blocks halved: twice their products with both sides make
    those with H, for half the work."""
    for start in range(0, len(hessian), _STRIPE):
        stripe = slice(start, min(start + _STRIPE, len(hessian)))
        rest = hessian[stripe, start:].clone()
        rest[:, : stripe.stop - start] /= 2
        yield stripe, rest


def rebuild(signs: Tensor, scales: Tensor, grouping: Grouping) -> Tensor:
    """W_q [n, in] from signs [n, q, in] and scales [G, k, n]; k = q + 1 has the offset last."""
    if grouping.span == 1:
        planes = _cut(_with_ones(signs, scales.shape[1] > signs.shape[1]), grouping.per_row, grouping.size)
        rebuilt = scales.permute(2, 0, 1)[:, :, None] @ planes  # [n, G, 1, g]
        return rebuilt.reshape(len(signs), -1)[:, : grouping.columns]
    weight = torch.zeros(grouping.columns, grouping.rows, device=signs.device)
    for i in range(scales.shape[1]):
        spread = grouping.spread(scales[:, i])
        weight += torch.where(signs[:, i].T, spread, -spread) if i < signs.shape[1] else spread
    return weight.T


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
    if groups == 1:
        gram = _row_gram(planes, hessian, offset)
    else:
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


def _row_gram(planes: Tensor, hessian: Tensor, offset: bool) -> Tensor:
    """B H B^T of every row's planes [n, k, in]: [n, k, k] float64. A last plane of ones is the same in every row."""
    n, k, _ = planes.shape
    gram = torch.zeros(n, k, k, dtype=torch.float64, device=planes.device)
    q = k - offset
    for stripe, rest in _stripes(hessian):
        pushed = planes[:, :q, stripe].reshape(n * q, -1) @ rest
        gram[:, :q, :q] += pushed.view(n, q, -1) @ planes[:, :q, stripe.start :].transpose(1, 2)
    gram += gram.transpose(1, 2).clone()
    if offset:
        gram[:, q] = gram[:, :, q] = planes @ hessian.sum(dim=0)
    return gram


def nearest(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping) -> Tensor:
    """The code of each weight whose value is nearest, whatever that does to the output: signs [n, q, in]."""
    return _Codebook(scales, bits).signs(rows, grouping)


def feedback(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping, curvature: Curvature) -> Tensor:
    """The codes that GPTQ's error feedback gives with the codebook of `scales` [G, k, n]: signs [n, q, in]."""
    order, upper = curvature.order, curvature.upper
    assert order is not None and upper is not None
    book = _Codebook(scales, bits)
    group_of = (order // grouping.size).tolist()
    work = rows.T[order].contiguous()  # [in, n]: columns of W are rows here, which is how they are visited
    for start in range(0, len(work), _BLOCK):
        stop = min(start + _BLOCK, len(work))
        block, corner = work[start:stop], upper[start:stop, start:stop]
        errors = torch.empty_like(block)
        for j, pivot in enumerate(corner.diagonal().tolist()):
            torch.sub(block[j], book.rounded(group_of[start + j], block[j]), out=errors[j]).div_(pivot)
            block[j + 1 :].addr_(corner[j, j + 1 :], errors[j], alpha=-1)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    moved = torch.empty_like(rows)  # every weight as it was when its turn came
    moved[:, order] = work.T
    return book.signs(moved, grouping)


def refine(
    rows: Tensor, signs: Tensor, scales: Tensor, grouping: Grouping, curvature: Curvature, solver: str, rounds: int
) -> tuple[Tensor, Tensor]:
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
        signs and scales; in each group the scales are not negative and the largest comes first, offset last.
    """
    bits, offset = signs.shape[1], scales.shape[1] > signs.shape[1]
    hessian = curvature.hessian
    target = rows @ hessian
    best_signs, best = signs, scales
    error = output_error(rows - rebuild(signs, scales, grouping), hessian)
    for turn in range(rounds + 1):
        if turn:
            signs = (
                feedback(rows, scales, bits, grouping, curvature)
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
    return best_signs, best


def rows_at_once(grouping: Grouping, unknowns: int) -> int:
    """How many rows `refine` can take so that its temporaries stay near 200 MB; `unknowns` are those of one group."""
    planes = 2**22 // (grouping.columns * unknowns)
    systems = 2**22 // (grouping.per_row * unknowns) ** 2
    return max(1, min(planes, systems))


class _Codebook:
    """The 2^q values of every group, sorted: `position` finds the nearest, `signs` says which code it is."""

    def __init__(self, scales: Tensor, bits: int) -> None:
        table = bcq.code_table(bits, scales.device)
        values = torch.einsum("gqn,lq->gnl", scales[:, :bits], table.float() * 2 - 1)
        if scales.shape[1] > bits:
            values += scales[:, bits, :, None]
        self.bits = bits
        self.values, self.codes = values.sort(dim=2)  # [G, n, 2^q]
        self.middles = ((self.values[:, :, 1:] + self.values[:, :, :-1]) / 2).contiguous()
        self.by_level = bits <= _FEW
        if self.by_level:
            self.mean = (self.values[:, :, 0] + self.values[:, :, -1]) / 2  # [G, n]
            self.halves = (self.values.diff(dim=2) / 2).transpose(1, 2).contiguous()  # [G, 2^q - 1, n]
            self.between = self.middles.transpose(1, 2).contiguous()

    def rounded(self, group: int, weights: Tensor) -> Tensor:
        """The nearest values of [n] weights of one column; one in the middle goes down."""
        if self.by_level:  # half a step up for each middle that is passed, half a step down for each that is not
            below = torch.copysign(self.halves[group], self.between[group] - weights)
            return self.mean[group] - below.sum(dim=0)
        position = torch.searchsorted(self.middles[group], weights[:, None])
        return self.values[group].gather(1, position)[:, 0]

    def signs(self, rows: Tensor, grouping: Grouping) -> Tensor:
        """The nearest codes of weights [n, in]: signs [n, q, in]."""
        codes = torch.empty(rows.shape, dtype=torch.uint8, device=rows.device)
        for group in range(grouping.per_row):
            part = slice(group * grouping.size, (group + 1) * grouping.size)
            position = torch.searchsorted(self.middles[group], rows[:, part].contiguous())
            codes[:, part] = self.codes[group].to(torch.uint8).gather(1, position)
        planes = torch.arange(self.bits - 1, -1, -1, device=rows.device, dtype=torch.uint8)
        return (codes[:, None] >> planes[:, None] & 1).bool()


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
