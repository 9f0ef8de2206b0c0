"""From a weight matrix to packed codes and scales, by the solver that the settings name, in bounded memory.

Rows are solved a piece at a time; what a solver does with one piece is in `bcq.py`, `uniform.py`, `alternating.py` and
`calibrated.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alphatune.errors import UserError
from alphatune.quant import bcq, calibrated, packing, uniform
from alphatune.quant.alternating import alternating
from alphatune.quant.bcq import Fit
from alphatune.quant.curvature import Curvature, output_error
from alphatune.quant.grouping import Grouping
from alphatune.settings import BCQConfig, Quantization, UniformConfig

_CACHED = 2**17  # weights: what is done to them stays in a CPU's cache
_LEAST_ROOM, _MOST_ROOM = 24 * 10**6, 96 * 10**6  # bytes


@dataclass(frozen=True)
class Solved:
    """A quantised matrix, and its errors relative to the weights and to the outputs."""

    qweight: Tensor  # int32 [ceil(in/32), q, out]
    alpha: Tensor  # float32 [G, q, R]
    offset: Tensor | None  # float32 [G, R]
    mse: float  # mean squared error per weight
    relative_error: float  # ||W - W_q|| / ||W||
    output_error: float | None  # ||X (W - W_q)^T|| / ||X W^T||, where the second moments of X are known


def check_span(grouping: Grouping, config: Quantization) -> None:
    """Refuse what the solvers cannot do, before the work starts.

    Raises:
        UserError: the solver solves rows apart, but a group spans several.
    """
    if isinstance(config, BCQConfig) and config.solver in ("hessian", "gptq") and grouping.span > 1:
        raise UserError(
            f"solver={config.solver}: group_size={grouping.size} spans several rows of {grouping.columns} weights, "
            f"but rows are solved apart; use at most {grouping.columns}, or solver=weighted"
        )


def _rows_at_once(weight: Tensor, config: Quantization, grouping: Grouping) -> int:
    """Rows solved at once, about the same number every time; temporaries stay below the layer's own bytes, or 24 MB."""
    bits, unit = config.bits, grouping.columns * grouping.span
    if weight.stride(1) != 1:
        # Conv1D stores the transpose. There torch adds a row up in an order that depends on how many rows there are:
        # the last digits of stored scales are those of this many.
        return max(1, min(2**18, max(2**14, weight.numel() // (8 * bits + 24))) // unit) * grouping.span
    if (
        isinstance(config, BCQConfig) and config.solver == "alternating"
    ):  # few large steps: it works on whole rows' sums
        each = 20 + 3 * bits + 400 * 2**bits // grouping.size  # bytes a weight
        most = min(max(4 * weight.numel(), _LEAST_ROOM), _MOST_ROOM) // each
    else:
        most = _CACHED
    pieces = -(-weight.numel() // max(most, unit))
    return -(-grouping.rows // (pieces * grouping.span)) * grouping.span


def solve_matrix(
    weight: Tensor, config: Quantization, grouping: Grouping, curvature: Curvature | None = None
) -> Solved:
    """Codes and scales of a matrix [out, in].

    The `curvature` is that of the layer's inputs; solvers that need it are given it, others are not.
    """
    offset = config.has_offset
    words, (groups, shared) = -(-grouping.columns // packing.WORD), grouping.scales_shape
    # allocated first and filled in place: small results kept between large temporaries would fragment the heap
    packed = torch.empty(words, config.bits, grouping.rows, dtype=torch.int32, device=weight.device)
    scales = torch.empty(groups, config.bits + offset, shared, device=weight.device)  # the offset comes last
    errors, step = _Errors(), _rows_at_once(weight, config, grouping)
    if curvature is not None and grouping.span == 1:  # larger pieces: every step multiplies them by [in, in] matrices
        step = calibrated.rows_at_once(grouping, config.bits + offset)
    for start in range(0, grouping.rows, step):
        rows = weight[start : start + step].float()
        part = Grouping(rows.shape[0], grouping.columns, grouping.size)
        signs, by_group, error = _solve(rows, part, config, curvature)
        if curvature is None:
            errors.add(rows, error or 0.0)
        else:
            errors.add_output(rows, calibrated.rebuild(signs, by_group, part), curvature, error)
        packed[:, :, start : start + step] = packing.pack(signs)
        first = start // grouping.span
        scales[:, :, first : first + by_group.shape[2]] = by_group
    return Solved(
        packed,
        alpha=scales[:, : config.bits].contiguous(),
        offset=scales[:, config.bits].contiguous() if offset else None,
        mse=errors.weight / weight.numel(),
        relative_error=_root_of_ratio(errors.weight, errors.weight_power),
        output_error=None if curvature is None else _root_of_ratio(errors.output, errors.output_power),
    )


def _solve(
    rows: Tensor, part: Grouping, config: Quantization, curvature: Curvature | None
) -> tuple[Tensor, Tensor, float | None]:
    """Signs [n, q, in] and scales [G, k, R] of some rows, k = q + 1 with the offset last; and the squared error.

    With a curvature the error is that of the output, damping included, or None where it is not known.
    """
    vectors = part.vectors(rows)
    weights: list[Tensor] | list[None] = [None] * len(vectors)
    if curvature is not None:
        weights = part.vectors(curvature.diagonal.expand(rows.shape))
    fits = [solve_vectors(piece, config, weight) for piece, weight in zip(vectors, weights, strict=True)]
    scales = [f.alpha if f.offset is None else torch.cat([f.alpha, f.offset[:, None]], dim=1) for f in fits]
    whole, by_group = part.from_vectors([f.signs for f in fits], scales)
    if curvature is None:
        return whole, by_group, sum(float(f.error.double().sum()) for f in fits)
    if not isinstance(config, BCQConfig) or config.solver == "weighted":
        return whole, by_group, None
    whole, by_group, error = calibrated.refine(rows, whole, by_group, part, curvature, config.solver, config.rounds)
    return whole, by_group, float(error.double().sum())


def solve_vectors(vectors: Tensor, config: Quantization, weights: Tensor | None = None) -> Fit:
    """Codes and scales of each row of `vectors` [n, g], any float dtype; the maths is float32 or better.

    `weights` [n, g] are those of the errors; with them, what the calibrated solvers start from.

    Raises:
        ValueError: a calibrated solver without weights.
    """
    vectors = vectors.float()
    if isinstance(config, UniformConfig):
        step, zero, codes = uniform.search(vectors, config.bits)
        error = (vectors - step[:, None] * (codes - zero[:, None])).square_().sum(dim=1)
        return Fit(*uniform.as_binary(step, zero, codes, config.bits), error)
    if weights is not None or config.solver == "alternating":
        return alternating(vectors, config.bits, config.iterations, weights, config.offset, config.start)
    if config.solver == "greedy":
        return (bcq.greedy_with_offset if config.offset else bcq.greedy)(vectors, config.bits)
    if config.solver == "optimal":
        return bcq.optimal(vectors, config.bits)
    raise ValueError(f"solver={config.solver}: looks at the layers' inputs, not at the weights alone")


@dataclass
class _Errors:
    """Squared norms, summed over the rows done so far."""

    weight: float = 0.0  # ||W - W_q||^2
    weight_power: float = 0.0  # ||W||^2
    output: float = 0.0  # ||X (W - W_q)^T||^2 / T
    output_power: float = 0.0

    def add(self, rows: Tensor, error: float) -> None:
        self.weight += error
        self.weight_power += float(rows.square().sum())

    def add_output(self, rows: Tensor, rebuilt: Tensor, curvature: Curvature, damped: float | None) -> None:
        difference = rows - rebuilt
        lost = float(difference.square().sum())
        self.add(rows, lost)
        if damped is None:
            self.output += float(output_error(difference, curvature.moments).sum())
        else:
            self.output += damped - curvature.damping * lost
        self.output_power += float(output_error(rows, curvature.moments).sum())


def _root_of_ratio(part: float, whole: float) -> float:
    return (max(part, 0.0) / whole) ** 0.5 if whole > 0 else 0.0
