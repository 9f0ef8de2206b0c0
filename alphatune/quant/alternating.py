"""Codes and scales in turn (Eq. 8 and Appendix C), on rows that are sorted once.

Weights with the same nearest value lie side by side in the sorted row: a code is an interval, and all that an iteration
needs to know of its weights is their number and sum, which are differences of prefix sums. It costs 2^q log g per row
instead of q g, and the signs are written down once, at the end. Sums and errors are float64.

Rows of `vectors` [n, g] are solved apart. Weights of the errors (`calibrated.py`) and an offset, which
the paper does not have, are optional.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alphatune.native.presence import fast
from alphatune.quant import bcq, uniform
from alphatune.quant.bcq import Fit

_FEW = 4  # bits up to which machine code iterates
_TINY = 1e-300
_COMPACT = 0.5  # rows that are done are put away when fewer than this share still improve


def alternating(
    vectors: Tensor,
    bits: int,
    iterations: int,
    weights: Tensor | None = None,
    offset: bool = False,
    start: str = "greedy",
    trace: Callable[[Tensor], None] | None = None,
) -> Fit:
    """From a start, `iterations` times: best scales (and offset) for the codes, then nearest codes for them.

    The nearest code is the best one under any weights, so each step is exact and the error of a vector cannot rise. A
    vector that does not improve never will again, and keeps what it has.

    Args:
        vectors: [n, g], any float dtype; the scales are float32.
        weights: [n, g], none negative; None: all 1.
        offset: whether a constant is added to the sum of planes.
        start: "greedy" (Eq. 6-7), "uniform" (`uniform.search`; without `offset` `uniform.symmetric`), or "best": for
            each vector whichever of the two ends with the smaller error.
        trace: receives the weighted squared errors [n] after every iteration, those of one start after the other's.

    Returns:
        alpha not negative, largest first (as the start has them where nothing was better), and the weighted errors.
    """
    vectors = vectors.float().contiguous()
    rows = _Rows.of(vectors, weights)
    end: _State | None = None
    for begin in {"greedy": (_greedy,), "uniform": (_uniform,), "best": (_greedy, _uniform)}[start]:
        other = _iterate(rows, begin(rows, bits, offset), iterations, offset, trace)
        end = other if end is None else other.where(other.error < end.error, end)
    assert end is not None
    return Fit(end.alpha, _signs(vectors, rows, end), end.centre if offset else None, end.error.float())


class _Rows(NamedTuple):
    """Sorted rows, with the prefix sums that give the weight and the sum of any interval."""

    values: Tensor  # [n, g] float32, rising
    sums: Tensor  # [n, g + 1] float64, of the values
    mass: Tensor | None  # [n, g + 1] float64, of the weights; None: all are 1
    moment: Tensor | None  # [n, g + 1] float64, of weights times values; None: the sums
    energy: Tensor  # [n] float64: sum of weights times squares

    @classmethod
    def of(cls, vectors: Tensor, weights: Tensor | None) -> _Rows:
        if weights is None:
            values = _sort(vectors)
            energy = [torch.linalg.vecdot(part, part) for part in map(Tensor.double, values.split(_rows_of(values)))]
            return cls(values, _prefix(values), None, None, torch.cat(energy))
        order = _argsort(vectors)
        values, given = vectors.gather(1, order), weights.gather(1, order)
        products = given.double() * values
        return cls(values, _prefix(values), _prefix(given), _prefix(products), (products * values).sum(dim=1))

    def between(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and weighted sum of the intervals that `edges` [n, L + 1] bound: [n, L] each."""
        mass = edges.double() if self.mass is None else self.mass.gather(1, edges)
        return mass.diff(dim=1), (self.sums if self.moment is None else self.moment).gather(1, edges).diff(dim=1)

    def take(self, kept: Tensor) -> _Rows:
        return _Rows(*(None if part is None else part[kept] for part in self))  # type: ignore[arg-type]


class _State(NamedTuple):
    """Scales and codes of some rows: the code with the number `order`[:, l] belongs to the l-th interval."""

    alpha: Tensor  # [n, q] float32
    centre: Tensor  # [n] float32: the offset, or 0
    order: Tensor  # [n, 2^q] int64
    edges: Tensor  # [n, 2^q + 1] int64: from 0 to g
    mass: Tensor  # [n, 2^q] float64, of the intervals
    moment: Tensor  # [n, 2^q] float64
    error: Tensor  # [n] float64

    @classmethod
    def of(cls, rows: _Rows, alpha: Tensor, centre: Tensor, values: Tensor, order: Tensor, edges: Tensor) -> _State:
        """With the error that the intervals have at their `values` [n, 2^q]."""
        mass, moment = rows.between(edges)
        values = values.double()
        error = rows.energy + _total(values * (values * mass - 2 * moment))
        return cls(alpha, centre, order, edges, mass, moment, error.clamp_(min=0))

    def where(self, condition: Tensor, other: _State) -> _State:
        """Itself in the rows where the condition [n] holds, the other elsewhere."""
        shaped = (condition.view(-1, *[1] * (part.ndim - 1)) for part in self)
        return _State(*map(torch.where, shaped, self, other))


