"""What every format of a table shares: which lines a row has, which marks and notes stand where, what explains them.

A row of a table without published values is one line. With them it is up to three: ours, the paper's, the difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from alphatune.tables.grid import MARKS, Grid, GridCell, Line

LETTERS = dict(zip(MARKS, "abcdefghijkl", strict=False))  # the same letter in every table
OF_PAPER = {"quoted", "doubtful"}  # these speak of the paper's number, the others of ours
SIGNS = {"overlap": "≈", "apart": "≠"}
ABSENT = "-"
_NAME = 40  # characters of a substitute in a row


@dataclass(frozen=True)
class Piece:
    """A text with its marks (letters of `LETTERS`) and numbers of notes."""

    text: str
    marks: str = ""
    notes: tuple[int, ...] = ()
    cell: GridCell | None = None


@dataclass(frozen=True)
class GridRow:
    """One printed line. `kind`: group, ours, paper or difference."""

    kind: str
    line: Line | None
    label: Piece
    whose: Piece = Piece("")
    cells: tuple[Piece, ...] = ()
    n: str = ""


@dataclass
class Layout:
    """A table in printed lines, and what a reader needs to read them."""

    title: str
    rows: list[GridRow] = field(default_factory=list)
    whose: bool = False  # whether a column says whose numbers a line shows
    counted: bool = False  # whether a column says how many runs there are
    explained: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # letter, meaning; those that occur
    notes: list[str] = field(default_factory=list)  # numbered from 1


def lay_out(grid: Grid) -> Layout:
    """The printed lines of a table with its marks, notes and explanations."""
    layout = Layout(title_of(grid), whose=bool(grid.source or grid.substitute))
    layout.counted = any(line.n is not None for line in grid.lines)
    group = ""
    for line in grid.lines:
        if line.group != group and line.group:
            layout.rows.append(GridRow("group", None, Piece(line.group)))
        group = line.group
        layout.rows += _rows(grid, line, layout.notes)
    layout.legend = [(LETTERS[mark], _meaning(mark, grid)) for mark in _occurring(grid)]
    layout.explained = list(_explained(grid))
    return layout


def title_of(grid: Grid) -> str:
    """The title, with what stands in for the published model and data."""
    if not grid.substitute or grid.substitute in grid.title:
        return grid.title
    return f"{grid.title} [substitute: {grid.substitute}]"


def _ours_name(grid: Grid) -> str:
    """What names our numbers in their line; the title has all of it.

    A substitute is named by what stands before its first comma or parenthesis, one that is a setting by the last part
    of a path.
    """
    first, *others = grid.substitute.split("; ")
    if "=" in first.split(" ")[0]:
        key, _, value = first.partition("=")
        short = f"{key}={value}" if "/" not in value else value.rstrip("/").rpartition("/")[2]
    else:
        short = re.split(r", | \(", first, maxsplit=1)[0]
    short = short if len(short) <= _NAME else f"{short[: _NAME - 3]}..."
    if others and short:
        short += f" and {len(others)} more"
    return f"ours, substitute {short}" if short else "ours"


def shown_alone(mark: str, line: Line) -> bool:
    """Whether a mark is to stand at the row's head instead of at each of its cells: all measured cells have it."""
    if mark in line.marks:
        return True
    measured = [cell for cell in line.cells if cell.n is not None]
    return mark not in OF_PAPER and bool(measured) and all(mark in cell.marks for cell in measured)


