"""A table in every format: markdown, LaTeX, CSV, a self-contained page, its figure; and the index page over all.

Nothing is run: what the records say is written, and what they lack is left empty.
"""

from __future__ import annotations

from pathlib import Path

from alphatune.pages import html, render
from alphatune.store import write_atomically
from alphatune.tables import tabulate
from alphatune.tables.cells import Cells
from alphatune.tables.experiment import Experiment
from alphatune.tables.grid import Grid
from alphatune.tables.tabulate import Results


def write(name: str, table: Experiment, cells: Cells, extra: list[str], out: Path) -> tuple[Grid, list[Path]]:
    """Render a table from the records of `cells` into `out`. Returns the grid and the files written."""
    results = Results(cells)
    grid = tabulate.grid(name, table, results, extra, tabulate.judged(table, results))
    drawn = _draw(name, table, results, out)
    grid.pictures = [name] if drawn else []
    done = sum(cell.record is not None for cell in cells.final)
    entry = html.IndexEntry(table.title, table.source, done, cells.total, table.substitute, f"{name}.html")
    texts = {
        "md": render.markdown(grid), "tex": render.latex(grid), "csv": render.csv(grid),
        "html": html.page(grid, {name: drawn} if drawn else {}, home="index.html", entry=entry),
    }  # fmt: skip
    files = []
    for kind, text in texts.items():
        files.append(out / f"{name}.{kind}")
        write_atomically(files[-1], text)
    return grid, files


def _draw(name: str, table: Experiment, results: Results, out: Path) -> str | None:
    """The table's figure as <name>.png and <name>.svg; returns the SVG's text, None where there is nothing to draw."""
    if not table.figure:
        return None
    from alphatune.pages import plots  # with it come matplotlib and torch, which most tables need not wait for

    stem = out / name
    by_row = {row.id: results.of_row(row.id) for row in table.rows}
    if table.figure == "bcq_example":
        plots.bcq_example(stem)
    elif not any(by_row.values()):
        return None
    elif table.figure == "loss_curves":
        plots.loss_curves(table, by_row, stem)
    elif table.figure == "loss_by_bits":
        plots.loss_by_bits(table, by_row, stem)
    else:
        plots.scores_and_curves(table, by_row, stem)
    return stem.with_name(f"{name}.svg").read_text(encoding="utf-8")
