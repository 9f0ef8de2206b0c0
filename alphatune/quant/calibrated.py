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

from dataclasses import dataclass

import torch
from torch import Tensor

from alphatune.quant import bcq
from alphatune.quant.grouping import Grouping
from alphatune.quant.weighted import rounded_solution, with_ones

_BLOCK = 128  # columns whose feedback is applied one by one; later columns get it once per block


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
    return ((difference @ hessian) * difference).sum(dim=1)


def rebuild(signs: Tensor, scales: Tensor, grouping: Grouping) -> Tensor:
    """W_q [n, in] from signs [n, q, in] and scales [G, k, n]; k = q + 1 has the offset last."""
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
    planes = with_ones(signs, offset)
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
    solved = rounded_solution(gram.view(n, unknowns, unknowns), moment.double().view(n, unknowns, 1))
    return solved.view(n, groups, k).permute(1, 2, 0).float().contiguous()


def nearest(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping) -> Tensor:
    """The code of each weight whose value is nearest, whatever that does to the output: signs [n, q, in]."""
    book = _Codebook(scales, bits)
    columns = rows.T.contiguous()
    positions = torch.stack([book.position(j // grouping.size, column) for j, column in enumerate(columns)])
    return book.signs(positions, grouping)


def feedback(rows: Tensor, scales: Tensor, bits: int, grouping: Grouping, curvature: Curvature) -> Tensor:
    """The codes that GPTQ's error feedback gives with the codebook of `scales` [G, k, n]: signs [n, q, in]."""
    order, upper = curvature.order, curvature.upper
    assert order is not None and upper is not None
    book = _Codebook(scales, bits)
    group_of = (order // grouping.size).tolist()
    work = rows.T[order].contiguous()  # [in, n]: columns of W are rows here, which is how they are visited
    positions = torch.empty(work.shape, dtype=torch.long, device=rows.device)
    for start in range(0, len(work), _BLOCK):
        stop = min(start + _BLOCK, len(work))
        block, corner = work[start:stop], upper[start:stop, start:stop]
        errors = torch.empty_like(block)
        for j, pivot in enumerate(corner.diagonal().tolist()):
            position = book.position(group_of[start + j], block[j])
            positions[order[start + j]] = position
            errors[j] = (block[j] - book.value(group_of[start + j], position)) / pivot
            block[j + 1 :].addr_(corner[j, j + 1 :], errors[j], alpha=-1)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    return book.signs(positions, grouping)


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
        self.table = table
        self.values, self.codes = values.sort(dim=2)  # [G, n, 2^q]
        self.middles = ((self.values[:, :, 1:] + self.values[:, :, :-1]) / 2).contiguous()

    def position(self, group: int, weights: Tensor) -> Tensor:
        """[n] weights of one column -> [n] positions among the sorted values."""
        return torch.searchsorted(self.middles[group], weights[:, None])[:, 0]

    def value(self, group: int, position: Tensor) -> Tensor:
        """The values at `position` [n]."""
        return self.values[group].gather(1, position[:, None])[:, 0]

    def signs(self, positions: Tensor, grouping: Grouping) -> Tensor:
        """Positions [in, n] -> signs [n, q, in]."""
        codes = torch.empty_like(positions)
        for group in range(grouping.per_row):
            part = slice(group * grouping.size, (group + 1) * grouping.size)
            codes[part] = self.codes[group].gather(1, positions[part].T).T
        return self.table[codes].permute(1, 2, 0).contiguous()


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
