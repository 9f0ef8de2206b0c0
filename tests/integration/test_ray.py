"""A table on a Ray that is started on this machine: failed cells are told, and who ends the table ends its cells."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, ROOT

lacking = importlib.util.find_spec("ray") is None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(lacking, reason="no ray: pip install 'alphatune[ray]'")]
# two nodes' worth of patience for a machine that does other things besides
ENVIRONMENT = {"RAY_agent_register_timeout_ms": "120000", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}


def _start(folder: Path, rows: str, *more: str) -> subprocess.Popen[str]:
    """`alphatune table` of two seeds of `rows`, on Ray."""
    (folder / "small.yaml").write_text(
        "title: Small\nseeds: [0, 1]\nbase: [task=toy, model=tiny]\nown_process: true\n"
        f"columns: [{{key: bleu_all, label: BLEU}}]\nrows: [{rows}]\n"
    )
    sets = [f"--set={o}" for o in [*QUICK, *more, f"runtime.artifacts={folder / 'store'}",
                                   f"runtime.records={folder / 'records'}"]]  # fmt: skip
    command = [sys.executable, "-m", "alphatune", "table", "small.yaml", "--launcher=ray", "--ray=num_cpus=1",
               "--out=out", *sets]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)})  # fmt: skip


def test_a_table_is_carried_out_and_a_failed_cell_is_told(tmp_path: Path) -> None:
    wrong = "{id: tiny/wrong, label: Wrong, set: [method=lora, method.lora.r=2, runtime.shard=true]}"
    process = _start(tmp_path, f"{wrong}, {{id: tiny/lora, label: LoRA, set: [method=lora]}}")
    _, told = process.communicate(timeout=1000)
    assert process.returncode == 1, told
    records = [json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "records").rglob("*.json")]
    assert sorted(r["seed"] for r in records) == [0, 1], told
    assert {r["label"] for r in records} == {"LoRA"}
    assert sorted(line for line in told.splitlines() if line.startswith("failed: tiny/wrong")) == [
        f"failed: tiny/wrong seed {seed}: exit status 2" for seed in (0, 1)
    ]
    (table,) = (tmp_path / "out").glob("*.csv")
    rows = {row["row"]: row["n"] for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())}
    assert rows["tiny/lora"] == "2" and rows.get("tiny/wrong", "0") in ("", "0")


def test_a_table_that_is_told_to_end_ends_its_cells(tmp_path: Path) -> None:
    process = _start(tmp_path, "{id: tiny/lora, label: LoRA, set: [method=lora]}", "trainer.max_steps=4000")
    deadline = time.monotonic() + 900
    while not (makers := list((tmp_path / "store" / "adapt").glob("*.maker"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.2)
    cells = [int(maker.read_text().split()[0]) for maker in makers]
    assert cells
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 143
    for cell in cells:
        with pytest.raises(ProcessLookupError):
            os.kill(cell, 0)
