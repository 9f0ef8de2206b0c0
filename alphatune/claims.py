"""The paper's claims, decided by records: `python -m alphatune.claims`.

A claim has tests; a test compares two rows of a table in one value. It is decided for every model whose rows the table
has, on the paired differences over seeds and their 95 % t-interval:

- "above": left exceeds right by more than `margin`. Reproduced if the whole interval lies above the margin, not
  reproduced if the whole interval lies below it.
- "close": they differ by at most `margin`. Reproduced if the whole interval lies within it, not reproduced if it lies
  outside.
- "ratio": left / right is at least `margin`, for sizes, which follow from the config and need no run.

Anything else is undecided, and so is everything with fewer than two seeds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphatune import aggregate, compose, experiment, report, values
from alphatune.aggregate import Mean
from alphatune.artifacts import write_atomically
from alphatune.cells import Planner
from alphatune.errors import UserError
from alphatune.experiment import Column, Experiment, Row
from alphatune.tabulate import Results
from alphatune.terminal import status_of

REPRODUCED, NOT, UNDECIDED = "reproduced", "not reproduced", "undecided"


@dataclass
class Test:
    """One comparison: rows `<model>/<left>` and `<model>/<right>` of every table of `tables`, in one value."""

    tables: list[str]
    left: str
    right: str
    metric: str
    kind: str = "above"
    margin: float = 0.0
    models: list[str] = field(default_factory=list)  # row prefixes; empty: all that the table has


@dataclass
class Claim:
    """A qualitative statement of the paper, where it stands, and what the printed cells say of it."""

    number: int
    text: str
    where: str
    printed: str
    tests: list[Test] = field(default_factory=list)
    untested: str = ""  # why no test decides it


@dataclass
class Claims:
    """The file."""

    claims: list[Claim]


@dataclass(frozen=True)
class Outcome:
    """What one test says for one model."""

    test: Test
    table: str
    model: str  # row prefix
    substitute: str  # the table's, where its model is not the paper's
    verdict: str
    difference: Mean | None
    ratio: float | None = None

    @property
    def found(self) -> str:
        """What the records or the sizes say, e.g. "-2.1 ± 0.6"; empty without runs."""
        if self.ratio is not None:
            return f"{self.ratio:.1f}"
        if self.difference is None:
            return ""
        mean, half = self.difference.mean, self.difference.ci95
        if not half:
            return f"{mean:+.3g}" + ("" if half is None else " ± 0")
        digits = max(0, 1 - math.floor(math.log10(half)))  # two significant ones of the half width, for both numbers
        return f"{round(mean, digits) + 0.0:+.{digits}f} ± {half:.{digits}f}"

    @property
    def wanted(self) -> str:
        """What the claim asks of it."""
        margin = f"{self.test.margin:g}"
        return {"ratio": f"ratio of at least {margin}", "close": f"within ±{margin}", "above": f"above {margin}"}[
            self.test.kind
        ]

    @property
    def text(self) -> str:
        """One line with the numbers."""
        test = self.test
        where = f"{self.model} ({self.table}{'; substitute: ' + self.substitute if self.substitute else ''})"
        n = f", n = {self.difference.n}" if self.difference else ""
        what = f"{test.metric}, {test.left} {'to' if test.kind == 'ratio' else 'against'} {test.right}"
        return f"**{self.verdict}** on {where}: {what}: {self.found or 'no runs'}, wanted {self.wanted}{n}"


def load() -> list[Claim]:
    """The claims of experiments/claims.yaml.

    Raises:
        UserError: the file does not fit the schema, or a test names a table or row that does not exist.
    """
    path = experiment.FOLDER / "claims.yaml"
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Claims), OmegaConf.load(path))
        found = OmegaConf.to_object(merged)
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"claims.yaml: {' '.join(str(error).split())}") from error
    assert isinstance(found, Claims)
    for claim in found.claims:
        for test in claim.tests:
            if test.kind not in ("above", "close", "ratio"):
                raise UserError(f"claims.yaml: claim {claim.number}: kind={test.kind}: must be above, close or ratio")
    return found.claims


def decide(difference: Mean | None, kind: str, margin: float) -> str:
    """The verdict that an interval of paired differences allows."""
    if difference is None or difference.ci95 is None:
        return UNDECIDED
    low, high = difference.mean - difference.ci95, difference.mean + difference.ci95
    if kind == "above":
        return REPRODUCED if low > margin else NOT if high < margin else UNDECIDED
    if low >= -margin and high <= margin:
        return REPRODUCED
    return NOT if low > margin or high < -margin else UNDECIDED


def outcomes(test: Test, name: str, table: Experiment, results: Results, extra: list[str]) -> Iterator[Outcome]:
    """The verdicts of one test on one table, for every model that has both rows.

    Raises:
        UserError: no model of the table has both rows.
    """
    rows = {row.id: row for row in table.rows}
    models = [p for p in dict.fromkeys(i.split("/")[0] for i in rows) if not test.models or p in test.models]
    pairs = [(m, rows[f"{m}/{test.left}"], rows[f"{m}/{test.right}"]) for m in models
             if f"{m}/{test.left}" in rows and f"{m}/{test.right}" in rows]  # fmt: skip
    if not pairs:
        raise UserError(f"claims.yaml: {name} has no model with the rows {test.left} and {test.right}")
    column = next((c for c in table.columns if c.key == test.metric), None)
    if column is None:
        raise UserError(f"claims.yaml: {name} has no column {test.metric}")
    for model, left, right in pairs:
        if test.kind == "ratio":
            ratio = _computed(table, left, column, extra) / _computed(table, right, column, extra)
            verdict = REPRODUCED if ratio >= test.margin else NOT
            yield Outcome(test, name, model, table.substitute, verdict, None, ratio)
            continue
        value = values.name_of(column)
        a, b = ({s: values.of_record(made, value) for s, (_, made) in results.of(row.id, column).items()}
                for row in (left, right))  # fmt: skip
        differences = [x - y for s in sorted(a.keys() & b.keys())
                       if (x := a[s]) is not None and (y := b[s]) is not None]  # fmt: skip
        difference = aggregate.mean([d * column.scale for d in differences])
        verdict = decide(difference, test.kind, test.margin)
        yield Outcome(test, name, model, table.substitute, verdict, difference)


def _computed(table: Experiment, row: Row, column: Column, extra: list[str]) -> float:
    config = compose.config_of([*table.base, *row.set, *column.set, *extra])
    value = values.of_config(config, row, values.name_of(column))
    assert isinstance(value, int | float)
    return float(value)


def judge(claims: list[Claim], extra: list[str]) -> list[tuple[Claim, list[Outcome]]]:
    """Each claim with the outcome of every test, from the records that are there."""
    tables: dict[str, tuple[Experiment, Results]] = {}
    judged = []
    for claim in claims:
        found: list[Outcome] = []
        for test in claim.tests:
            for name in map(experiment.canonical, test.tables):
                if name not in tables:
                    table = experiment.load(name)
                    tables[name] = table, Results(Planner(table, extra, run=False).cells(table.seeds))
                found += outcomes(test, name, *tables[name], extra)
        judged.append((claim, found))
    return judged


def markdown(judged: list[tuple[Claim, list[Outcome]]]) -> str:
    """All claims with their verdicts."""
    lines = [
        "# The paper's claims, as the records of this project decide them", "",
        "Verdicts rest on paired differences over seeds and their 95 % t-interval; `alphatune/claims.py` has the rule. "
        "What was found on a substitute model says nothing certain about the paper's models.", "",
    ]  # fmt: skip
    for claim, found in judged:
        lines += [
            f"## {claim.number}. {claim.text}",
            "",
            f"AlphaTuning, {claim.where}. The paper's cells: {claim.printed}.",
            "",
        ]
        lines += [f"- {outcome.text}" for outcome in found] or [f"- not tested: {claim.untested}"]
        lines.append("")
    return "\n".join(lines)


def write(extra: list[str], out: Path) -> list[tuple[Claim, list[Outcome]]]:
    """Render the claims to <out>/claims.md and claims.html."""
    judged = judge(load(), extra)
    write_atomically(out / "claims.md", markdown(judged))
    write_atomically(out / "claims.html", report.fill("claims.html", judged=judged))
    return judged


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m alphatune.claims", description="Decide the paper's claims by records."
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.records=FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results/tables"), help="folder of the page")
    given = parser.parse_args(arguments)

    def show() -> int:
        print(markdown(write(given.set, given.out)))
        print(f"page: {given.out / 'claims.html'}")
        return 0

    return status_of(show)


if __name__ == "__main__":
    sys.exit(main())
