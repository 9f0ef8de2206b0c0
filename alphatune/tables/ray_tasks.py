"""A table's cells as tasks of a Ray cluster, each in a process of its own on whichever node has room.

The cluster is that of RAY_ADDRESS or of `ray start` on this machine, or one that is started here and ends with the
table. Its nodes have this package and share the folder that the table is started in. A cell whose node dies is begun
again elsewhere by Ray, and continues with what it has kept.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alphatune.errors import UserError
from alphatune.tables.cells import Cell
from alphatune.terminal import end_in_order

PATIENCE = 10.0  # seconds that a cell has to end
_NEEDS = ("num_cpus", "num_gpus", "memory")  # of a task, beside a cluster's own resources


class Tasks:
    """Cells that are carried out elsewhere: call it with a cell, from as many threads as cells are to run at once."""

    def __init__(self, needs: dict[str, Any]) -> None:
        import ray

        self._ray: Any = ray
        self._task = ray.remote(**needs)(_carry_out)
        self._running: set[Any] = set()
        self._ended = False

    def __call__(self, cell: Cell) -> str | None:
        """Carry out a cell and wait for its end; why it failed, or None."""
        reference = self._task.remote(list(cell.overrides), os.getcwd())
        self._running.add(reference)
        if self._ended:  # it was handed over while the others were ended
            self._ray.cancel(reference)
        try:
            status = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # cancelled, or its node was lost too often
            return f"Ray: {' '.join(str(error).split())[:300]}"
        except KeyboardInterrupt:
            self.end()
            raise
        finally:
            self._running.discard(reference)
        return None if status == 0 else f"exit status {status}"

    def end(self) -> None:
        """End the cells that are running or wait for room."""
        self._ended = True
        running = list(self._running)
        for reference in running:
            self._ray.cancel(reference)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=2 * PATIENCE)


@contextmanager
def tasks(options: str) -> Iterator[Tasks]:
    """A connection to a cluster, closed with the block.

    Args:
        options: what a cell takes, e.g. "num_gpus=1 num_cpus=4 memory=64e9", or a resource that the cluster names.

    Raises:
        UserError: an option is not of this form, or no cluster answers.
    """
    needs = _needs(options)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    import ray

    try:
        ray.init(logging_level="ERROR")
    except Exception as error:  # Ray raises this very class where a cluster does not come up
        raise UserError(f"--launcher=ray: {' '.join(str(error).split())[:300]}") from error
    end_in_order()  # Ray takes SIGTERM for itself
    try:
        yield Tasks(needs)
    finally:
        ray.shutdown()


def _needs(options: str) -> dict[str, Any]:
    """Arguments of `ray.remote`; a task that states no GPU gets none."""
    found: dict[str, Any] = {"num_cpus": 1.0}
    resources: dict[str, float] = {}
    for option in shlex.split(options):
        name, _, text = option.partition("=")
        try:
            amount = float(text)
        except ValueError:
            amount = math.nan
        if not name or not 0 <= amount < math.inf:
            raise UserError(f"--ray {options}: {option} is not of the form num_gpus=1")
        (found if name in _NEEDS else resources)[name] = amount
    return {**found, "resources": resources, "max_retries": 3}


def _carry_out(overrides: list[str], folder: str) -> int:
    """The exit status of a cell; it ends with the task."""
    process = subprocess.Popen([sys.executable, "-m", "alphatune.run", *overrides], cwd=folder)
    try:
        while True:  # in short waits, or a task that is cancelled would not hear of it
            try:
                return process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