def _iterate(
    rows: _Rows, state: _State, iterations: int, offset: bool, trace: Callable[[Tensor], None] | None
) -> _State:
    if not (rows.values.is_cpu and state.alpha.shape[1] <= _FEW and trace is None and fast()):
        return _by_torch(rows, state, iterations, offset, trace)
    from alphatune.quant.kernels import turns

    end = _State(*(part.clone(memory_format=torch.contiguous_format) for part in state))
    sums = rows.sums if rows.moment is None else rows.moment
    failed = turns.turns(rows.values, sums, rows.mass, rows.energy, end, offset, iterations)
    if not bool(failed.any()):
        return end
    again = _by_torch(rows.take(failed), _State(*(part[failed] for part in state)), iterations, offset, None)
    return _State(*(part.index_put((failed,), new) for part, new in zip(end, again, strict=True)))


def _by_torch(
    rows: _Rows, state: _State, iterations: int, offset: bool, trace: Callable[[Tensor], None] | None
) -> _State:
    whole, alive = state, torch.arange(len(state.error), device=state.error.device)
    for _ in range(iterations):
        new = _step(rows, state, offset)
        better = new.error < state.error
        improved = int(better.sum())
        if not improved:
            break  # a fixed point: more iterations change nothing
        state = new.where(better, state)
        if trace is not None:
            trace(whole.error.index_copy(0, alive, state.error))
        if improved < _COMPACT * len(better):
            whole = _State(*(part.index_copy(0, alive, new) for part, new in zip(whole, state, strict=True)))
            alive, rows, state = alive[better], rows.take(better), _State(*(part[better] for part in state))
    return _State(*(part.index_copy(0, alive, new) for part, new in zip(whole, state, strict=True)))


def _step(rows: _Rows, state: _State, offset: bool) -> _State:
    """The least-squares scales for the codes, and the nearest codes for those."""
    bits = state.alpha.shape[1]
    by_number = (torch.empty_like(part).scatter_(1, state.order, part) for part in (state.mass, state.moment))
    mass, moment = map(_signed_sums, by_number)
    planes = torch.tensor([1 << i for i in reversed(range(bits))] + [0] * offset, device=mass.device)
    total = mass[:, 0].clamp(min=_TINY)  # on the whole diagonal, as signs have the square 1: without it roots are of 1
    gram = (mass[:, planes[:, None] ^ planes] / total[:, None, None]).permute(1, 2, 0)
    # whole counts are exact, so only a gram that is singular has a pivot near 0; sums of weights are not
    solved = bcq.least_squares(gram, (moment[:, planes] / total[:, None]).T, 1e-9 if rows.mass is None else 1e-6)
    alpha = solved[:bits].T.abs().float().sort(dim=1, descending=True).values  # the same set of values
    centre = solved[bits].float() if offset else state.centre
    levels, order = _levels(alpha).sort(dim=1, stable=True)
    values = levels + centre[:, None]
    middles = (levels[:, 1:] + levels[:, :-1]) / 2 + centre[:, None]
    edges = state.edges.clone()
    edges[:, 1:-1] = torch.searchsorted(rows.values, middles, right=True)  # a weight in the middle goes down
    return _State.of(rows, alpha, centre, values, order, edges)


# Sums of few numbers, in the order in which machine code adds them up, so that results do not depend on it.


def _signed_sums(values: Tensor) -> Tensor:
    """For every set of planes, a number whose digits say which: the sum of values [n, 2^q], one for each code, times
    the signs of these planes. [n, 2^q]."""
    step = values.shape[1] // 2
    while step:
        low, high = values.unflatten(1, (-1, 2, step)).unbind(dim=2)
        values, step = torch.stack([high + low, high - low], dim=2).flatten(1), step // 2
    return values


def _levels(alpha: Tensor) -> Tensor:
    """The sums of scales [n, q] with the signs of every code: [n, 2^q]."""
    levels = torch.stack([-alpha[:, 0], alpha[:, 0]], dim=1)
    for scale in alpha.T[1:, :, None]:
        levels = torch.stack([levels - scale, levels + scale], dim=2).flatten(1)
    return levels


def _total(values: Tensor) -> Tensor:
    """[n, 2^q] -> [n]."""
    while values.shape[1] > 1:
        low, high = values.chunk(2, dim=1)
        values = low + high
    return values[:, 0]


