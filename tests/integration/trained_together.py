"""What tests/integration/test_processes.py has torchrun start: the golden trainings, by several processes each.

torchrun --nproc-per-node 2 trained_together.py OUT.json FOLDER METHODS [OVERRIDE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import make

from alphatune.learn import ranks

if __name__ == "__main__":
    out, folder, methods, more = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:]
    found = {}
    for method in methods:
        if ranks.rank() > 0:
            assert ranks.words.hear() == ranks.TRAIN
        found[method] = make.losses(method, folder / method, *more)
    if ranks.rank() == 0:
        out.write_text(json.dumps(found))
