"""What a cell takes on a Ray cluster, as it is typed; and a table without Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alphatune.errors import UserError
from alphatune.tables import ray_tasks


def test_needs_are_arguments_of_a_task() -> None:
    assert ray_tasks._needs("") == {"num_cpus": 1.0, "resources": {}, "max_retries": 3}
    found = ray_tasks._needs("num_gpus=0.5 num_cpus=4 A100=1")
    assert found == {"num_cpus": 4.0, "num_gpus": 0.5, "resources": {"A100": 1.0}, "max_retries": 3}


@pytest.mark.parametrize(
    "text", ["num_gpus", "num_gpus=", "=1", "num_gpus=-1", "num_gpus=nan", "num_gpus=1e999", "a=b"]
)
def test_other_needs_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not of the form num_gpus=1"):
        ray_tasks._needs(text)


def test_a_cell_is_a_process_with_an_exit_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ray_tasks._carry_out(["seed=-1"], str(tmp_path)) == 2
    assert capfd.readouterr().err == "error: seed=-1: must be a whole number from 0 to 4294967295\n"


def test_a_table_without_ray_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alphatune.__main__ import main

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("alphatune.tables.schedule.run", lambda *_: pytest.fail("a cell was begun"))
    call = ["table", "demo", "--rows", "tiny/lora", "--seeds", "0", "--launcher", "ray"]
    places = [f"--set=runtime.{name}={tmp_path / name}" for name in ("artifacts", "records")]
    assert main([*call, *places, f"--out={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "error: alphatune table needs the package ray: pip install 'alphatune[ray]'"
