"""A table's cells as SLURM array jobs: one array per wave, then a job that renders the table.

The cells lie in a text file, one command line each; array task i runs line i. Artefacts and records go to the shared
folder that the jobs start in, so a cell is a cell wherever it ran.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from alphatune.errors import UserError
from alphatune.store import write_atomically
from alphatune.tables.cells import Cell

_SCRIPT = """#!/bin/bash
#SBATCH --job-name=alphatune-{name}
#SBATCH --output={folder}/%A_%a.out
set -euo pipefail
eval "$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {cells})"
"""


def submit(name: str, waves: list[list[Cell]], jobs: int, options: str, render: list[str], folder: Path) -> list[str]:
    """Hand the waves to sbatch, each after the one before it, and rendering after the last. Returns the job ids.

    Args:
        name: of the table; part of the job name.
        waves: cells that may run at the same time, in order.
        jobs: tasks of an array that run at once; 0 for no limit.
        options: further options of sbatch, e.g. "--partition=gpu --gres=gpu:1 --time=8:00:00".
        render: arguments of `python -m alphatune.table` that render the table.
        folder: where scripts, cell lists and logs go.

    Raises:
        UserError: there is no sbatch, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise UserError("--launcher=slurm: there is no sbatch on this machine; use --launcher=local")
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.=-]", "-", name)  # a line of a script
    extra, ids = shlex.split(options), []
    after: list[str] = []
    for number, wave in enumerate(waves, 1):
        lines = [shlex.join([sys.executable, "-m", "alphatune.run", *cell.overrides]) for cell in wave]
        cells = folder / f"wave{number}.txt"
        write_atomically(cells, "\n".join(lines) + "\n")
        script = folder / f"wave{number}.sh"
        write_atomically(
            script, _SCRIPT.format(name=name, folder=shlex.quote(str(folder)), cells=shlex.quote(str(cells)))
        )
        limit = f"%{jobs}" if jobs else ""
        ids.append(_sbatch([f"--array=0-{len(wave) - 1}{limit}", *after, *extra, str(script)]))
        after = [f"--dependency=afterany:{ids[-1]}"]
    command = shlex.join([sys.executable, "-m", "alphatune.table", *render])
    log = f"--output={folder}/render-%j.out"
    ids.append(_sbatch([*after, *extra, f"--job-name=alphatune-{name}-render", log, f"--wrap={command}"]))
    return ids


def _sbatch(arguments: list[str]) -> str:
    done = subprocess.run(["sbatch", "--parsable", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"sbatch refused: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout.strip().split(";")[0]
