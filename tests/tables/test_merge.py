"""Rows that a substitute model makes the same run are there once, with a line that says so."""

from __future__ import annotations

from alphatune.tables import experiment
from alphatune.tables.merge import merged, of_model


def test_rows_of_two_models_fall_together_on_a_third() -> None:
    table = experiment.load("table2")
    found, told = merged(table, ["model=tiny", "task=toy"])
    assert told == "7 of 15 rows are left out: on tiny they are the same runs as rows that stay"
    assert [row.id for row in found.rows] == [*(r.id for r in table.rows if r.id.startswith("gpt2-m/")),
                                              "gpt2-l/alphatuning/q1"]  # fmt: skip
    assert {row.group for row in found.rows} == {"tiny"}  # labels tell them apart
    assert len(table.rows) == 15 and {row.group for row in table.rows} == {"GPT-2 M", "GPT-2 L"}  # itself untouched


def test_rows_that_differ_stay_as_they_are() -> None:
    table = experiment.load("demo")
    assert merged(table, ["model=tiny"]) == (table, "")


def test_what_puts_another_model_in_place() -> None:
    assert of_model(["task=toy", "model.name_or_path=/x"]) and of_model(["model=tiny"])
    assert not of_model(["quant.q=2", "runtime.records=model=x"])
