"""The page of costs and the script that runs everything say what the estimate says, and the script can be stopped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

SCRIPT = ROOT / "experiments" / "reproduce.sh"


def _costs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("costs", ROOT / "docs" / "costs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["costs"] = module  # its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_lines_of_the_page_are_those_of_the_estimate() -> None:
    costs = _costs()
    page = costs.PAGE.read_text(encoding="utf-8")
    for table in costs.priced(["figure4", "table3"]):
        assert costs.alone(table) in page, "python docs/costs.py writes it again"


@pytest.mark.slow
def test_page_and_script_are_current() -> None:
    costs = _costs()
    tables = costs.priced()
    for path, text in costs.written(tables).items():
        assert path.read_text(encoding="utf-8") == text, "python docs/costs.py writes it again"
    assert len(tables) > 10


def _call(folder: Path, body: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script with a stand-in for the command that writes down its calls and then does `body`."""
    stand_in, calls = folder / "alphatune", folder / "calls"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
    stand_in.chmod(0o755)
    calls.unlink(missing_ok=True)
    environment = os.environ | {"ALPHATUNE": str(stand_in)}
    done = subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)
    return done, calls.read_text().splitlines()


def test_every_table_is_called_in_order_and_then_the_report(tmp_path: Path) -> None:
    done, calls = _call(tmp_path, "exit 0", "--jobs", "2")
    assert done.returncode == 0 and calls[-1] == "report"
    assert "table table2 --jobs 2" in calls and len(calls) == len(set(calls)) > 10


def test_a_table_that_cannot_run_stops_no_other(tmp_path: Path) -> None:
    done, calls = _call(tmp_path, '[ "$2" = table2 ] && exit 3 || exit 0')
    assert done.returncode == 1 and done.stderr == "not whole: table2 (exit status 3)\n" and calls[-1] == "report"


def test_an_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    done, calls = _call(tmp_path, "exit 130")
    assert done.returncode == 130 and len(calls) == 1
