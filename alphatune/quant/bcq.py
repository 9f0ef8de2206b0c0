"""Binary-coding quantisation: w ~ sum_i alpha_i b_i with b_i in {-1, +1} (AlphaTuning, Eq. 1 and 5-8).

Pure tensor functions. A weight matrix arrives here as rows of `vectors` [n, g]: each row shares one set of q scales.
How a matrix is cut into such vectors is `grouping.py`, how signs are stored is `packing.py`.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor


class Fit(NamedTuple):
    """What a solver found for each of n vectors of g weights."""

    alpha: Tensor  # [n, q] float32, none negative
    signs: Tensor  # [n, q, g] bool, True for +1
    offset: Tensor | None  # [n] float32
    error: Tensor  # [n] float32: the (weighted) squared error


def greedy(vectors: Tensor, bits: int) -> Fit:
    """Eq. 5-7: plane i is the sign of what planes before it left over, alpha_i the mean of its magnitude.

    sign(0) is +1; the paper leaves it open. The scales keep the order of the equations, which sparse vectors can turn
    round: a later one can be larger.
    """
    residual = vectors + 0.0  # a copy in which no zero is negative: the sign bit then is the sign
    alpha = vectors.new_empty(vectors.shape[0], bits)
    signs = torch.empty(vectors.shape[0], bits, vectors.shape[1], dtype=torch.bool, device=vectors.device)
    room = torch.empty_like(residual)
    for i in range(bits):
        torch.ge(residual, 0, out=signs[:, i])
        alpha[:, i] = torch.abs(residual, out=room).mean(dim=1)
        residual -= torch.copysign(alpha[:, i, None], residual, out=room)
    return Fit(alpha, signs, None, residual.square_().sum(dim=1))


def greedy_with_offset(vectors: Tensor, bits: int) -> Fit:
    """The greedy codes of what is left when the mean, which becomes the offset, is taken away. Not in the paper."""
    centre = vectors.mean(dim=1)
    return greedy(vectors - centre[:, None], bits)._replace(offset=centre)


def normal_solution(gram: Tensor, moment: Tensor, tolerance: float | None = None) -> Tensor:
    """The solution of least norm of the normal equations gram t = moment: [n, k, k], [n, k, m] -> [n, k, m], float64.

    Cholesky, and the pseudo-inverse for the systems that are singular. `tolerance` says from which pivot, relative to
    the largest diagonal entry, a gram counts as singular; without it, that of one whose entries are exact.
    """
    factor, fault = torch.linalg.cholesky_ex(gram)
    pivots = factor.diagonal(dim1=1, dim2=2).square().amin(dim=1)
    regular = (fault == 0) & (pivots > (tolerance or 1e-9) * gram.diagonal(dim1=1, dim2=2).amax(dim=1))
    solution = torch.cholesky_solve(moment, factor)
    if not bool(regular.all()):
        singular = ~regular
        solution[singular] = torch.linalg.pinv(gram[singular], rtol=tolerance, hermitian=True) @ moment[singular]
    return solution


def least_squares(gram: Tensor, moment: Tensor, tolerance: float) -> Tensor:
    """The solution [k, n] of n small systems, gram [k, k, n] and moment [k, n]; that of least norm where singular.

    Elimination of all systems at once, with the diagonals brought to 1: k is at most 9 and n large.
    """
    k = len(gram)
    scale = gram.diagonal().T.clamp(min=1e-300).rsqrt()  # [k, n]
    left, right = gram * scale[:, None] * scale, moment * scale
    singular = torch.zeros(gram.shape[2], dtype=torch.bool, device=gram.device)
    for j in range(k):
        singular |= ~(left[j, j] > tolerance)
        factor = left[j + 1 :, j] / left[j, j]
        left[j + 1 :, j:] -= factor[:, None] * left[j, j:]
        right[j + 1 :] -= factor * right[j]
    for j in reversed(range(k)):
        for i in range(j + 1, k):  # one after another: a sum whose order is stated
            right[j] -= left[j, i] * right[i]
        right[j] /= left[j, j]
    solution = scale * right
    if bool(singular.any()):
        # filled up with zeros to 8 or 16 unknowns: in memory all systems then lie alike, on which last bits depend
        systems = torch.nn.functional.pad(gram[:, :, singular], (0, 0, 0, -k % 8, 0, -k % 8)).permute(2, 0, 1)
        targets = torch.nn.functional.pad(moment[:, singular], (0, 0, 0, -k % 8)).T[:, :, None]
        solution[:, singular] = _least_norm(systems, targets, tolerance)[:, :k, 0].T
    return solution


def _least_norm(gram: Tensor, moment: Tensor, tolerance: float) -> Tensor:
    """The pseudo-inverse times `moment`, summed up one by one: products of matrices differ with how many there are."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > tolerance * values[:, -1:]
    solution = torch.zeros_like(moment)
    for i in range(gram.shape[1]):
        vector, share = vectors[:, :, i, None], torch.zeros_like(moment[:, :1])
        for j in range(gram.shape[1]):
            share += vector[:, j : j + 1] * moment[:, j : j + 1]
        solution += torch.where(kept[:, i, None, None], vector * (share / values[:, i, None, None]), 0.0)
    return solution


