"""The layout of the paper's Figure 2: a small matrix quantised by binary coding with 1, 2 and 3 bits, computed here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from alphatune.pages.style import save, style
from alphatune.quant import bcq

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

# Numbers of our own: the paper's do not matter to what the figure shows.
EXAMPLE = ((0.9, -0.3, 0.4, -0.8), (-0.2, 0.7, 0.1, -0.5), (0.3, -0.6, -1.1, 0.2), (0.5, 0.1, -0.4, 0.8))
_POSITIVE, _NEGATIVE = "#4477AA", "#EE6677"
_WIDE, _NARROW, _HIGH = 1.4, 0.72, 0.8  # cells of numbers, cells of signs, height of both
_SIDE = len(EXAMPLE)
_ROW = _SIDE * _HIGH + 1.7  # from one q to the next


def bcq_example(stem: Path) -> list[Path]:
    """W, and for q = 1, 2, 3 its factors alpha_i and B_i of greedy binary coding, one scale per row, with the error."""
    bits = (1, 2, 3)
    with style():
        figure = Figure(figsize=(12, 6.2))
        axis = figure.add_axes((0.01, 0.0, 0.98, 0.95))
        axis.set_axis_off()
        axis.set_aspect("equal")
        start = _SIDE * _WIDE + 1.6
        term = _WIDE + 0.35 + _SIDE * _NARROW + 0.95
        result = start + term * len(bits)
        middle = _ROW * (len(bits) - 1) / 2
        _matrix(axis, 0, middle, _texts(EXAMPLE, 2), EXAMPLE, _WIDE, "$W$")
        for row, q in enumerate(bits):
            alpha, signs, restored, error = example(q)
            top = row * _ROW
            centre = top + _SIDE * _HIGH / 2
            axis.text(start - 0.55, centre, "≈", ha="center", va="center", fontsize=13)
            for i in range(q):
                x = start + i * term
                column = [[a] for a in alpha[:, i].tolist()]
                _matrix(axis, x, top, _texts(column, 3), column, _WIDE, rf"$\alpha_{i + 1}$")
                codes = (signs[:, i].float() * 2 - 1).tolist()
                plus_minus = [["+1" if v > 0 else "−1" for v in line] for line in codes]
                _matrix(axis, x + _WIDE + 0.35, top, plus_minus, codes, _NARROW, f"$B_{i + 1}$")
                if i + 1 < q:
                    axis.text(x + term - 0.47, centre, "+", ha="center", va="center", fontsize=13)
            axis.text(result - 0.47, centre, "=", ha="center", va="center", fontsize=13)
            _matrix(axis, result, top, _texts(restored.tolist(), 3), restored.tolist(), _WIDE, r"$\hat{W}$")
            axis.text(result + _SIDE * _WIDE + 0.4, centre, f"q = {q}\nMSE {error:.4f}", va="center", fontsize=10)
        axis.set_xlim(-0.3, result + _SIDE * _WIDE + 3.6)
        axis.set_ylim(_ROW * len(bits) - 1.2, -1.2)
        figure.suptitle(
            "Greedy binary coding of a 4 × 4 matrix (numbers of our own), one scale per row and bit (g = 4):"
            " row r of $B_i$ is scaled by entry r of $\\alpha_i$",
            fontsize=11,
            y=0.97,
        )
        return save(figure, stem)


def example(bits: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The example quantised: alpha [4, q], signs [4, q, 4], the matrix restored from them, its mean squared error."""
    weights = torch.tensor(EXAMPLE)
    alpha, signs, *_ = bcq.greedy(weights, bits)
    restored = bcq.reconstruct(alpha, signs)
    return alpha, signs, restored, float((weights - restored).square().mean())


def _texts(values: Sequence[Sequence[float]], digits: int) -> list[list[str]]:
    return [[f"{v:.{digits}f}".replace("-", "−") for v in line] for line in values]


def _matrix(
    axis: Axes,
    left: float,
    top: float,
    texts: list[list[str]],
    values: Sequence[Sequence[float]],
    width: float,
    name: str,
) -> None:
    """A matrix as tinted cells: blue above zero, red below, stronger the larger; the signs are printed too."""
    columns = len(texts[0])
    for r, (line, numbers) in enumerate(zip(texts, values, strict=True)):
        for c, (text, number) in enumerate(zip(line, numbers, strict=True)):
            colour = _POSITIVE if number >= 0 else _NEGATIVE
            place = (left + c * width, top + r * _HIGH)
            axis.add_patch(Rectangle(place, width, _HIGH, facecolor=colour, alpha=0.06 + 0.3 * min(1.0, abs(number)),
                                     linewidth=0))  # fmt: skip
            axis.text(place[0] + width / 2, place[1] + _HIGH / 2, text, ha="center", va="center", fontsize=8)
    axis.add_patch(Rectangle((left, top), columns * width, len(texts) * _HIGH, fill=False, edgecolor="#555555",
                             linewidth=0.8))  # fmt: skip
    axis.text(left + columns * width / 2, top - 0.2, name, ha="center", va="bottom", fontsize=10)
