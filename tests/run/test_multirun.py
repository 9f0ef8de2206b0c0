"""A sweep from the command line: every job runs, one that fails does not stop the others."""

from __future__ import annotations

from pathlib import Path

import pytest

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
