"""A table on a real SLURM of one node: jobs are cancelled, requeued, and lose their node, and the table ends whole."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Slurm, cluster, lacking
from conftest import QUICK, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(lacking() is not None, reason=str(lacking()))]
SEEDS = 4


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    """A cluster in a folder with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    try:
        with cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def test_a_table_ends_whole_whatever_happens_to_its_jobs(slurm: Slurm, tmp_path: Path) -> None:
    small = [o for o in QUICK if not o.startswith(("hparams.batch_size", "runtime."))]
    sets = [f"--set={o}" for o in [*small, "runtime.device=cpu", "runtime.progress=false"]]
    table = [sys.executable, "-m", "alphatune.table", "demo", "--rows=tiny/lora", "--out=out",
             f"--seeds={','.join(map(str, range(SEEDS)))}", *sets]  # fmt: skip
    environment = slurm.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*table, *more], cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = call("--launcher=slurm", "--jobs=1", "--sbatch=--requeue")
    assert done.returncode == 0, done.stderr
    array, render = done.stdout.split(" as jobs ")[1].split(";")[0].split(", ")
    tasks = [f"{array}_{i}" for i in range(SEEDS)]

    slurm.call("scancel", tasks[3])  # one is cancelled
    slurm.wait("running", lambda s: s[tasks[0]] == "RUNNING")
    slurm.call("scontrol", "requeue", tasks[0])  # one is requeued
    _begin(slurm, tasks[0])
    slurm.wait("running again", lambda s: s[tasks[0]] in ("RUNNING", "COMPLETED") or s[tasks[1]] == "RUNNING")
    running = next(t for t in tasks if slurm.states()[t] in ("RUNNING", "COMPLETING"))
    slurm.call("scontrol", "update", f"nodename={slurm.host}", "state=down", "reason=tried")  # the node goes down
    slurm.wait("back in the queue", lambda s: s[running] == "PENDING")
    slurm.call("scontrol", "update", f"nodename={slurm.host}", "state=resume")
    _begin(slurm, running)
    ended = slurm.wait("rendered", lambda s: s[render] == "COMPLETED")
    assert [ended[t] for t in tasks[:3]] == ["COMPLETED"] * 3
    assert ended.get(tasks[3]) in ("CANCELLED", None)  # the controller forgets it soon

    assert len(_records(tmp_path)) == SEEDS - 1  # the cancelled one is missing, and the table says so
    assert _n(tmp_path) == SEEDS - 1
    again = call("--launcher=slurm")  # the same command submits what is missing
    assert again.returncode == 0 and "submitted 1 cells" in again.stdout, again.stdout + again.stderr
    render = again.stdout.split(" as jobs ")[1].split(";")[0].split(", ")[-1]
    slurm.wait("rendered again", lambda s: s[render] == "COMPLETED")
    records = _records(tmp_path)
    assert sorted(r["seed"] for r in records) == list(range(SEEDS)) and {r["status"] for r in records} == {"completed"}
    left = [p for p in (tmp_path / "outputs" / "artifacts").rglob("*") if p.name.endswith((".partial", ".maker"))]
    assert not left
    assert _n(tmp_path) == SEEDS


def _begin(slurm: Slurm, task: str) -> None:
    """Let a task that was put back begin at once: SLURM has it wait two minutes."""
    slurm.wait("in the queue", lambda s: s[task] == "PENDING")
    slurm.call("scontrol", "update", f"jobid={task}", "StartTime=now")


def _records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in (folder / "results" / "records").rglob("*.json")]


def _n(folder: Path) -> int:
    """The seeds that the rendered table counts."""
    (table,) = (folder / "out").glob("*.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return int(next(row["n"] for row in rows if (row["row"], row["column"]) == ("tiny/lora", "BLEU All")))
