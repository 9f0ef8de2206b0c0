"""A finished table as a page to open in a browser or print, and the index of all pages.

Pages need nothing but themselves: style and figures are inside, nothing is fetched, nothing is run.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from alphatune.pages.layout import LETTERS, SIGNS, GridRow, lay_out
from alphatune.tables.grid import Grid, GridCell, Line

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_OVERLAPS = {"overlap": "the intervals overlap", "apart": "the intervals do not overlap"}


@dataclass(frozen=True)
class IndexEntry:
    """One line of the index: a table or figure and how far it is."""

    title: str
    source: str  # where the paper's values stand; "" if nothing is published
    done: int  # cells with a record
    total: int  # 0: nothing has to be run
    substitute: str
    link: str  # to its page, relative to the index


@dataclass(frozen=True)
class _Block:
    """What belongs together in the table's body: the heading of a group, or the printed lines of one row."""

    group: str
    rows: list[GridRow]
    anchor: str


@dataclass(frozen=True)
class _Origin:
    """A row's cells in full, and which records which of its columns come from."""

    anchor: str
    name: str
    line: Line
    cells: list[tuple[str, GridCell]]
    records: list[tuple[list[str], list[str]]]  # columns, files


def page(grid: Grid, pictures: dict[str, str], home: str = "", entry: IndexEntry | None = None) -> str:
    """The page of a table or figure.

    Args:
        grid: the finished table.
        pictures: name -> SVG text, in the order in which they are shown.
        home: link to the index; "" for none.
        entry: what the index says of it, kept inside for an index that is made later.

    Raises:
        ValueError: a picture holds a script or refers to something outside itself.
    """
    layout = lay_out(grid)
    drawn = [(name, inline_svg(text, name, f"{layout.title} ({name})")) for name, text in pictures.items()]
    return fill(
        "page.html", grid=grid, layout=layout, blocks=_blocks(grid, layout.rows), origins=_origins(grid),
        pictures=drawn, home=home,
        entry=json.dumps(asdict(entry)) if entry else "", meanings=dict(layout.legend),
        statements=[_emphasised(s) for s in grid.statements],
    )  # fmt: skip


def index(entries: list[IndexEntry], claims: str = "claims.html", title: str = "Tables and figures") -> str:
    """The page that leads to all others: first what was run here, then what waits, then what needs no run.

    Args:
        entries: tables and figures; each part keeps their order.
        claims: link to the page of claims; "" for none.
        title: heading of the page.
    """
    run = [entry for entry in entries if entry.total]
    parts = [
        ("Run here", [entry for entry in run if entry.done]),
        ("Waiting to be run", [entry for entry in run if not entry.done]),
        ("Nothing to run: values follow from the settings", [entry for entry in entries if not entry.total]),
    ]
    return fill("index.html", parts=[part for part in parts if part[1]], claims=claims, title=title)


def entry_of(page: str) -> IndexEntry | None:
    """What a page says of itself for the index; None where it says nothing."""
    found = re.search(r'<meta name="alphatune-entry" content="([^"]*)">', page)
    if found is None:
        return None
    try:
        return IndexEntry(**json.loads(Markup(found[1]).unescape()))
    except (ValueError, TypeError, RecursionError):
        return None  # of another version


def fill(template: str, **values: Any) -> str:
    """A page of `templates/` with `values` in it, everything escaped that is not markup."""
    return _environment().get_template(template).render(**values)


def inline_svg(text: str, name: str, label: str) -> Markup:
    """An SVG file as part of a page: without its prolog, ids made unique by `name`, `label` for those who cannot see.

    Raises:
        ValueError: it holds a script or refers to something outside itself.
    """
    start = text.find("<svg")
    if start < 0:
        raise ValueError(f"picture {name}: no SVG")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    if re.search(r"<script|\son\w+=|javascript:|(href|src)=[\"'](?!#)|url\((?!#)|@import", text, re.IGNORECASE):
        raise ValueError(f"picture {name}: a script or something outside of the picture")
    prefix = re.sub(r"\W", "-", name) + "-"
    text = re.sub(r'(\sid="|href="#|url\(#)', lambda found: found.group(1) + prefix, text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))  # nosec B704


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(SIGNS=SIGNS, OVERLAPS=_OVERLAPS, LETTERS=LETTERS)
    environment.filters.update(interval=_interval, told=_told, minus=_minus)
    return environment


def _blocks(grid: Grid, rows: list[GridRow]) -> list[_Block]:
    blocks: list[_Block] = []
    places = {id(line): i for i, line in enumerate(grid.lines)}
    for row in rows:
        if row.line is None:
            blocks.append(_Block(row.label.text, [], ""))
        elif blocks and blocks[-1].rows and blocks[-1].rows[0].line is row.line:
            blocks[-1].rows.append(row)
        else:
            blocks.append(_Block("", [row], f"row-{places[id(row.line)]}"))
    return blocks


def _origins(grid: Grid) -> list[_Origin]:
    origins = []
    for i, line in enumerate(grid.lines):
        files: dict[tuple[str, ...], list[str]] = {}
        for column, cell in zip(grid.columns, line.cells, strict=True):
            if cell.records:
                files.setdefault(tuple(cell.records), []).append(column)
        name = f"{line.group}: {line.label}" if line.group else line.label
        pairs = list(zip(grid.columns, line.cells, strict=True))
        origins.append(_Origin(f"row-{i}", name, line, pairs, [(names, list(paths)) for paths, names in files.items()]))
    return origins


def _interval(cell: GridCell) -> str:
    """Both ends of the 95 % interval, with as many digits as the mean is printed with."""
    if cell.mean is None or cell.ci95 is None:
        return ""
    digits = len(cell.ours.split(" ")[0].partition(".")[2])
    low, high = (f"{cell.mean + sign * cell.ci95:.{digits}f}" for sign in (-1, 1))
    return _minus(f"{low} to {high}")


def _told(cell: GridCell, line: Line) -> str:
    """What a cell of ours is, in a sentence: for the tooltip."""
    if cell.n is None:
        return "computed, no run needed" if cell.ours else ""
    interval = _interval(cell)
    return (
        f"mean {cell.ours.split(' ')[0]}, 95 % interval {interval or 'not known'}, " if cell.ours else "no value, "
    ) + f"n = {cell.n} of {line.of}"


def _minus(text: str) -> str:
    """A minus sign instead of a hyphen before a number."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _emphasised(text: str) -> Markup:
    """Statements carry their outcome as **outcome**."""
    parts = re.split(r"\*\*(.+?)\*\*", text)
    return Markup("").join(Markup("<strong>{}</strong>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))