def _rows(grid: Grid, line: Line, notes: list[str]) -> Iterable[GridRow]:
    """One to three printed lines; the label stands on the first."""
    head = [mark for mark in MARKS if shown_alone(mark, line)]
    quoted = [f"Quoted by the paper from {line.quoted_from}."] if line.quoted_from else []
    papers = bool(grid.source) and any(cell.paper for cell in line.cells)
    ours = line.n is not None or any(cell.ours for cell in line.cells) or not papers
    first = _Label(line.label, _number([line.note] if line.note else [], notes))
    if ours:
        whose = Piece(_ours_name(grid), _letters(head, False))
        cells = tuple(_ours(cell, line) for cell in line.cells)
        n = "" if line.n is None else f"{line.n} of {line.of}"
        label = first.once()
        if not (grid.source or grid.substitute):  # no column says whose: the row's marks stand at its label
            label = Piece(label.text, whose.marks, label.notes)
        yield GridRow("ours", line, label, whose, cells, n or ABSENT)
    if papers:
        whose = Piece(_paper_name(grid), _letters(head, True), _number(quoted, notes))
        if not ours:
            whose = Piece(whose.text, _letters(head, False) + whose.marks, whose.notes)
        cells = tuple(_paper(cell, line, notes) for cell in line.cells)
        yield GridRow("paper", line, first.once(), whose, cells)
    if ours and papers and any(cell.difference for cell in line.cells):
        cells = tuple(Piece(cell.difference, cell=cell) for cell in line.cells)
        yield GridRow("difference", line, Piece(""), Piece("difference"), cells)


class _Label:
    """The label of a row, for its first printed line only."""

    def __init__(self, text: str, notes: tuple[int, ...]) -> None:
        self._piece = Piece(text, "", notes)

    def once(self) -> Piece:
        piece, self._piece = self._piece, Piece("")
        return piece


def _ours(cell: GridCell, line: Line) -> Piece:
    marks = [m for m in cell.marks if not shown_alone(m, line)]
    text = cell.ours or ABSENT
    if cell.ours and cell.n is not None and cell.n != line.n:
        text += f" (n={cell.n})"
    return Piece(text, _letters(marks, False), cell=cell)


def _paper(cell: GridCell, line: Line, notes: list[str]) -> Piece:
    if not cell.paper:
        return Piece("", cell=cell)
    marks = [m for m in cell.marks if not shown_alone(m, line)]
    return Piece(cell.paper, _letters(marks, True), _number([cell.note] if cell.note else [], notes), cell)


def _letters(marks: Iterable[str], of_paper: bool) -> str:
    return "".join(LETTERS[mark] for mark in MARKS if mark in marks and (mark in OF_PAPER) == of_paper)


def _number(texts: list[str], notes: list[str]) -> tuple[int, ...]:
    """The numbers of the notes; a new note is added, one that is there already keeps its number."""
    texts = [" ".join(text.split()) for text in texts]
    for text in texts:
        if text not in notes:
            notes.append(text)
    return tuple(notes.index(text) + 1 for text in texts)


def _occurring(grid: Grid) -> list[str]:
    found = {mark for line in grid.lines for cell in line.cells for mark in cell.marks}
    found |= {mark for line in grid.lines for mark in line.marks}
    return [mark for mark in MARKS if mark in found]


def _paper_name(grid: Grid) -> str:
    """What names the paper's numbers in their line; year and place in parentheses stand below the table only."""
    return f"paper ({re.sub(r' *[(][^()]*[)]', '', grid.source)})"


def _meaning(mark: str, grid: Grid) -> str:
    return f"{MARKS[mark]}: {grid.substitute}" if mark == "substitute" and grid.substitute else MARKS[mark]


def _explained(grid: Grid) -> Iterable[str]:
    cells = [cell for line in grid.lines for cell in line.cells]
    if any(cell.n is not None for cell in cells):
        yield "Ours: mean ± half width of the 95 % t-interval over the seeds done. n: seeds done of those asked for."
    if grid.source:
        means = f", ± being {grid.interval.strip().rstrip('.')}" if grid.interval else ""
        yield f"Lines marked paper: as printed in {grid.source}{means}; not measured here."
    if any(cell.difference for cell in cells):
        signs = f" {SIGNS['overlap']}: the two intervals overlap, {SIGNS['apart']}: they do not."
        yield "Difference: ours - paper." + (signs if any(cell.overlap for cell in cells) else "")
