"""What a layer's inputs say about the cost of an error in its weights: H = X^T X / T, damped, and its factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_STRIPE = 192  # columns of a triangular or symmetric matrix multiplied at once: the rest is zero or known
_LEAF = 192  # a triangular matrix of this size is inverted as a whole


@dataclass(frozen=True)
class Curvature:
    """H plus the damping, [in, in] float32, and what is computed from it when it is first asked for.

    `moments` are H without the damping.
    """

    moments: Tensor
    damping: float  # the number on the diagonal

    @classmethod
    def of(cls, moments: Tensor, damping: float) -> Curvature:
        """From the second moments of the inputs; `damping` times the mean of their diagonal is added to it.

        The damping stands for errors on inputs that the calibration texts do not show: without it, weights on inputs
        that are always 0 there would be free. Inputs that are 0 altogether give the identity.
        """
        mean = float(moments.diagonal().mean())
        return cls(moments, damping * mean if mean > 0 else 1.0)

    @cached_property
    def hessian(self) -> Tensor:
        """H and the damping, [in, in] float32."""
        return self._exact().float()

    @cached_property
    def diagonal(self) -> Tensor:
        """Its diagonal, [in] float32."""
        return (self.moments.diagonal().double() + self.damping).float()

    @cached_property
    def order(self) -> Tensor:
        """Columns by falling H_jj: int64 [in]."""
        return (self.moments.diagonal().double() + self.damping).argsort(descending=True, stable=True)

    @cached_property
    def factor(self) -> Tensor:
        """The upper triangular R with R R^T = H in that order: e H e^T is the squared norm of e R. Float32."""
        return self._factors[0]

    @cached_property
    def upper(self) -> Tensor:
        """U = R^-1, so U^T U = H^-1 in that order: what GPTQ's feedback goes by. Float32."""
        return self._factors[1]

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        # the Cholesky factor of the matrix read backwards
        backwards = self.order.flip(0)
        exact = self._exact()[backwards][:, backwards]
        factor = torch.linalg.cholesky(exact).flip(0, 1)
        return factor.float(), _inverse(factor).float()

    def _exact(self) -> Tensor:
        exact = self.moments.double()
        exact.diagonal().add_(self.damping)
        return exact


def output_error(difference: Tensor, hessian: Tensor) -> Tensor:
    """e H e^T of each row e of `difference` [n, in]: its share of ||X (W - W_q)^T||^2 / T. Shape [n]."""
    error = difference.new_zeros(len(difference))
    for stripe, rest in _stripes(hessian):
        pushed = difference[:, stripe] @ rest
        error += 2 * torch.linalg.vecdot(pushed, difference[:, stripe.start :])
    return error


def times_factor(factor: Tensor, columns: Tensor) -> Tensor:
    """R^T V for the upper triangular R [in, in] and V [in, ...], whose columns are rows of weights: [in, ...]."""
    product, flat = torch.empty_like(columns), columns.flatten(1)
    for start in range(0, len(factor), _STRIPE):
        stop = min(start + _STRIPE, len(factor))
        torch.mm(factor[:stop, start:stop].T, flat[:stop], out=product.flatten(1)[start:stop])
    return product


def _stripes(hessian: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of H from their own columns on, its diagonal blocks halved: twice their products with both sides make
    those with H, for half the work."""
    for start in range(0, len(hessian), _STRIPE):
        stripe = slice(start, min(start + _STRIPE, len(hessian)))
        rest = hessian[stripe, start:].clone()
        rest[:, : stripe.stop - start] /= 2
        yield stripe, rest


def _inverse(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix, by halves: products of matrices are what a CPU is fastest at."""
    size = len(upper)
    if size <= _LEAF:
        return torch.linalg.solve_triangular(upper, torch.eye(size, dtype=upper.dtype, device=upper.device), upper=True)
    half = size // 2
    inverse = torch.zeros_like(upper)
    first, last = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    inverse[:half, :half], inverse[half:, half:] = first, last
    torch.mm(first @ upper[:half, half:], last, out=inverse[:half, half:]).neg_()
    return inverse
