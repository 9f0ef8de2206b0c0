"""What scoring takes: `python benchmarks/scoring.py [--data FOLDER] [TASK ...]`.

With `--data` (as `data.dir` of a run): BLEU, METEOR and TER of WebNLG's test inputs and their subsets in one process.
No system's outputs are needed: a hypothesis is a reference of its input with a quarter of its words replaced, removed,
added or moved, by a fixed seed. Then `alphatune score` of six short texts, start of Python included, for each task.
Wall and processor seconds, those of Java among them; of the least of three calls, and of one call for the whole test
set. METEOR's index of paraphrases is made first, once. Figures go to benchmarks/results/scoring.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packed_cpu import machine

from alphatune.config import Data
from alphatune.data import task_config
from alphatune.data.example import Example
from alphatune.data.load import split_of
from alphatune.metrics import meteor, score

RESULTS = Path(__file__).parent / "results" / "scoring.json"
TASKS = ["toy", "webnlg", "samsum", "glue/cola", "glue/stsb", "glue/sst2"]
TEXTS = "The cat sat on the mat .\nA dog barks .\nIt rains today .\nBirds sing .\nHe is here .\nShe left early .\n"
CLASSES = "1\n0\n1\n1\n0\n1\n"


def seconds(call: Callable[[], Any]) -> dict[str, float]:
    """Wall and processor seconds of a call, with those of the programs that it ended."""
    before, started = _processor(), time.perf_counter()
    call()
    return {"wall": time.perf_counter() - started, "cpu": _processor() - before}


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def six(task: str, folder: Path) -> dict[str, float]:
    """One call of the command on a file that is its own reference."""
    file = folder / "texts"
    file.write_text(CLASSES if "/" in task else TEXTS)
    call = [sys.executable, "-m", "alphatune.score", "--task", task, "--hypotheses", file, "--references", file]
    return seconds(lambda: subprocess.run(call, check=True, capture_output=True))


def perturbed(examples: list[Example], seed: int = 0) -> list[str]:
    """A hypothesis for each input: one of its references with a quarter of its words changed."""
    chance = random.Random(seed)
    others = [word for example in examples[:300] for word in example.targets[0].split()]
    hypotheses = []
    for example in examples:
        words = chance.choice(example.targets).split()
        for _ in range(max(1, len(words) // 4)):
            place, what = chance.randrange(len(words)), chance.random()
            if what < 0.35:
                words[place] = chance.choice(others)
            elif what < 0.55 and len(words) > 3:
                del words[place]
            elif what < 0.7:
                words.insert(place, chance.choice(others))
            else:
                run = words[place : place + chance.randint(1, 4)]
                del words[place : place + len(run)]
                place = chance.randrange(len(words) + 1)
                words[place:place] = run
        hypotheses.append(" ".join(words))
    return hypotheses


def whole(folder: Path) -> dict[str, Any]:
    """All of WebNLG's test inputs, metric by metric and together; the jar is started for each."""
    _, examples = split_of(task_config("webnlg"), Data(dir=str(folder)), "test")
    hypotheses, references = perturbed(examples), [list(example.targets) for example in examples]
    subsets = [example.subset for example in examples]
    found: dict[str, Any] = {"inputs": len(examples)}
    for metrics in (["bleu"], ["ter"], ["meteor"], ["bleu", "meteor", "ter"]):

        def call(metrics: list[str] = metrics) -> None:
            scores = score(metrics, hypotheses, references, subsets=subsets)
            meteor.stop()
            found.update({f"value of {name}": value.value for name, value in scores.values["all"].items()})

        found["+".join(metrics)] = seconds(call)
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--data", type=Path, help="folder with WebNLG's files, as data.dir of a run")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    score(["meteor"], ["a"], [["a"]])  # makes the index
    with tempfile.TemporaryDirectory() as folder:
        for task in given.tasks:
            results[f"six texts, {task}"] = min((six(task, Path(folder)) for _ in range(3)), key=lambda t: t["wall"])
    if given.data:
        results["WebNLG, test"] = whole(given.data)
    for what, found in results.items():
        for name, times in {"": found, **found}.items():
            if isinstance(times, dict) and "wall" in times:
                print(f"{what + ' ' + name:42} {times['wall']:6.2f} s, processor {times['cpu']:6.2f} s", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    load = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
    RESULTS.write_text(json.dumps({**machine(), **load, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
