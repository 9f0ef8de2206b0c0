"""A whole cell from a cold store, stage by stage.

python benchmarks/cell.py --model FOLDER --data FOLDER [--before REV] [--short]

AlphaTuning at q = 3 of SmolLM2-135M on WebNLG: 800 training texts, 100 test inputs, beam 10; `--short` takes 40 and 8.
The seconds are wall time, taken from the run's own record. `--before REV` runs the same cell with the code of a commit
first. Figures go to benchmarks/results/cell.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from packed_cpu import machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cell.json"


def cell(code: Path, settings: list[str]) -> dict[str, Any]:
    """Seconds of each stage of one run with the code in a folder, of all together, and the scores."""
    with tempfile.TemporaryDirectory() as folder:
        places = [f"runtime.artifacts={folder}/store", f"runtime.records={folder}/records"]
        command = [sys.executable, "-W", "ignore", "-m", "alphatune.run", *settings, *places]
        started = time.perf_counter()
        subprocess.run(command, check=True, cwd=code, env={**os.environ, "PYTHONPATH": str(code)})
        seconds = time.perf_counter() - started
        (path,) = Path(folder, "records").rglob("*.json")
        record = json.loads(path.read_text(encoding="utf-8"))
    scores = {name: score["value"] for name, score in record["scores"]["all"].items()}
    return {"all": seconds, "stages": record["timings"], "peak MB": record["peak_memory_bytes"], "scores": scores}


def main() -> None:
    """Run, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--short", action="store_true", help="40 texts and 8 inputs")
    parser.add_argument("--before", metavar="REV", help="a commit to compare with")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    texts, inputs = (40, 8) if given.short else (800, 100)
    settings = [
        "task=webnlg", "model.name=SmolLM2-135M", f"model.name_or_path={given.model.resolve()}", "method=alphatuning",
        "quant.q=3", f"data.dir={given.data.resolve()}", f"data.train_limit={texts}", f"data.eval_limit={inputs}",
        "data.validation_limit=16", "trainer.evals=1", "hparams.epochs=1", "hparams.batch_size=8",
        "hparams.learning_rate=0.001", "decode.beam=10", f"runtime.threads={given.threads}", "seed=0",
    ]  # fmt: skip
    results = {}
    if given.before:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "worktree", "add", "--detach", folder, given.before], cwd=ROOT, check=True)
            try:
                results[given.before] = cell(Path(folder), settings)
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)
    results["now"] = cell(ROOT, settings)
    for name, found in results.items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in found["stages"].items())
        print(f"{name}: {found['all']:.1f} s; {stages}")
    setting = {"texts": texts, "inputs": inputs, "threads": given.threads, "load": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps({**machine(), **setting, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