def optimal(vectors: Tensor, bits: int) -> Fit:
    """The global optimum of the squared error for one or two bits, in O(g log g).

    One bit is Eq. 5. Two bits give the values +-(alpha_1 + alpha_2) and +-(alpha_1 - alpha_2): two magnitudes with
    free signs, so the problem is 2-means on |w| in one dimension, whose clusters are intervals of the sorted |w|.
    Prefix sums give the error of every split.
    """
    if bits == 1:
        return greedy(vectors, 1)
    if bits != 2:
        raise ValueError(f"solver=optimal: exact only for 1 and 2 bits, not {bits}")
    magnitude, order = vectors.abs().sort(dim=1)
    g = vectors.shape[1]
    prefix = magnitude.double().cumsum(dim=1)  # [n, g]
    total = prefix[:, -1:]
    size = torch.arange(1, g + 1, device=vectors.device, dtype=torch.float64)  # of the low cluster
    # within-cluster error = sum |w|^2 - gain, gain = (cluster sum)^2 / (cluster size) added over both clusters
    high_size = (g - size).clamp(min=1)
    gain = prefix**2 / size + (total - prefix) ** 2 / high_size
    split = gain.argmax(dim=1)  # index of the last member of the low cluster
    low_sum = prefix.gather(1, split[:, None])[:, 0]
    low = low_sum / (split + 1)
    high = torch.where(split + 1 < g, (total[:, 0] - low_sum) / (g - split - 1).clamp(min=1), low)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(g, device=vectors.device).expand_as(order))
    first = vectors >= 0
    second = torch.where(rank > split[:, None], first, ~first)  # the low cluster is alpha_1 - alpha_2
    alpha = torch.stack([(high + low) / 2, (high - low) / 2], dim=1).to(vectors.dtype)
    signs = torch.stack([first, second], dim=1)
    return Fit(alpha, signs, None, squared_error(vectors, alpha, signs))


def reconstruct(alpha: Tensor, signs: Tensor) -> Tensor:
    """sum_i alpha_i b_i: [n, q], [n, q, g] -> [n, g]."""
    return torch.einsum("nq,nqg->ng", alpha, _plus_minus(signs, alpha.dtype))


def squared_error(vectors: Tensor, alpha: Tensor, signs: Tensor) -> Tensor:
    """||w - sum_i alpha_i b_i||^2 of each vector: [n]."""
    return (vectors - reconstruct(alpha, signs)).square().sum(dim=1)


def code_table(bits: int, device: torch.device | str = "cpu") -> Tensor:
    """All codes: [2^bits, bits] bool, counting up with the last plane as the lowest digit."""
    return torch.tensor(list(itertools.product((False, True), repeat=bits)), device=device)


def _plus_minus(signs: Tensor, dtype: torch.dtype) -> Tensor:
    return signs.to(dtype) * 2 - 1
