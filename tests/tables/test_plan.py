"""The plan tells the truth on one screen; its cost is what was measured, and on a named GPU what the formula says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alphatune.compose.compose import config_of
from alphatune.learn import models
from alphatune.packed.walk import linear_layers, weight_of
from alphatune.run import record
from alphatune.tables import cost, experiment, gpu, plan
from alphatune.tables.cells import Cells, Planner
from alphatune.tools import table

BIG = """
title: Many rows
seeds: [0, 1]
base: [task=toy, model=tiny]
columns: [{key: valid_loss, label: Loss}]
rows:
"""


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides for a machine without data, weights, records and network."""
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path / "none"))
    return [f"runtime.records={tmp_path}/records", f"runtime.artifacts={tmp_path}/store", "data.offline=true"]


def _set(overrides: list[str]) -> list[str]:
    return [argument for override in overrides for argument in ("--set", override)]


def test_a_plan_of_many_rows_fits_a_screen_and_leaves_no_cell_out(
    tmp_path: Path, nowhere: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"  - {{id: tiny/r{i}, label: R{i}, set: [hparams.weight_decay=0.{i:03}]}}\n" for i in range(60))
    (tmp_path / "big.yaml").write_text(BIG + rows)
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    assert table.main(["big", "--plan", *_set(nowhere)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == plan.LINES
    assert lines[0] == "big: 120 cells (60 rows), 0 done, 120 to run"
    shown = sum(line.startswith("  R") for line in lines)
    assert lines[-1] == f"and {60 - shown} more rows (--rows shows a part of them)"


def test_reasons_are_told_once_with_their_counts(nowhere: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["2", "--plan", "--seeds", "0", *_set(nowhere)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table2: 15 cells (15 rows), 0 done, 0 to run, 15 impossible here"
    blocked = [line for line in lines if "cannot run here: " in line]
    assert [line.split(" cannot")[0] for line in blocked] == ["15 cells", "8 cells", "7 cells"]
    assert "make data TASK=webnlg" in blocked[0] and "gpt2-large" in blocked[1] and "gpt2-medium" in blocked[2]
    assert any("on one A100 80GB: about" in line and "estimate" in line for line in lines)
    assert len(lines) <= plan.LINES


def _recorded(path: Path, config: Any, seconds: float, machine: tuple[str, str | None]) -> None:
    """A record of a run that took `seconds` to adapt."""
    made = {
        "schema": record.SCHEMA, "config": record.public_config(config), "stages": {"adapt (made)": "0"},
        "timings": {"adapt": seconds}, "environment": {"cpu": machine[0], "gpu": machine[1]},
    }  # fmt: skip
    record.write(path, made)


def _cells(overrides: list[str]) -> Cells:
    demo = experiment.load("demo")
    demo.rows = [row for row in demo.rows if row.id == "tiny/lora"]
    demo.seeds = [0]
    return Planner(demo, overrides, run=False).cells()


def test_the_cost_is_the_median_of_this_machines_runs_by_work(tmp_path: Path, nowhere: list[str]) -> None:
    cells = _cells(nowhere).final
    here, config = (record.cpu(), cost._machine()[1]), cells[0].config
    for i, seconds in enumerate((10.0, 30.0, 50.0)):
        _recorded(tmp_path / "records" / f"{i}.json", config, seconds, here)
    _recorded(tmp_path / "records" / "other.json", config, 7000.0, ("another processor", None))
    found = cost.of(cells)
    assert (found.seconds, found.judged, found.here) == (pytest.approx(30.0), 1, True)
    assert found.counts["adapt"] == 1 and found.unmeasured  # decoding is not measured
    twice = _cells([*nowhere, f"hparams.epochs={2 * config.hparams.epochs}"]).final
    assert cost.of(twice).seconds == pytest.approx(60.0)


def test_runs_of_another_machine_are_said_to_be_so(tmp_path: Path, nowhere: list[str]) -> None:
    cells = _cells(nowhere).final
    _recorded(tmp_path / "records" / "other.json", cells[0].config, 70.0, ("another processor", None))
    found = cost.of(cells)
    assert not found.here and any("on another machine (another processor): about 70 s" in s for s in found.lines)


@pytest.mark.parametrize("model", ["gpt2", "gpt2-medium", "gpt2-large", "opt-125m", "opt-1.3b", "tiny"])
def test_the_shape_of_the_estimate_is_that_of_the_network(model: str) -> None:
    """Against the modules of transformers, built without weights."""
    config = config_of([f"model={model}"])
    network, shape = models.skeleton(config.model), gpu.shape(config)
    assert shape is not None
    assert shape.weights == sum(weight_of(layer).numel() for layer in linear_layers(network).values())
    assert shape.vocabulary == network.config.vocab_size  # type: ignore[union-attr]


def test_the_estimate_follows_the_formula() -> None:
    """Full fine-tuning of GPT-2 M on WebNLG in float32 on an A100, worked out by hand."""
    config = config_of(["task=webnlg", "model=gpt2-medium", "method=full_ft"])
    weights = 12 * 24 * 1024**2 + 50257 * 1024
    seen = 18025 * config.hparams.epochs
    expected = 6 * weights * seen * (50 + 32) / (0.4 * 19.5e12)
    assert gpu.stage_seconds("adapt", config, gpu.DEFAULT) == pytest.approx(expected)
    frozen = config_of(["task=webnlg", "model=gpt2-medium", "method=lora"])
    again = gpu.stage_seconds("adapt", frozen, gpu.DEFAULT)
    assert again == pytest.approx(expected * 4 / 6 * frozen.hparams.epochs / config.hparams.epochs)
    assert gpu.stage_seconds("adapt", config_of(["model.name_or_path=/nowhere"]), gpu.DEFAULT) is None


def test_a_record_that_lacks_a_part_is_left_out_of_the_estimate(
    tmp_path: Path, nowhere: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    record.write(tmp_path / "records" / "part.json", {"schema": record.SCHEMA, "run_id": "x"})
    assert cost._past(str(tmp_path / "records")) == []
    assert "part.json: a part of the record is missing" in caplog.text


def test_work_that_is_not_counted_is_compared_within_its_task_only() -> None:
    toy, webnlg = (record.public_config(config_of([f"task={task}", "model=tiny"])) for task in ("toy", "webnlg"))
    assert not toy["task"]["counts"] and webnlg["task"]["counts"]
    assert not set(cost._kinds(toy)) & set(cost._kinds(webnlg))
    assert len(set(cost._kinds({**webnlg, "task": {**webnlg["task"], "name": "dart"}})) & set(cost._kinds(webnlg))) == 2
