"""`alphatune push`: W&B runs made from records, as if each run had been followed while it lasted.

For runs made without a tracker, or through a network that failed. A run is overwritten by its id, so a second push
changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphatune.errors import UserError
from alphatune.run import record, track
from alphatune.terminal import Parser, status_of


@dataclass(frozen=True)
class Pushed:
    """What became of the records: run ids, and one line for each record that is damaged."""

    runs: list[str]
    damaged: list[str]


def find(paths: list[Path]) -> list[Path]:
    """The record files among `paths` and in the folders among them, in order.

    Raises:
        UserError: a path does not exist, or there is no record at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no records there")
    return list(dict.fromkeys(found))


def push(paths: list[Path], project: str, mode: str, group: str = "") -> Pushed:
    """Push records, each as a W&B run with the id, name, group, config, curves and final numbers of the run itself.

    Raises:
        UserError: there is no valid W&B key, or W&B failed; what was pushed until then stays.
    """
    done = Pushed([], [])
    for path in paths:
        try:
            content = record.read(path)
            run_id, config, points, numbers = _parts(content)
        except UserError as error:
            done.damaged.append(str(error))
            continue
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            done.damaged.append(f"{path}: a damaged record ({track.told(error)})")
            continue
        try:
            run = track.Wandb(run_id, config, project, mode, group, resume=False)
            for step, values in points:
                run.log(step, values)
            run.finish(numbers)
        except UserError:
            raise
        except Exception as error:  # whatever a third-party service does; the rest would meet the same
            raise UserError(
                f"{path}: W&B failed ({track.told(error)}); {len(done.runs)} of {len(paths)} records were "
                "pushed before, and the same command pushes all"
            ) from error
        done.runs.append(run_id)
        print(f"pushed {run_id}", flush=True)
    return done


def _parts(content: dict[str, Any]) -> tuple[str, dict[str, Any], Any, dict[str, Any]]:
    """What W&B is told, taken from the record before W&B is asked anything: a damaged record leaves no half run."""
    config = content["config"]
    track.tags(config)
    return str(content["run_id"]), config, track.points(content["curves"]), track.summary(content)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    os.environ.pop("WANDB_SWEEP_ID", None)  # these are no runs of a sweep, whatever the shell was used for before
    kept = "interrupted: what was pushed stays; the same command pushes all"
    return status_of(lambda: _main(parser().parse_args(arguments)), kept)


def parser() -> Parser:
    """The arguments of `alphatune push`."""
    parser = Parser(
        "alphatune push",
        "Make the W&B runs of finished records, or make them anew.",
        "alphatune push\nalphatune push results/records/toy --project my-project --mode offline",
    )
    parser.add_argument("paths", nargs="*", type=Path, help="records, or folders of them (default: results/records)")
    parser.add_argument("--project", default="alphatune", help="the W&B project (default: alphatune)")
    parser.add_argument("--group", default="", help="the W&B group of all runs (default: task/model/method of each)")
    parser.add_argument("--mode", choices=("online", "offline"), default="online")
    return parser


def _main(given: argparse.Namespace) -> int:
    paths = find(given.paths or [Path("results/records")])
    done = push(paths, given.project, given.mode, given.group)
    for line in done.damaged:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{len(done.runs)} of {len(paths)} records pushed to project {given.project}")
    if given.mode == "offline" and done.runs:
        print("upload them with: wandb sync outputs/wandb/offline-run-*")
    return 1 if done.damaged else 0
