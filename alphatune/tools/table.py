"""`alphatune table NAME`: run what a table still lacks, then render it beside the paper's numbers.

A cell is a row, a task and a seed. Its record decides whether it is done, so a second call does nothing.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from contextlib import nullcontext
from pathlib import Path

from alphatune.errors import UserError
from alphatune.store import digest
from alphatune.tables import experiment, gpu, merge, overrides, plan, ray_tasks, schedule, slurm
from alphatune.tables.cells import Cell, Cells, Planner
from alphatune.tables.experiment import Experiment
from alphatune.terminal import NOTHING_TO_RUN, Parser, end_in_order, log_to_terminal, status_of


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    log_to_terminal()
    end_in_order()
    kept = "interrupted: finished cells are kept; the same command continues"
    return status_of(lambda: _main(parser().parse_args(arguments)), kept)


def parser() -> Parser:
    """The arguments of `alphatune table`."""
    parser = Parser(
        "alphatune table",
        "Run what a table of experiments/ lacks, then render it beside the paper's numbers.",
        """
        alphatune table demo                          every method on the embedded model, offline
        alphatune table 2 --plan                      what would run, and what it may cost
        alphatune table 2 --rows 'gpt2-m/*' --jobs 2  some rows, two cells at once
        alphatune table 2 --launcher slurm --sbatch "--gres=gpu:1"
        alphatune table 2 --launcher ray --ray "num_gpus=1 num_cpus=4"
        """,
    )
    parser.add_argument("name", help="a file of experiments/: 2 or table2, figure4, demo, ...; or your own: my.yaml")
    parser.add_argument("--seeds", type=_numbers, help="e.g. 0,1 (default: the table's)")
    parser.add_argument(
        "--rows", type=lambda s: s.split(","), help="ids of rows to run, e.g. gpt2-m/lora,gpt2-l/* (default: all)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="an override for every cell; one that can change results makes a table of its own, labelled with it",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true", help="only say what is done, to run or impossible, and what it costs"
    )
    parser.add_argument(
        "--gpu-estimate", nargs="?", const="a100", choices=sorted(gpu.ACCELERATORS), metavar="GPU",
        help="only print what each row would take on a GPU, an estimate: a100 (default), h100 or v100",
    )  # fmt: skip
    parser.add_argument("--render", action="store_true", help="only render what is recorded")
    parser.add_argument("--jobs", type=_positive, default=None, help="cells at once (default: 1; slurm, ray: no limit)")
    parser.add_argument("--launcher", choices=["local", "slurm", "ray"], default="local", help="where the cells run")
    parser.add_argument(
        "--sbatch", default="", metavar="OPTIONS", help='for slurm, e.g. "--partition=gpu --gres=gpu:1"'
    )
    parser.add_argument(
        "--ray", default="", metavar="NEEDS", help='for ray, what a cell takes, e.g. "num_gpus=1 num_cpus=4"'
    )
    parser.add_argument("--out", type=Path, default=experiment.OUT, help="folder of the rendered table")
    return parser


def _main(given: argparse.Namespace) -> int:
    name = experiment.canonical(given.name)
    table = experiment.load(given.name)
    overrides.check(given.set, table)
    if not (given.plan or given.gpu_estimate):  # which write nothing
        experiment.check_out(given.out)
    if merge.of_model(given.set):
        table, told = merge.merged(table, given.set)
        if told:
            print(f"{name}: {told}")
    rows = _chosen_rows(table, given.rows)
    if changed := overrides.changed(given.set, table):
        table.substitute = "; ".join(filter(None, [table.substitute, *changed]))
        name += f"--{overrides.slug(changed)}"
    if given.seeds:
        for row in table.rows:
            row.seeds = given.seeds
    planner = Planner(table, given.set, run=not given.render, name=name)
    if given.render:
        return _render(name, planner, given.out, [])
    found = planner.cells()
    todo = _todo(found, rows)
    if given.plan:
        print("\n".join(plan.page(name, table, found, todo, rows)))
        return NOTHING_TO_RUN if todo and all(cell.obstacle for cell in todo) else 0
    if given.gpu_estimate:
        return _gpu_estimate(name, found, rows, gpu.ACCELERATORS[given.gpu_estimate])
    print("\n".join(plan.summary(name, found, todo, rows)), flush=True)
    if todo and planner.unmet:
        raise UserError(f"{name} cannot run without {' and '.join(planner.unmet)} (--render shows what is recorded)")
    if todo and given.launcher == "slurm":
        return _submit(name, found, todo, given)
    failures: list[str] = []
    with ray_tasks.tasks(given.ray) if todo and given.launcher == "ray" else nullcontext() as elsewhere:
        tried: set[str] = set()
        while todo:  # then the rows that waited for a search
            failures += schedule.run(todo, table.own_process, given.jobs, elsewhere)
            tried |= {cell.run for cell in todo}
            found = planner.cells()
            todo = [cell for cell in _todo(found, rows) if cell.run not in tried]
    return _render(name, planner, given.out, failures)


def _chosen_rows(table: Experiment, rows: list[str] | None) -> set[str]:
    known = [row.id for row in table.rows]
    chosen = {pattern: fnmatch.filter(known, pattern) for pattern in (["*"] if rows is None else rows)}
    if unknown := sorted(pattern for pattern, found in chosen.items() if not found):
        raise UserError(f"--rows={','.join(unknown)}: no such row; rows of this table: {', '.join(known)}")
    return {row for found in chosen.values() for row in found}


def _todo(found: Cells, rows: set[str]) -> list[Cell]:
    """Runs that are missing, those of searches first; a run that serves several rows is there once."""
    searched = {row.search_as or row.id for row in found.rows if row.id in rows}
    listed = [c for c in found.search if c.row.id in searched] + [c for c in found.final if c.row.id in rows]
    unique: dict[str, Cell] = {}
    for cell in listed:
        if cell.record is None:
            unique.setdefault(cell.run, cell)
    return list(unique.values())


def _gpu_estimate(name: str, found: Cells, rows: set[str], device: gpu.Accelerator) -> int:
    """Print what the rows would take from the start, whatever is recorded."""
    mine = [cell for cell in found.search + found.final if cell.row.id in rows]
    print(f"{name} on one {device.name}, an estimate from sizes (docs/costs.md), nothing measured:")
    for row in found.rows:
        cells = [cell for cell in mine if cell.row.id == row.id]
        if cells:
            label = f"{row.group}: {row.label}" if row.group else row.label
            print(f"  {label:50} {gpu.estimate(cells, device, made=True).text}")
    print(f"all {len(mine)} cells, shared stages once: {gpu.estimate(mine, device, made=True).text}")
    return 0


def _submit(name: str, found: Cells, todo: list[Cell], given: argparse.Namespace) -> int:
    blocked = {cell.obstacle for cell in todo if cell.obstacle}
    if blocked:
        raise UserError(f"not submitted: {'; '.join(sorted(blocked))}")
    render = [given.name, "--render", f"--out={given.out}", *(f"--set={o}" for o in given.set)]
    render += [f"--seeds={','.join(map(str, given.seeds))}"] if given.seeds else []
    folder = Path("outputs/slurm") / name / digest([cell.overrides for cell in todo])[:8]  # queued jobs read theirs
    ids = slurm.submit(name, schedule.waves(todo), given.jobs or 0, given.sbatch, render, folder)
    print(f"submitted {len(todo)} cells as jobs {', '.join(ids)}; scripts and logs: {folder}")
    if found.waiting:
        print("they search learning rates: when they are done, the same command submits the rows that wait for them")
    return 0


def _render(name: str, planner: Planner, out: Path, failures: list[str]) -> int:
    # as --render does, whatever was run: of rows that were not, what is recorded is shown, by earlier code too
    found = Planner(planner.table, planner.extra, run=False, name=name).cells()
    from alphatune.pages import publish, render

    grid, files = publish.write(name, planner.table, found, planner.extra, out)
    print("\n" + render.markdown(grid))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(f"table: {', '.join(map(str, files))}")
    return 1 if failures else 0


def _numbers(text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) < 2**32 for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text}: must be whole numbers from 0 to 2^32-1 with commas, e.g. 0,1,2")
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")
    return int(text)