def _greedy(rows: _Rows, bits: int, offset: bool) -> _State:
    """Eq. 6-7 on intervals: every plane cuts each of them where the residual changes its sign.

    With an offset, of what is left when the (weighted) mean is taken away.
    """
    n, g = rows.values.shape
    centre = rows.values.new_zeros(n)
    if offset:
        mass, moment = (part[:, 0] for part in rows.between(_ends(rows)))
        centre = (moment / mass.clamp(min=torch.finfo(torch.float32).tiny)).float()
    values, edges = centre.double()[:, None], _ends(rows)
    alpha = rows.values.new_empty(n, bits)
    for i in range(bits):
        low, high = edges[:, :-1], edges[:, 1:]
        cut = torch.searchsorted(rows.values, _rounded_up(values))  # sign(0) is +1
        cut = torch.minimum(torch.maximum(cut, low), high)
        sums = [rows.sums.gather(1, part) for part in (low, cut, high)]
        spread = (sums[0] + sums[2] - 2 * sums[1]) - values * (low + high - 2 * cut)
        alpha[:, i] = spread.sum(dim=1).clamp(min=0) / g
        step = alpha[:, i, None].double()
        values = torch.stack([values - step, values + step], dim=2).flatten(1)
        edges = torch.cat([torch.stack([low, cut], dim=2).flatten(1), high[:, -1:]], dim=1)
    order = torch.arange(2**bits, device=edges.device).expand(n, -1)
    return _State.of(rows, alpha, centre, values, order, edges)


def _uniform(rows: _Rows, bits: int, offset: bool) -> _State:
    """The searched grid of equal steps: alpha_i = s 2^(q-1-i)."""
    step, zero, codes = (uniform.search if offset else uniform.symmetric)(rows.values, bits)
    powers = 2.0 ** (bits - 2 - torch.arange(bits, device=step.device))
    numbers = torch.arange(2**bits, device=step.device)
    edges = _ends(rows).repeat_interleave(torch.tensor([2**bits, 1], device=step.device), dim=1)
    edges[:, 1:-1] = torch.searchsorted(codes.int(), numbers[1:].int().expand(len(codes), -1).contiguous())
    values = step[:, None] * (numbers - zero[:, None])
    centre = values.mean(dim=1) if offset else torch.zeros_like(step)
    return _State.of(rows, step[:, None] * powers, centre, values, numbers.expand(len(codes), -1), edges)


def _signs(vectors: Tensor, rows: _Rows, state: _State) -> Tensor:
    """The codes [n, q, g] of the weights in their own order."""
    n, bits = state.alpha.shape
    signs = torch.empty(n, bits, vectors.shape[1], dtype=torch.bool, device=vectors.device)
    step = _rows_of(vectors)
    for start in range(0, n, step):
        part = slice(start, start + step)
        missing = (state.centre[part, None] - vectors[part]).add_(0.0)  # no zero is negative: it is told by its sign
        moved = torch.empty_like(missing)
        for i in range(bits):  # the nearest codes, if no scale is below the sum of those behind it
            torch.lt(missing, 0, out=signs[part, i])  # a weight in the middle goes down
            missing -= torch.copysign(state.alpha[part, i, None], missing, out=moved)
    behind = state.alpha.flip(1).cumsum(dim=1).flip(1) - state.alpha
    for part in (state.alpha < behind).any(dim=1).nonzero()[:, 0].split(step):
        values = torch.nn.functional.pad(rows.values[part], (1, 0), value=-torch.inf)
        bounds = values.gather(1, state.edges[part, 1:-1])  # the largest weight below each edge
        position = torch.searchsorted(bounds, vectors[part].contiguous())
        numbers = state.order[part].gather(1, position)
        planes = torch.arange(bits - 1, -1, -1, device=numbers.device)
        signs[part] = (numbers[:, None] >> planes[:, None] & 1).bool()
    return signs


def _rows_of(vectors: Tensor) -> int:
    """How many rows a CPU's cache holds."""
    return max(1, 2**16 // vectors.shape[1])


def _ends(rows: _Rows) -> Tensor:
    """The edges of one interval that holds everything: [n, 2]."""
    n, g = rows.values.shape
    return torch.tensor([0, g], device=rows.values.device).repeat(n, 1)


def _rounded_up(values: Tensor) -> Tensor:
    """The least float32 that is not below: a float32 is below the one if and only if it is below the other."""
    near = values.float()
    return torch.where(near < values, torch.nextafter(near, torch.full_like(near, torch.inf)), near).contiguous()


def _prefix(values: Tensor) -> Tensor:
    """[n, g] -> [n, g + 1] float64: the sums of the first 0, 1, ..., g."""
    sums = torch.zeros(len(values), values.shape[1] + 1, dtype=torch.float64, device=values.device)
    torch.cumsum(values, dim=1, dtype=torch.float64, out=sums[:, 1:])
    return sums


# On a CPU numpy sorts short rows eight times as fast as torch does.
def _sort(vectors: Tensor) -> Tensor:
    if vectors.device.type != "cpu":
        return vectors.sort(dim=1).values
    return torch.from_numpy(np.sort(vectors.numpy(), axis=1))


def _argsort(vectors: Tensor) -> Tensor:
    if vectors.device.type != "cpu":
        return vectors.argsort(dim=1)
    return torch.from_numpy(np.argsort(vectors.numpy(), axis=1))
