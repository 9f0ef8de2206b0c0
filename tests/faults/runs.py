"""Runs in processes of their own that are killed at a chosen point: what the tests of kills share.

The processes are forked from one that has loaded every library, so that a run costs its work and not its imports. A
point is the n-th call of a function through which everything reaches the disk, before or after it: each write, sync,
rename, removal and new folder of the store, of checkpoints, of predictions and of records.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

POINTS = ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink")  # of the module os
NEVER = (0, "before")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["alphatune.run.execute", "alphatune.run.pipeline", "alphatune.run.preflight",
                                 "alphatune.data.load", "conftest"])  # fmt: skip


def kill_at(number: int, when: str, how: int = signal.SIGKILL) -> None:
    """From now on this process kills itself at the `number`-th point."""
    count = 0

    def wrapped(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            mine = count
            if mine == number and when == "before":
                os.kill(os.getpid(), how)
            result = function(*arguments, **named)
            if mine == number and when == "after":
                os.kill(os.getpid(), how)
            return result

        return call

    for name in POINTS:
        setattr(os, name, wrapped(getattr(os, name)))


def _execute(overrides: list[str], point: tuple[int, str], counted: Any, log: str) -> None:
    import logging
    import sys

    import torch

    torch.set_num_threads(1)
    sys.stderr = open(log, "a", encoding="utf-8")  # noqa: SIM115  # until the process ends
    from alphatune.run.execute import main

    calls = 0
    if counted is not None:  # an unbroken run: how many points it has

        def watch(function: Any) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                return function(*arguments, **named)

            return call

        for name in POINTS:
            setattr(os, name, watch(getattr(os, name)))
    elif point != NEVER:
        kill_at(*point)
    status = main(overrides)
    if counted is not None:
        counted.value = calls
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


def start(overrides: list[str], log: Path, point: tuple[int, str] = NEVER, counted: Any = None) -> Any:
    """A process that carries out a run; it kills itself at `point`."""
    process = _context.Process(target=_execute, args=(overrides, point, counted, str(log)))
    process.start()
    return process


def finish(process: Any, seconds: float = 300) -> int:
    """The exit status of a run."""
    process.join(seconds)
    assert process.exitcode is not None, "the run does not end"
    return int(process.exitcode)


def counted_run(overrides: list[str], log: Path) -> int:
    """Carry out an unbroken run; returns how many points it has."""
    number = _context.Value("i", 0)
    assert finish(start(overrides, log, counted=number)) == 0, log.read_text()
    return int(number.value)


def store_for(folder: Path, backbone: Path) -> list[str]:
    """Overrides of a run with a store and records of its own; the store holds the backbone already."""
    if backbone.is_dir():
        shutil.copytree(backbone, folder / "store" / "backbone")
    return [f"runtime.artifacts={folder / 'store'}", f"runtime.records={folder / 'records'}"]


def results(folder: Path) -> dict[str, str]:
    """What a run leaves, by name: hashes of the bytes of artefacts, and of a record what is a result."""
    found = {}
    for path in sorted((folder / "store").rglob("*")):
        if path.is_file() and path.suffix not in (".lock", ".maker") and "backbone" not in path.parts:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((folder / "records").rglob("*.json")):
        made = json.loads(path.read_text())
        kept = {key: made[key] for key in ("run_id", "config", "scores", "validation_loss", "curves", "sizes", "data")}
        found[path.name] = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return found


def left_over(folder: Path) -> list[str]:
    """Hidden and half-made things below a folder: there are to be none."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.startswith(".") or ".partial" in p.name
            or p.suffix == ".maker"]  # fmt: skip
