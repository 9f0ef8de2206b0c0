"""A finished table as CSV in long format: one line per cell, for further calculation."""

from __future__ import annotations

import csv as _csv
import io
import re

from alphatune.tables.grid import MARKS, Grid, GridCell, Line

HEAD = [
    "table", "row", "group", "label", "column", "ours_mean", "ours_ci95", "n", "of", "paper_mean", "paper_ci95",
    "difference", "overlap", "marks", "substitute", "paper_source", "paper_quotes", "note", "records",
]  # fmt: skip


def csv(grid: Grid) -> str:
    """One line per cell. Several marks, notes or record files are separated by "; ".

    Numbers are unrounded; where a cell has no number, its text stands in its place.
    """
    out = io.StringIO()
    writer = _csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for line in grid.lines:
        for column, cell in zip(grid.columns, line.cells, strict=True):
            writer.writerow(["" if value is None else _plain(value) for value in _values(grid, line, column, cell)])
    return out.getvalue()


def _plain(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers."""
    formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r")
    return f"'{value}" if formula and not re.fullmatch(r"[+-]?[\d.]*(e[+-]?\d+)?( ?%)?", str(value)) else value


def _values(grid: Grid, line: Line, column: str, cell: GridCell) -> list[object]:
    marks = [mark for mark in MARKS if mark in line.marks or mark in cell.marks]
    notes = [" ".join(note.split()) for note in (line.note, cell.note) if note]
    published = bool(cell.paper) or cell.paper_mean is not None
    return [
        grid.name, line.id, line.group, line.label, column,
        cell.ours if cell.mean is None else cell.mean, cell.ci95, cell.n, None if cell.n is None else line.of,
        cell.paper if cell.paper_mean is None else cell.paper_mean, cell.paper_ci95, cell.difference, cell.overlap,
        "; ".join(marks), grid.substitute, grid.source if published else "", line.quoted_from, "; ".join(notes),
        "; ".join(cell.records),
    ]  # fmt: skip
