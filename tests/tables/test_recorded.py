"""Records are found as by comparing every cell with every record, and each file is read once."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.run import identity, record
from alphatune.tables import experiment, tabulate
from alphatune.tables.cells import Planner
from alphatune.tables.recorded import Recorded
from alphatune.versions import SCALES, SOLVERS

WEIGHTS = [{"weights_sha256": {"a": "0"}}, {"weights_sha256": {"a": "1"}}]
FILES = [{"train": "x"}, {"train": "y"}]


def _config(i: int) -> Config:
    return config_of(["task=toy", "model=tiny", "method=lora", f"hparams.weight_decay={i / 1000}"])


def _write(  # type: ignore[type-arg]
    root: Path, config: Config, weights: dict, files: dict, finished: str, numbers: Any = None
) -> Path:
    run_id = identity.plan(config, weights, files, numbers).run_id
    path = record.path_of(str(root), run_id)
    made = {"schema": record.SCHEMA, "run_id": run_id, "finished": finished, "model": {"identity": weights},
            "data": {"files": files}}  # fmt: skip
    record.write(path, made)
    return path


def test_each_run_is_found_and_no_file_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {i: _write(tmp_path, _config(i), WEIGHTS[i % 2], FILES[i % 2], "2026-01-01") for i in range(1, 21)}
    reads, planned = [], []
    read, plan = record.read, identity.plan
    monkeypatch.setattr(record, "read", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(identity, "plan", lambda *given: planned.append(1) or plan(*given))
    recorded = Recorded(str(tmp_path))
    assert {i: recorded.find(_config(i), None, None) for i in range(1, 21)} == written
    assert len(reads) == 20 and len(planned) == 40  # two sets of hashes for each of twenty cells, not twenty
    assert recorded.find(_config(99), None, None) is None
    assert recorded.find(_config(2), WEIGHTS[1], None) is None  # of other weights
    assert recorded.find(_config(2), WEIGHTS[0], FILES[0]) == written[2]


def test_the_newest_of_several_is_taken(tmp_path: Path) -> None:
    _write(tmp_path, _config(1), WEIGHTS[0], FILES[0], "2026-01-01")
    newest = _write(tmp_path, _config(1), WEIGHTS[1], FILES[0], "2026-01-03")
    _write(tmp_path, _config(1), WEIGHTS[0], FILES[1], "2026-01-02")
    assert Recorded(str(tmp_path)).find(_config(1), None, None) == newest


def test_a_record_of_an_earlier_solver_is_shown_until_there_is_a_newer_one(tmp_path: Path) -> None:
    config = config_of(["task=toy", "model=tiny", "method=ptq", "quant.solver=gptq"])
    assert identity.numbers_of(config) == (SOLVERS["gptq"], 1) > (1, 1)
    old = _write(tmp_path, config, WEIGHTS[0], FILES[0], "2026-01-09", identity.Numbers())
    assert Recorded(str(tmp_path)).find(config, None, None) == old
    new = _write(tmp_path, config, WEIGHTS[0], FILES[0], "2026-01-01")
    assert new != old and Recorded(str(tmp_path)).find(config, None, None) == new
    greedy = config_of(["task=toy", "model=tiny", "method=ptq", "quant.solver=greedy"])
    assert identity.numbers_of(greedy) == (1, 1)


def test_so_is_one_of_scales_that_earlier_code_trained(tmp_path: Path) -> None:
    config = config_of(["task=toy", "model=tiny", "method=alphatuning", "quant.q=3", "quant.solver=gptq"])
    today = identity.numbers_of(config)
    assert today == (SOLVERS["gptq"], SCALES["first"]) > (1, 1)
    written = []
    for numbers in (identity.Numbers(), identity.Numbers(solver_version=today.solver_version), today):
        written.append(_write(tmp_path, config, WEIGHTS[0], FILES[0], "2026-01-01", numbers))
        assert Recorded(str(tmp_path)).find(config, None, None) == written[-1]
    assert len(set(written)) == 3
    every = config_of(["task=toy", "model=tiny", "method=alphatuning", "method.trainable=all", "quant.q=3"])
    assert identity.numbers_of(every) == identity.numbers_of(_config(1)) == (1, 1)
    for method in (["method=alphatuning", "method.trainable=all"], ["method=peqa"]):  # one plane: all are the first
        assert identity.numbers_of(config_of(["task=toy", "model=tiny", *method, "quant.q=1"])) == (1, SCALES["first"])


def test_a_search_of_an_earlier_solver_still_chooses_the_rate(tmp_path: Path) -> None:
    table = experiment.load("demo")
    row = next(row for row in table.rows if row.id == "tiny/lora")
    codes = ["method=alphatuning", "quant.q=3", "quant.solver=gptq"]
    table.rows = [dataclasses.replace(row, set=codes, search=[1e-3, 3e-3], search_as=None, seeds=[1])]
    planner = Planner(table, [f"runtime.records={tmp_path}"], run=True)
    waiting = planner.cells()
    whole = record.read(next((Path(__file__).parents[2] / "results/records/toy").rglob("*.json")))
    assert [cell.record for cell in waiting.search] == [None, None] and waiting.waiting
    for cell, loss in zip(waiting.search, (2.0, 1.0), strict=True):
        assert cell.plan is not None
        backbone, files = planner._backbone(cell.config)[0], planner._files(cell.config)[0]
        assert backbone is not None and files is not None
        run_id = identity.plan(cell.config, backbone, files, identity.Numbers()).run_id
        assert run_id != cell.plan.run_id
        model, data = {**whole["model"], "identity": backbone}, {**whole["data"], "files": files}
        made = {**whole, "run_id": run_id, "model": model, "data": data, "validation_loss": loss}
        record.write(record.path_of(str(tmp_path), run_id), made)
    found = planner.cells()
    assert found.rates == {"tiny/lora": 3e-3} and not found.waiting
    assert [cell.record for cell in found.final] == [None]  # what is reported is run with today's
    for cell in found.final:
        assert cell.plan is not None
        backbone, files = planner._backbone(cell.config)[0], planner._files(cell.config)[0]
        assert backbone is not None and files is not None
        run_id = identity.plan(cell.config, backbone, files, identity.Numbers()).run_id
        model, data = {**whole["model"], "identity": backbone}, {**whole["data"], "files": files}
        record.write(record.path_of(str(tmp_path), run_id), {**whole, "run_id": run_id, "model": model, "data": data})
    shown = Planner(table, [f"runtime.records={tmp_path}"], run=False).cells()
    results = tabulate.Results(shown)
    assert len(results.earlier) == 1  # and shown until then, with a mark
    (line,) = tabulate.grid("demo", table, results, [], []).lines
    assert all(("earlier" in cell.marks) == (cell.n == 1) for cell in line.cells)


def test_a_bad_record_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = _write(tmp_path, _config(1), WEIGHTS[0], FILES[0], "2026-01-01")
    torn, empty = whole.with_name("seed0-torn.json"), whole.with_name("seed0-empty.json")
    torn.write_text("{")
    record.write(empty, {"schema": record.SCHEMA})
    logging.getLogger("alphatune").propagate = True
    with caplog.at_level(logging.WARNING, "alphatune"):
        assert Recorded(str(tmp_path)).find(_config(1), None, None) == whole
    assert "seed0-torn.json" in caplog.text and "seed0-empty.json" in caplog.text
