"""`alphatune data TASK`: get a task's files and say where they are. `make data TASK=...` calls it."""

from __future__ import annotations

import argparse
import sys

from alphatune.config import Data
from alphatune.data import load
from alphatune.errors import UserError
from alphatune.terminal import Parser, status_of


def main(arguments: list[str] | None = None) -> int:
    """Finds or downloads the files, reads them once to check the counts, prints the folder. Returns the exit status."""
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune data`."""
    parser = Parser(
        "alphatune data",
        "Find a task's files or download them, check their counts, and say where they are.",
        "alphatune data webnlg\nalphatune data glue/cola --dir ~/GLUE",
    )
    parser.add_argument("task", metavar="TASK", help="a name of conf/task, such as webnlg or glue/cola")
    parser.add_argument("--dir", help="look here only, download nothing")
    return parser


def _main(given: argparse.Namespace) -> int:
    return _fetch(given.task, Data(dir=given.dir))


def _fetch(name: str, data: Data) -> int:
    task = load.task_config(name)
    if task.reader == "toy":
        print(f"{name}: needs no files")
        return 0
    if task.reader == "own":
        raise UserError(f"task={name}: its files are yours: data.train=FILE, data.valid=FILE, data.test=FILE of a run")
    folder = load.find(task, data, progress=True)
    dataset = load.load(task, data)
    sizes = ", ".join(f"{split} {len(dataset.split(split)):,}" for split in ("train", "validation", "test"))
    print(f"{name}: {sizes}; licence: {task.licence}\n{folder}")
    for what, count in dataset.notes.items():
        print(f"  {what}: {count:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
