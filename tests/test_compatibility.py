"""docs/compatibility.md: every line of it is held by a test that exists."""

from __future__ import annotations

import re

from conftest import ROOT

PAGE = ROOT / "docs" / "compatibility.md"


def _rows() -> list[list[str]]:
    """The cells of every line of a table, without heads and rules."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "held by" and set(row[-1]) != {"-"}]


def _tests() -> set[str]:
    """The names of all tests."""
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in files for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_every_line_is_held_by_tests_that_exist() -> None:
    known, rows = _tests(), _rows()
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(\w+)`", row[-1])
        assert len(row) == 3 and named, row
        assert set(named) <= known, row
