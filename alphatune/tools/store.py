"""`alphatune store`: what the store of stage outputs holds, and removing what nothing needs any more."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from alphatune.config import Runtime
from alphatune.errors import UserError
from alphatune.run import inventory
from alphatune.run.inventory import Key, StoreFolder
from alphatune.tables import experiment
from alphatune.tables.cells import Planner
from alphatune.tables.stages import distinct
from alphatune.terminal import Parser, log_to_terminal, status_of

_HOUR = 3600.0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    log_to_terminal()
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune store`."""
    parser = Parser(
        "alphatune store",
        "What the store of stage outputs holds (ls), and removing what no record, table or running process needs (gc).",
        """
        alphatune store ls             every output: stage, size, age, the run that made it
        alphatune store gc             what would go, and why; nothing is removed
        alphatune store gc --yes       remove it
        """,
    )
    parser.add_argument("action", choices=["ls", "gc"], help="ls: list; gc: plan, and with --yes carry out, a clean-up")
    parser.add_argument("--store", type=Path, default=Path(Runtime().artifacts), help="runtime.artifacts of the runs")
    parser.add_argument(
        "--records", type=Path, action="append", metavar="FOLDER",
        help=f"runtime.records of the runs; again for another folder (default: {Runtime().records})",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="for gc: remove what the plan lists")
    parser.add_argument(
        "--older", type=_hours, default=24.0, metavar="HOURS",
        help="for gc: what changed later is kept, a run may still be on its way to its record (default: 24)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="for gc: overrides that tables are run with, e.g. model.name_or_path=FOLDER",
    )  # fmt: skip
    return parser


def _main(given: argparse.Namespace) -> int:
    if given.yes and given.action != "gc":
        raise UserError("--yes is of `alphatune store gc`: ls removes nothing")
    if not given.store.is_dir():
        raise UserError(
            f"{given.store}: there is no such folder; --store=FOLDER names the runtime.artifacts of your runs"
        )
    records = given.records or [Path(Runtime().records)]
    found = inventory.take(given.store, records)
    if given.action == "ls":
        _list(found.items)
        return 0
    for folder in records:
        if not any(folder.rglob("*.json")):  # all that belongs to a record would be of none
            raise UserError(f"{folder}: no record there; --records FOLDER names the runtime.records of your runs")
    going = list(found.needless(_planned(given.set, records), given.older * _HOUR))
    busy = [item for item in found.items if item.busy]
    for item, reason in going:
        print(f"{_size(item.bytes):>9}  {item.stage:9} {item.path.name}: {reason}")
    for item in busy:
        print(f"a process makes {item.stage} {item.key}: only what killed processes left is removed while it runs")
    total = f"{len(going)} of {len(found.items)} folders, {_size(sum(item.bytes for item, _ in going))}"
    if not given.yes:
        print(f"would remove {total}" + ("; --yes removes them" if going else ""))
        return 0
    gone = [item for item, _ in going if inventory.remove(item)]
    print(f"removed {len(gone)} of {len(found.items)} folders, {_size(sum(item.bytes for item in gone))}")
    return 0


def _list(items: list[StoreFolder]) -> None:
    now = time.time()
    for item in sorted(items, key=lambda item: -item.bytes):
        more = f" and {len(item.runs) - 1} more" if len(item.runs) > 1 else ""
        run = {inventory.PARTIAL: "unfinished", inventory.LEFT: "left by a killed process"}.get(item.kind, "no record")
        told = f"{item.runs[0]}{more}" if item.runs else run
        damaged = ", damaged" if item.kind == inventory.DAMAGED else ""
        print(f"{_size(item.bytes):>9}  {_age(now - item.changed):>5}  {item.stage:9} {item.key}  {told}{damaged}")
    totals: Counter[str] = Counter()
    for item in items:
        totals[item.stage] += item.bytes
    parts = ", ".join(f"{stage} {_size(size)}" for stage, size in totals.most_common())
    print(f"{len(items)} folders, {_size(sum(totals.values()))}" + (f": {parts}" if parts else ""))


def _planned(overrides: list[str], records: list[Path]) -> set[Key]:
    """The outputs that cells of all tables without a record would use, as far as data and weights are here."""
    keys: set[Key] = set()
    for name in experiment.names():
        table = experiment.load(name)
        for folder in records:
            extra = [*overrides, f"runtime.records={folder}", "data.offline=true"]
            cells = Planner(table, extra, run=True, name=name).cells()
            open_ = [cell for cell in cells.search + cells.final if cell.record is None and cell.plan is not None]
            keys |= set(distinct(open_))
    return keys


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a number of hours from 0")
    return hours


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"
