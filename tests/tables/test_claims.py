"""Claims: intervals decide, and the file speaks of rows and columns that exist."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest

from alphatune.errors import UserError
from alphatune.pages import claims
from alphatune.run import record as records
from alphatune.tables import aggregate, experiment, values, verdicts
from alphatune.tables.aggregate import Mean
from alphatune.tables.experiment import canonical


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
        (0.0, 0.0, "above", 0.0, "not reproduced"),  # no seed has any difference
        (3.0, None, "above", 0.0, "undecided"),  # one seed
        (0.0, 0.0, "close", 0.0, "undecided"),  # two rows that score nothing: within 0 % of nothing
    ],
)
def test_verdicts_follow_the_interval(mean: float, half: float | None, kind: str, margin: float, verdict: str) -> None:
    assert aggregate.decide(Mean(mean, half, 1 if half is None else 5), kind, margin) == verdict
    assert aggregate.decide(None, kind, margin) == "not run"


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [(-0.00333, 8.93, "+0.0 ± 8.9"), (-2.0864, 0.0251, "-2.086 ± 0.025"), (12.4, 37.0, "+12 ± 37"), (1.5, None, "+1.5"),
     (1.5, 0.0, "+1.5 ± 0"), (-0.0004, 0.0012, "-0.0004 ± 0.0012")],
)  # fmt: skip
def test_differences_are_rounded_to_what_their_interval_allows(mean: float, half: float | None, text: str) -> None:
    test = verdicts.Test(["x"], "a", "b", "bleu_all")
    assert verdicts.Outcome(test, "x", "m", "", "undecided", Mean(mean, half, 3), 0.0).found == text


def test_every_claim_of_the_paper_is_there_and_is_tested_or_says_why_not() -> None:
    found = verdicts.load()
    assert [claim.number for claim in found] == list(range(1, 24))
    assert all(bool(claim.tests) != bool(claim.untested) for claim in found)


def test_tests_speak_of_rows_and_columns_that_exist() -> None:
    load = functools.cache(experiment.load)
    for claim in verdicts.load():
        for test in claim.tests:
            for name in map(canonical, test.tables):
                table, other = load(name), load(test.right_table or name)
                left, right = {row.id for row in table.rows}, {row.id for row in other.rows}
                models = test.models or sorted({i.split("/")[0] for i in left})
                pairs = [(f"{m}/{test.left}", f"{test.right_model or m}/{test.right}") for m in models]
                assert any(a in left and b in right for a, b in pairs), (claim.number, test)
                assert not (test.margin and test.percent), (claim.number, test)
                if test.metric == "valid_rise":
                    continue
                for side in (table, other):
                    column = next(c for c in side.columns if c.key == test.metric)
                    assert values.measured(column) != (test.kind == "ratio"), (claim.number, name, test.metric)


@pytest.mark.slow  # composes every row of every table
def test_the_papers_printed_means_are_put_to_the_same_test(tmp_path: Path) -> None:
    """Read off the paper's tables by hand: Table 2 (M, L, All) and Table 13 (L, Unseen, q = 4)."""
    some = [claim for claim in verdicts.load() if claim.number in (2, 5)]
    judged = {claim.number: found for claim, found in verdicts.judge(some, [f"runtime.records={tmp_path}"])}
    lora = {o.model: o.paper for o in judged[2] if o.test.right == "lora" and not o.substitute}
    assert lora == {"gpt2-m": "-2.7, holds", "gpt2-l": "-1.7, holds"}  # 53.1 - 55.8, 55.3 - 57.0; within 10 %
    unseen = {(o.model, o.test.right): o.paper for o in judged[5] if o.table == "table13"}
    assert unseen["gpt2-l", "ptq_w_plus_lora/q4"] == "-10.2, does not hold"  # 23.7 - 33.9
    assert unseen["gpt2-l", "ptq_merged_lora/q4"] == "-5.0, does not hold"  # 23.7 - 28.7
    assert all(not o.paper for o in judged[2] if o.substitute)


