"""Claims: intervals decide, and the file speaks of rows and columns that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphatune import claims, experiment, values
from alphatune.aggregate import Mean
from alphatune.experiment import canonical


@pytest.mark.parametrize(
    ("mean", "half", "kind", "margin", "verdict"),
    [
        (5.0, 1.0, "above", 0.0, "reproduced"),
        (5.0, 1.0, "above", 4.5, "undecided"),
        (5.0, 1.0, "above", 7.0, "not reproduced"),
        (0.5, 1.0, "above", 0.0, "undecided"),
        (-2.0, 1.0, "above", 0.0, "not reproduced"),
        (0.5, 0.4, "close", 1.0, "reproduced"),
        (0.5, 0.6, "close", 1.0, "undecided"),
        (-3.0, 1.0, "close", 1.0, "not reproduced"),
        (3.0, 1.0, "close", 1.0, "not reproduced"),
        (3.0, None, "above", 0.0, "undecided"),  # one seed
    ],
)
def test_verdicts_follow_the_interval(mean: float, half: float | None, kind: str, margin: float, verdict: str) -> None:
    assert claims.decide(Mean(mean, half, 1 if half is None else 5), kind, margin) == verdict
    assert claims.decide(None, kind, margin) == "undecided"


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [(-0.00333, 8.93, "+0.0 ± 8.9"), (-2.0864, 0.0251, "-2.086 ± 0.025"), (12.4, 37.0, "+12 ± 37"), (1.5, None, "+1.5"),
     (1.5, 0.0, "+1.5 ± 0"), (-0.0004, 0.0012, "-0.0004 ± 0.0012")],
)  # fmt: skip
def test_differences_are_rounded_to_what_their_interval_allows(mean: float, half: float | None, text: str) -> None:
    test = claims.Test(["x"], "a", "b", "bleu_all")
    assert claims.Outcome(test, "x", "m", "", "undecided", Mean(mean, half, 3)).found == text


def test_every_claim_of_the_paper_is_there_and_is_tested_or_says_why_not() -> None:
    found = claims.load()
    assert [claim.number for claim in found] == list(range(1, 24))
    assert all(bool(claim.tests) != bool(claim.untested) for claim in found)


def test_tests_speak_of_rows_and_columns_that_exist() -> None:
    for claim in claims.load():
        for test in claim.tests:
            for name in map(canonical, test.tables):
                table = experiment.load(name)
                ids = {row.id for row in table.rows}
                models = test.models or sorted({i.split("/")[0] for i in ids})
                assert any({f"{m}/{test.left}", f"{m}/{test.right}"} <= ids for m in models), (claim.number, test)
                assert test.metric in {c.key for c in table.columns}, (claim.number, name, test.metric)
                column = next(c for c in table.columns if c.key == test.metric)
                assert values.measured(column) != (test.kind == "ratio"), (claim.number, name, test.metric)


def test_size_claims_are_decided_without_any_run(tmp_path: Path) -> None:
    some = [claim for claim in claims.load() if claim.number in (1, 20)]
    judged = {claim.number: found for claim, found in claims.judge(some, [f"runtime.records={tmp_path}"])}
    ratios = {(o.model, o.test.right, o.test.metric): o.ratio for o in judged[20]}
    # Table 2: 1420 / 327 MB and 354.9 M / 0.22 M
    assert ratios["gpt2-m", "alphatuning/q3", "total_mb"] == pytest.approx(1419.6 / 327.2, rel=1e-3)
    assert ratios["gpt2-m", "alphatuning/q3", "trainable_params"] == pytest.approx(1604, rel=1e-3)
    assert {o.verdict for o in judged[1]} == {"undecided"}


def test_a_claim_about_a_missing_row_is_one_line() -> None:
    from alphatune.errors import UserError
    from alphatune.tabulate import Results

    table = experiment.load("demo")
    from alphatune.cells import Cells

    wrong = claims.Test(["demo"], "alphatuning/q9", "lora", "bleu_all")
    with pytest.raises(UserError, match="demo has no model with the rows alphatuning/q9 and lora"):
        list(claims.outcomes(wrong, "demo", table, Results(Cells(table.rows)), []))
