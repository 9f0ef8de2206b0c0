"""What tests/integration/test_processes.py has torchrun start: the golden trainings, by several processes each.

torchrun --nproc-per-node 2 trained_together.py OUT.json FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import make

from alphatune.learn import ranks

if __name__ == "__main__":
    out, folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = {}
    for method in make.METHODS:
        if ranks.rank() > 0:
            assert ranks.words.hear() == ranks.TRAIN
        found[method] = make.losses(method, folder / method)
    if ranks.rank() == 0:
        out.write_text(json.dumps(found))