def test_margins_in_percent_are_of_the_larger_mean(tmp_path: Path) -> None:
    claim = verdicts.Claim(1, "t", "w", "p", [
        verdicts.Test(["claims_tiny"], "alphatuning/q3", "full_ft", "bleu_all", "close", percent=10),
    ])  # fmt: skip
    [(_, [outcome])] = verdicts.judge([claim], [])
    means = [
        sum(records.read(Path(p))["scores"]["all"]["bleu"]["value"] for p in outcome.records if f"/{method}/" in p) / 3
        for method in ("alphatuning", "full_ft")
    ]
    assert outcome.margin == pytest.approx(0.1 * max(means)) and outcome.count == "3 of 3"
    assert outcome.difference is not None and outcome.difference.mean == pytest.approx(means[0] - means[1])
    assert outcome.verdict == "not reproduced"
    places, [(_, counts)] = claims.summary([(claim, [outcome])])
    assert places[2:] == ["claims_tiny"] and counts == ["-", "-", "1 not reproduced"]


def test_a_look_before_all_seeds_are_there_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    load = experiment.load

    def with_a_seed_to_come(name: str) -> experiment.Experiment:
        table = load(name)
        for row in table.rows:
            row.seeds = [0, 1, 2, 3] if row.id == "tiny/full_ft" else [0, 1, 2]
        table.seeds = [0, 1, 2, 3]
        return table

    test = verdicts.Test(["claims_tiny"], "alphatuning/q3", "full_ft", "bleu_all", note="seen before")
    (outcome,) = verdicts.outcomes(test, "claims_tiny", verdicts.Tables([]))
    assert (outcome.verdict, outcome.count) == ("not reproduced", "3 of 3")
    assert outcome.remarks[0] == "seen before" and outcome.text.count("; seen before") == 1
    monkeypatch.setattr(experiment, "load", with_a_seed_to_come)
    (outcome,) = verdicts.outcomes(test, "claims_tiny", verdicts.Tables([]))
    assert (outcome.verdict, outcome.count) == ("not reproduced", "3 of 3")  # what both rows are to have
    monkeypatch.setattr(experiment, "load", lambda name: dataclasses.replace(load(name), seeds=[0, 1, 2, 3]))
    (outcome,) = verdicts.outcomes(test, "claims_tiny", verdicts.Tables([]))
    assert (outcome.verdict, outcome.count) == ("undecided", "3 of 4")


def test_a_row_may_stand_against_one_of_another_model() -> None:
    test = verdicts.Test(
        ["webnlg_smollm2"], "alphatuning/q3", "lora", "bleu_all", right_model="smollm2", models=["smollm2-greedy"]
    )
    (outcome,) = verdicts.outcomes(test, "webnlg_smollm2", verdicts.Tables([]))
    assert (outcome.model, outcome.compared) == ("smollm2-greedy", "bleu_all: alphatuning/q3 against smollm2/lora")


@pytest.mark.slow
def test_size_claims_are_decided_without_any_run(tmp_path: Path) -> None:
    some = [claim for claim in verdicts.load() if claim.number in (1, 20)]
    judged = {claim.number: found for claim, found in verdicts.judge(some, [f"runtime.records={tmp_path}"])}
    ratios = {(o.model, o.test.right, o.test.metric): o.ratio for o in judged[20]}
    # Table 2: 1420 / 327 MB and 354.9 M / 0.22 M
    assert ratios["gpt2-m", "alphatuning/q3", "total_mb"] == pytest.approx(1419.6 / 327.2, rel=1e-3)
    assert ratios["gpt2-m", "alphatuning/q3", "trainable_params"] == pytest.approx(1604, rel=1e-3)
    assert {o.verdict for o in judged[1]} == {"not run"}


def test_a_claim_about_a_missing_row_is_one_line() -> None:
    wrong = verdicts.Test(["demo"], "alphatuning/q9", "lora", "bleu_all")
    with pytest.raises(UserError, match="demo has no model with the rows alphatuning/q9 and lora"):
        list(verdicts.outcomes(wrong, "demo", verdicts.Tables([])))
