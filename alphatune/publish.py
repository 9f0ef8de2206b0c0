"""A table in every format: markdown, LaTeX, CSV, a self-contained page, its figure; and the index page over all.

`python -m alphatune.publish` renders every experiment from the records that are there; nothing is run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alphatune import experiment, plots, render, report, tabulate
from alphatune.artifacts import write_atomically
from alphatune.cells import Cells, Planner
from alphatune.experiment import Experiment
from alphatune.grid import Grid
from alphatune.tabulate import Results
from alphatune.terminal import status_of

OUT = Path("results/tables")


def write(
    name: str, table: Experiment, cells: Cells, extra: list[str], seeds: list[int], out: Path
) -> tuple[Grid, list[Path]]:
    """Render a table from the records of `cells` into `out`. Returns the grid and the files written."""
    results = Results(cells)
    grid = tabulate.grid(name, table, results, extra, seeds, tabulate.judged(table, results))
    drawn = _draw(name, table, results, out)
    grid.pictures = [name] if drawn else []
    texts = {
        "md": render.markdown(grid), "tex": render.latex(grid), "csv": render.csv(grid),
        "html": report.page(grid, {name: drawn} if drawn else {}, home="index.html"),
    }  # fmt: skip
    files = []
    for kind, text in texts.items():
        files.append(out / f"{name}.{kind}")
        write_atomically(files[-1], text)
    return grid, files


def _draw(name: str, table: Experiment, results: Results, out: Path) -> str | None:
    """The table's figure as <name>.png and <name>.svg; returns the SVG's text, None where there is nothing to draw."""
    stem = out / name
    by_row = {row.id: results.of_row(row.id) for row in table.rows}
    if table.figure == "bcq_example":
        plots.bcq_example(stem)
    elif not table.figure or not any(by_row.values()):
        return None
    elif table.figure == "loss_curves":
        plots.loss_curves(table, by_row, stem)
    else:
        plots.scores_and_curves(table, by_row, stem)
    return stem.with_name(f"{name}.svg").read_text(encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m alphatune.publish", description="Render every table and figure from the records, with an index."
    )
    parser.add_argument("names", nargs="*", help="experiments (default: all, with claims and an index)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.records=FOLDER")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pages (default: results/tables)")
    given = parser.parse_args(arguments)
    return status_of(lambda: _main(given))


def _main(given: argparse.Namespace) -> int:
    names = [experiment.canonical(n) for n in given.names] or experiment.names()
    extra, out = given.set, given.out
    from alphatune import claims

    entries = []
    for name in names:
        table = experiment.load(name)
        cells = Planner(table, extra, run=False).cells(table.seeds)
        write(name, table, cells, extra, table.seeds, out)
        done = sum(cell.record is not None for cell in cells.final)
        print(f"{name:16} {done} of {cells.total} runs recorded: {out / name}.html", flush=True)
        entries.append(report.Entry(table.title, table.source, done, cells.total, table.substitute, f"{name}.html"))
    if names == experiment.names():  # an index of some of them would hide the others
        claims.write(extra, out)
        write_atomically(out / "index.html", report.index(entries))
        print(f"index: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
