"""A finished table as text: markdown, LaTeX, CSV."""

from __future__ import annotations

from alphatune.render_csv import csv
from alphatune.render_latex import latex
from alphatune.render_markdown import markdown

__all__ = ["csv", "latex", "markdown"]
