"""A finished table as text: markdown, LaTeX, CSV."""

from __future__ import annotations

from alphatune.pages.csv import csv
from alphatune.pages.latex import latex
from alphatune.pages.markdown import markdown

__all__ = ["csv", "latex", "markdown"]
