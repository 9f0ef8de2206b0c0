"""What a command must not wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.learn import models
from alphatune.run import identity, record

ASKED = """
import sys
from alphatune.run.execute import main
status = main(sys.argv[1:])
print(status, sorted({"torch", "transformers", "peft", "datasets", "scipy"} & set(sys.modules)))
"""


def test_a_recorded_run_answers_without_torch(tmp_path: Path) -> None:
    overrides = ["task=toy", "model=tiny", "method=lora", f"runtime.records={tmp_path}", "runtime.artifacts=/nowhere"]
    config = config_of(overrides)
    plan = identity.plan(config, models.identity(config.model), load(config.task, config.data).files)
    path = record.path_of(str(tmp_path), plan.run_id)
    whole = record.read(sorted((ROOT / "results" / "records").rglob("*.json"))[0])
    record.write(path, whole | {"run_id": plan.run_id})
    done = subprocess.run([sys.executable, "-c", ASKED, *overrides], capture_output=True, text=True)
    assert done.stdout.strip() == "0 []", done.stderr
    assert "is recorded already" in done.stderr
