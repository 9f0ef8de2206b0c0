"""Binary codes with an offset and weighted errors: w ~ sum_i alpha_i b_i + beta, least sum_j d_j (w - w_q)_j^2.

Not in the paper. Weights d come from calibration inputs (d_j = mean x_j^2: `calibrated.py`); without them all are 1.
Pure tensor functions over rows of `vectors` [n, g], as in `bcq.py`; scales and offset are solved jointly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alphatune.quant import bcq
from alphatune.quant.bcq import Fit


def greedy(vectors: Tensor, bits: int) -> Fit:
    """The greedy codes of Eq. 6-7 of what is left when the mean, which becomes the offset, is taken away."""
    centre = vectors.mean(dim=1)
    return bcq.greedy(vectors - centre[:, None], bits)._replace(offset=centre)


def best_scales(vectors: Tensor, signs: Tensor, weights: Tensor | None = None, offset: bool = False) -> Tensor:
    """The weighted least-squares scales [n, q] for fixed codes, with the offset as a last column [n, q + 1].

    Eq. 8 with the weights and a plane of ones; singular systems get the solution of least norm.
    """
    planes = with_ones(signs, offset)
    scaled = planes if weights is None else planes * weights[:, None]
    gram = (scaled @ planes.transpose(1, 2)).double()
    moment = (scaled @ vectors[:, :, None]).double()
    return rounded_solution(gram, moment)[:, :, 0].to(vectors.dtype)


def weighted_error(
    vectors: Tensor, alpha: Tensor, signs: Tensor, offset: Tensor | None, weights: Tensor | None
) -> Tensor:
    """sum_j d_j (w - sum_i alpha_i b_i - beta)_j^2 of each vector: [n]."""
    difference = vectors - bcq.reconstruct(alpha, signs)
    if offset is not None:
        difference -= offset[:, None]
    square = difference.square_()
    return (square if weights is None else square * weights).sum(dim=1)


def rounded_solution(gram: Tensor, moment: Tensor) -> Tensor:
    """`bcq.normal_solution` for systems that were computed in float32 and whose unknowns may differ in scale.

    The diagonal is brought to 1 first. What is left of a singular system after float32 rounding is then about 1e-7.
    """
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()[:, :, None]  # [n, k, 1]
    return scale * bcq.normal_solution(scale * gram * scale.transpose(1, 2), scale * moment, tolerance=1e-6)


def with_ones(signs: Tensor, ones: bool) -> Tensor:
    """The planes as -1.0 and +1.0, and a plane of ones at the end for the offset: [n, q, g] -> [n, q (+ 1), g]."""
    planes = signs.float() * 2 - 1
    return torch.nn.functional.pad(planes, (0, 0, 0, 1), value=1.0) if ones else planes
