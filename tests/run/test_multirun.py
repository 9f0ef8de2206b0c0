"""The command line of runs: every job of a sweep runs, one that fails does not stop the others; what a user sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.run import execute


def test_a_sweep_runs_every_job(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute.main(["-m", *quick, "method=ptq", "quant.q=2,3"]) == 0
    assert len(list((tmp_path / "records").rglob("*.json"))) == 2


def test_a_failing_job_is_told_at_the_end_and_the_others_run(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # 7 does not divide, 40 spans no whole number of rows of 32 or 128 weights
    assert execute.main(["-m", *quick, "method=ptq", "quant.group_size=40,7"]) == 2
    assert len(list((tmp_path / "records").rglob("*.json"))) == 1
    error = capsys.readouterr().err
    assert "error: quant.group_size=40: a group larger than a row of 32 weights must span whole rows" in error
    assert "quant.group_size=40" in error.splitlines()[-1]
    assert "Traceback" not in error


def test_a_plain_run_says_what_it_does_and_no_library_speaks(quick: list[str], tmp_path: Path) -> None:
    """Without a terminal and with every warning on."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "alphatune", "run", *quick, "method=bcq_lora", "runtime.progress=true",
         "task.max_context=30", "task.max_target=12"],
        cwd=tmp_path, capture_output=True, text=True,
        env={**{k: v for k, v in os.environ.items() if k != "WANDB_MODE"}, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stdout
    assert "FutureWarning" not in done.stderr and "DeprecationWarning" not in done.stderr and "|" not in done.stderr
    assert "contexts were cut for training: longer than task.max_context=30 tokens" in done.stderr
    assert "targets were cut for training: longer than task.max_target=12 tokens" in done.stderr
    assert "contexts were cut for decoding" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("record: ")
