"""What is committed below results/ and quoted in docs/ is what the records give: nothing is edited by hand or stale."""

from __future__ import annotations

import re
import subprocess

import pytest
from conftest import ROOT

from alphatune.pages import claims, render
from alphatune.run.record import read
from alphatune.tables import experiment, tabulate, verdicts
from alphatune.tables.cells import Planner
from alphatune.tables.tabulate import Results

RUN_HERE = re.compile(
    r"demo|claims_tiny|solvers_\w+|real_\w+|\w+_mini|(webnlg|texts|lengths|passes|e2e|claims)_smollm2|shared_codes|glue_minilm"
)
OURS = [name for name in experiment.names() if RUN_HERE.fullmatch(name)]  # runs of these are committed


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _markdown(name: str) -> str:
    table = experiment.load(name)
    results = Results(Planner(table, [], run=False).cells())
    grid = tabulate.grid(name, table, results, [], tabulate.judged(table, results))
    grid.pictures = [name] if (ROOT / "results" / "tables" / f"{name}.svg").is_file() else []
    return render.markdown(grid)


@pytest.mark.parametrize("name", OURS)
def test_the_committed_table_is_what_the_records_give(name: str) -> None:
    assert _markdown(name) == (ROOT / "results" / "tables" / f"{name}.md").read_text(encoding="utf-8")


def test_every_committed_page_has_runs_behind_it() -> None:
    listed = subprocess.run(["git", "ls-files", "results/tables"], capture_output=True, text=True, check=True).stdout
    pages = {name.rpartition("/")[2].partition(".")[0] for name in listed.split()}
    assert pages <= {*OURS, "claims"}


@pytest.mark.slow  # composes every row of every table
def test_the_claims_in_the_docs_are_those_that_the_records_decide() -> None:
    judged = verdicts.judge(verdicts.load(), [])
    assert claims.markdown(judged) == (ROOT / "results" / "tables" / "claims.md").read_text(encoding="utf-8")
    assert claims.overview(judged) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_no_committed_record_was_made_with_uncommitted_changes() -> None:
    made = [read(path) for path in (ROOT / "results" / "records").rglob("*.json")]
    assert made and not [r["run_id"] for r in made if r["git"]["dirty"] is not False or not r["git"]["commit"]]


def test_what_cannot_be_read_in_the_scan_says_so() -> None:
    """Table 10: the weight decay of LoRA on E2E, for both models."""
    lines = _markdown("table10").splitlines()
    assert sum("unreadable" in line for line in lines if line.startswith("|")) == 2
