"""How long `python -m alphatune.score` takes for six short texts, start of Python included, per task.

python benchmarks/scoring.py                  # tasks without Java
python benchmarks/scoring.py webnlg e2e ...   # these; METEOR's jar alone reads its tables for ten seconds
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXTS = "The cat sat on the mat .\nA dog barks .\nIt rains today .\nBirds sing .\nHe is here .\nShe left early .\n"
CLASSES = "1\n0\n1\n1\n0\n1\n"


def seconds(task: str, folder: Path) -> float:
    """The time of one call on a file that is its own reference."""
    file = folder / "texts"
    file.write_text(CLASSES if "/" in task else TEXTS)
    start = time.perf_counter()
    call = [sys.executable, "-m", "alphatune.score", "--task", task, "--hypotheses", file, "--references", file]
    subprocess.run(call, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the best of three for each task."""
    with tempfile.TemporaryDirectory() as folder:
        for task in sys.argv[1:] or ["toy", "samsum", "glue/cola", "glue/stsb", "glue/sst2"]:
            print(f"{task:<12} {min(seconds(task, Path(folder)) for _ in range(3)):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
