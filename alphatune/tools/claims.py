"""`alphatune claims`: decide the paper's claims by the records, and write their page."""

from __future__ import annotations

import argparse
from pathlib import Path

from alphatune.tables import experiment, overrides
from alphatune.terminal import Parser, status_of


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune claims`."""
    parser = Parser(
        "alphatune claims",
        "Decide each claim of the paper by the records, or leave it undecided.",
        "alphatune claims\nalphatune claims --set runtime.records=outputs/demo/records --out outputs/demo",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.records=FOLDER")
    parser.add_argument("--out", type=Path, default=experiment.OUT, help="folder of the page")
    return parser


def _main(given: argparse.Namespace) -> int:
    from alphatune.pages import claims

    extra, out = given.set, given.out
    overrides.check_neutral(extra)
    experiment.check_out(out)
    print(claims.markdown(claims.write(extra, out)))
    print(f"page: {out / 'claims.html'}")
    return 0
