"""Carrying out cells: which first, how many at once.

Cells that share a stage (five seeds one quantisation, three PTQ rows one fine-tuning) are run in two waves, so that the
shared work is done once and not waited for: first one cell per adaptation that is still to be made, then the others.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import active_children, get_context
from queue import SimpleQueue

from alphatune.compose import compose
from alphatune.errors import UserError
from alphatune.tables.cells import Cell
from alphatune.tables.ray_tasks import Tasks
from alphatune.tables.stages import hours, stages
from alphatune.terminal import log_to_terminal

log = logging.getLogger("alphatune")


def waves(cells: list[Cell]) -> list[list[Cell]]:
    """`cells` in two lists: one per expensive stage still to be made, then those that reuse them."""
    first: list[Cell] = []
    later: list[Cell] = []
    begun: set[tuple[str, str]] = set()
    for cell in cells:
        todo = {s for s, made in stages(cell).items() if not made and s[0] in ("quantize", "adapt")}
        (later if todo & begun else first).append(cell)
        begun |= todo
    return [wave for wave in (first, later) if wave]


def run(cells: list[Cell], own_process: bool, jobs: int | None = None, elsewhere: Tasks | None = None) -> list[str]:
    """Carry out cells; a failed one is told and the others go on. Returns the failures, one line each.

    Args:
        cells: those that are not recorded.
        own_process: one process per cell; without it, cells that run at once share as many processes as there are jobs.
        jobs: cells at once; None for one, elsewhere for all. GPUs that torch would see are handed out in turn.
        elsewhere: carries cells out in the place of processes of this machine.
    """
    failures = [f"{cell.row.id} seed {cell.seed}: {cell.obstacle}" for cell in cells if cell.obstacle]
    for reason in dict.fromkeys(cell.obstacle for cell in cells if cell.obstacle):
        log.error("%d cells cannot run here: %s", sum(c.obstacle == reason for c in cells), reason)
    ready = [cell for cell in cells if not cell.obstacle]
    progress = _Progress(len(ready))
    _ending.clear()
    jobs = min(jobs or (len(ready) if elsewhere else 1), len(ready))
    if jobs <= 1:
        alone = elsewhere or (partial(_apart, environment={}) if own_process else _here)
        for cell in ready:
            progress.begins(cell)
            failures += _told(cell, alone(cell))
            progress.ended += 1
        return failures
    slots: SimpleQueue[Callable[[Cell], str | None]] = SimpleQueue()

    def job(cell: Cell) -> str | None:
        carry_out = slots.get()
        try:
            if _ending.is_set():  # the cells that ran have made room, but none is to follow them
                return _ENDED
            progress.begins(cell)
            return carry_out(cell)
        finally:
            slots.put(carry_out)
            progress.ended += 1

    with ExitStack() as ends:
        if elsewhere:
            for _ in range(jobs):
                slots.put(elsewhere)
        else:
            for environment in _environments(jobs):
                slots.put(partial(_apart, environment=environment) if own_process else _worker(environment, ends))
        for wave in waves(ready):
            with ThreadPoolExecutor(jobs) as pool:
                futures = {pool.submit(job, cell): cell for cell in wave}
                try:
                    for future in as_completed(futures):
                        failures += _told(futures[future], future.result())
                except KeyboardInterrupt:
                    _ending.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    (elsewhere.end if elsewhere else _end_cells)()
                    raise
    return failures


def _worker(environment: dict[str, str], ends: ExitStack) -> Callable[[Cell], str | None]:
    """A process that carries out one cell after another: libraries are loaded once, not once a cell."""
    process = ends.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _begin, (environment,)))

    def carry_out(cell: Cell) -> str | None:
        try:
            return process.submit(_here, cell).result()
        except BrokenProcessPool:  # it ran out of memory, say: this cell and the next ones get processes of their own
            return _ENDED if _ending.is_set() else _apart(cell, environment)

    return carry_out


def _begin(environment: dict[str, str]) -> None:
    os.environ.update(environment)  # before torch is imported, which reads it once
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is told once, by the process that started this one
    log_to_terminal()


class _Progress:
    def __init__(self, total: int) -> None:
        self.total, self.count, self.ended, self.started = total, 0, 0, time.monotonic()

    def begins(self, cell: Cell) -> None:
        self.count += 1
        elapsed, done = time.monotonic() - self.started, self.ended
        left = f", about {hours(elapsed / done * (self.total - done))} left" if done else ""
        log.info("\n[%d/%d] %s (%.0f s so far%s)", self.count, self.total, cell.name, elapsed, left)


def _here(cell: Cell) -> str | None:
    from alphatune.run.execute import execute

    try:
        execute(cell.config, origins=compose.sources_of(cell.overrides))
    except UserError as error:
        return str(error)
    except Exception as error:  # this cell is lost and not those after it, as with a process for each
        log.exception("%s", cell.name)
        return f"{type(error).__name__}: {error}"
    return None


def _apart(cell: Cell, environment: dict[str, str]) -> str | None:
    command = [sys.executable, "-m", "alphatune.run", *cell.overrides]
    process = subprocess.Popen(command, env=os.environ | environment)
    _cells.add(process)
    if _ending.is_set():  # it began while the others were ended
        process.terminate()
    try:
        status = process.wait()
    except KeyboardInterrupt:
        _end_cells()
        raise
    finally:
        _cells.discard(process)
    return None if status == 0 else f"exit status {status}"


_ENDED = "ended with the table"
_ending = threading.Event()  # set once the table is told to end
_cells: set[subprocess.Popen[bytes]] = set()  # the processes of cells that are running
_PATIENCE = 10.0  # seconds that a cell has to end


def _end_cells() -> None:
    """End the cells that are running: who ends the table ends its work. What they have finished is kept."""
    workers, running = active_children(), list(_cells)
    for worker in workers:
        worker.terminate()
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()


def _told(cell: Cell, error: str | None) -> list[str]:
    if error is None:
        return []
    log.error("failed: %s: %s", cell.name, error)
    return [f"{cell.row.id} seed {cell.seed}: {error}"]


def _environments(jobs: int) -> list[dict[str, str]]:
    """One per slot: a GPU each, in turn, where there are several; else an equal share of the CPU threads."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(i) for i in range(torch.cuda.device_count())]
    else:
        gpus = [g for g in visible.split(",") if g]
    if len(gpus) > 1:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    if gpus or "OMP_NUM_THREADS" in os.environ:
        return [{}] * jobs
    return [{"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}] * jobs
