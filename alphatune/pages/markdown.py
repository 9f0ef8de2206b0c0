"""A finished table as markdown that reads well in a terminal too: columns are aligned."""

from __future__ import annotations

import re

from alphatune.pages.layout import SIGNS, GridRow, Layout, Piece, lay_out
from alphatune.tables.grid import Grid

_SUPERSCRIPT = str.maketrans("abcdefghijkl", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡ")


def markdown(grid: Grid) -> str:
    """The table with its title, notes, explanations, figures and footer."""
    layout = lay_out(grid)
    parts = [f"# {_one_line(layout.title)}"]
    if grid.note:
        parts.append(_inert(grid.note.strip()))
    if grid.lines:
        parts.append("\n".join(_table(grid, layout)))
    if layout.explained:
        parts.append("\n".join(map(_inert, layout.explained)))
    if layout.legend:
        parts.append(
            "Marks:\n\n" + "\n".join(f"- {_mark(letter)} {_one_line(meaning)}" for letter, meaning in layout.legend)
        )
    if layout.notes:
        parts.append("Notes:\n\n" + "\n".join(f"- [{i}] {_one_line(note)}" for i, note in enumerate(layout.notes, 1)))
    if grid.statements:
        parts.append("## What came of the claims")
        parts.append("\n".join(f"- {_one_line(statement)}" for statement in grid.statements))
    parts += [f"![{stem}]({stem}.png)" for stem in grid.pictures]
    parts += [_inert(text.strip()) for text in grid.footer]
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid, layout: Layout) -> list[str]:
    """The lines of the table. Columns of text at the left are left-aligned, the others right-aligned."""
    left = 2 if layout.whose else 1
    head = ["Row", *(["Whose"] if layout.whose else []), *map(_safe, grid.columns), *(["n"] if layout.counted else [])]
    body = [_texts(row, layout, len(grid.columns)) for row in layout.rows]
    # headings of groups may run over: they are alone on their line
    sized = [head, *(texts for texts, row in zip(body, layout.rows, strict=True) if row.kind != "group")]
    widths = [max(3, *(len(texts[i]) for texts in sized)) for i in range(len(head))]
    widths[0] = max([widths[0], *(len(texts[0]) for texts in body)])

    def line(texts: list[str]) -> str:
        padded = [t.ljust(w) if i < left else t.rjust(w) for i, (t, w) in enumerate(zip(texts, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (w - 1) if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(head), f"| {' | '.join(rule)} |", *map(line, body)]


def _texts(row: GridRow, layout: Layout, columns: int) -> list[str]:
    if row.kind == "group":
        return [f"**{_safe(row.label.text)}**", *[""] * (columns + layout.whose + layout.counted)]
    whose = [_text(row.whose)] if layout.whose else []
    return [_text(row.label), *whose, *(_cell(row, piece) for piece in row.cells), *([row.n] if layout.counted else [])]


def _cell(row: GridRow, piece: Piece) -> str:
    if row.kind == "difference" and piece.cell is not None and piece.text:
        return f"{_text(piece)} {SIGNS.get(piece.cell.overlap, '')}".rstrip()
    return _text(piece)


def _text(piece: Piece) -> str:
    notes = "".join(f"[{i}]" for i in piece.notes)
    return _safe(piece.text) + _mark(piece.marks) + notes


def _mark(letters: str) -> str:
    return letters.translate(_SUPERSCRIPT)


def _safe(text: str) -> str:
    return _one_line(text).replace("|", r"\|")


def _one_line(text: str) -> str:
    return _inert(" ".join(text.split()))


def _inert(text: str) -> str:
    """Text in which no HTML and no link begins: a page of results shows names and notes, and runs none of them."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", text).replace("](", r"]\(")
