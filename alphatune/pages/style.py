"""The look of all figures, and how they are written: as PNG and SVG, the same bytes for the same numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphatune.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4477AA", "#EE6677", "#228833", "#B59B00", "#66CCEE", "#AA3377", "#888888", "#DD8452", "#8172B3", "#222222")
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 9,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "alphatune",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def titles(figure: Figure, title: str, subtitle: str = "") -> None:
    """Title above all, and what stands in for the published model and data under it; long ones are wrapped."""
    width = int(figure.get_figwidth() * 11)
    lines = textwrap.wrap(title, width)
    if subtitle and subtitle not in title:
        lines += textwrap.wrap(f"substitute: {subtitle}", width)
    figure.suptitle("\n".join(lines).replace("$", r"\$"), fontsize=11)  # a title is text, not mathematics


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write <stem>.png and <stem>.svg without dates or versions, so that equal figures are equal files.

    Raises:
        UserError: they cannot be written.
    """
    png, svg = (stem.with_name(stem.name + ending) for ending in (".png", ".svg"))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    except OSError as error:
        raise UserError(f"{png}: cannot be written: {error.strerror or error}") from error
    return [png, svg]
