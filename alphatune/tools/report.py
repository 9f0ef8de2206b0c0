"""`alphatune report`: every table, figure and claim from the records that are there; nothing is run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alphatune.errors import UserError
from alphatune.store import write_atomically
from alphatune.tables import experiment, overrides
from alphatune.tables.cells import Planner
from alphatune.terminal import FAILED, MISTAKE, Parser, log_to_terminal, status_of


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    log_to_terminal()
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune report`."""
    parser = Parser(
        "alphatune report",
        "Render tables and figures from the records, with an index; nothing is run.",
        "alphatune report\nalphatune report table2 figure4 --out /tmp/pages",
    )
    parser.add_argument("names", nargs="*", help="experiments (default: all, with claims and an index)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.records=FOLDER")
    parser.add_argument("--out", type=Path, default=experiment.OUT, help="folder of the pages")
    return parser


def _main(given: argparse.Namespace) -> int:
    from alphatune.pages import claims, html, publish

    asked = given.names or experiment.names()
    names = [experiment.canonical(name) for name in asked]
    extra, out, entries = given.set, given.out, []
    overrides.check_neutral(extra)
    experiment.check_out(out)
    failed = 0
    for file, name in zip(asked, names, strict=True):
        try:
            table = experiment.load(file)
            cells = Planner(table, extra, run=False).cells()
            publish.write(name, table, cells, extra, out)
        except UserError as error:  # of this experiment: the others have their pages
            print(f"left out: {name}: {error}", file=sys.stderr)
            failed += 1
            continue
        done = sum(cell.record is not None for cell in cells.final)
        print(f"{name:16} {done} of {cells.total} runs recorded: {out / name}.html", flush=True)
        entries.append(html.entry_of((out / f"{name}.html").read_text(encoding="utf-8")))
    if names == experiment.names():  # an index of some of them would hide the others
        claims.write(extra, out)
        entries += [
            html.entry_of(p.read_text(encoding="utf-8")) for p in sorted(out.glob("*--*.html"))
        ]  # other settings
        write_atomically(out / "index.html", html.index([entry for entry in entries if entry is not None]))
        print(f"index: {out / 'index.html'}")
    return 0 if not failed else MISTAKE if failed == len(names) else FAILED
