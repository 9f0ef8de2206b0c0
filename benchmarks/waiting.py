"""How long people wait before anything is computed: plans, pages, a finished run, a full store.

python benchmarks/waiting.py            # CPU seconds of each command, start of Python included, the best of three

Figures go to benchmarks/results/waiting.json.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from packed_cpu import machine

from alphatune.run import record

RESULTS = Path(__file__).parent / "results" / "waiting.json"
CELLS = 500
ARTEFACTS = 10_000
RECORD = record.path_of("results/records", "toy/tiny/lora/seed0-07e2e4b8f8")
RUN = ["task=toy", "model=tiny", "method=lora", "seed=0"]
HEAD = """
title: Many cells
seeds: [0]
base: [task=toy, model=tiny, method=lora]
columns: [{key: valid_loss, label: Loss}]
rows:
"""


def cpu_seconds(*arguments: str) -> float:
    """The CPU time of one command. Its work is checked by its exit status."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _MAIN, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


_MAIN = """
import os, sys
from pathlib import Path
from alphatune.tables import experiment
if "EXPERIMENTS" in os.environ:
    experiment.FOLDER = Path(os.environ["EXPERIMENTS"])
from alphatune.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def _table(folder: Path) -> None:
    """A table of `CELLS` rows, no two of which compose alike."""
    rows = (
        f"  - {{id: tiny/r{i}, label: R{i}, set: [hparams.weight_decay={i / 1e4:g}]}}\n" for i in range(1, CELLS + 1)
    )
    (folder / "many.yaml").write_text(HEAD + "".join(rows), encoding="utf-8")


def _records(folder: Path) -> None:
    """A record for each of its cells, with the name that its run would have, all in one folder."""
    from alphatune.compose.compose import config_of
    from alphatune.run import identity

    made = record.read(RECORD)
    for i in range(1, CELLS + 1):
        config = config_of(["task=toy", "model=tiny", "method=lora", f"hparams.weight_decay={i / 1e4:g}"])
        run_id = identity.plan(config, made["model"]["identity"], made["data"]["files"]).run_id
        path = record.path_of(str(folder), run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({**made, "run_id": run_id, "config": record.public_config(config)}), encoding="utf-8"
        )


def _store(folder: Path) -> None:
    for i in range(ARTEFACTS):
        place = folder / ("quantize", "adapt", "evaluate", "decode", "score")[i % 5] / f"{i:016x}"
        place.mkdir(parents=True)
        (place / "manifest.json").write_text('{"spec": {}, "files": {}}', encoding="utf-8")


def main() -> None:
    """Print a table: what is waited for, CPU seconds, what is allowed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _table(folder)
        os.environ["EXPERIMENTS"] = temporary
        places = ["--set", f"runtime.records={folder}/records", "--set", f"runtime.artifacts={folder}/store"]
        shown: dict[str, tuple[float, Callable[[], float]]] = {
            f"plan of {CELLS} cells": (5.0, lambda: cpu_seconds("table", "many", "--plan", *places)),
            f"render {CELLS} cells": (
                10.0, lambda: cpu_seconds("table", "many", "--render", "--out", f"{folder}/out", *places)
            ),
            "a finished run": (1.5, lambda: cpu_seconds("run", *RUN)),
            f"a finished run, {ARTEFACTS:,} artefacts": (
                2.0, lambda: cpu_seconds("run", *RUN, f"runtime.artifacts={folder}/store")
            ),
        }  # fmt: skip
        print(f"{'':36} {'CPU s':>6} {'goal':>6}")
        results = {}
        for what, (goal, measure) in shown.items():
            if what.startswith("render"):
                _records(folder / "records")
            if what.endswith("artefacts"):
                shutil.rmtree(folder / "store", ignore_errors=True)
                _store(folder / "store")
            results[what] = {"cpu_s": min(measure() for _ in range(3)), "goal": goal}
            print(f"{what:36} {results[what]['cpu_s']:6.2f} {goal:6.1f}", flush=True)
    made = {**machine(), "load": os.getloadavg()[0], "results": results}
    RESULTS.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
