"""The offline search: finds the best, continues after an interrupt, does nothing twice, fails in one line."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from alphatune.compose import compose
from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.run import execute, record
from alphatune.search import search, sweep

optuna = pytest.importorskip("optuna")

FILE = """
method: {method}
metric: {{name: {metric}, goal: {goal}}}
parameters:
{parameters}
command: [python, -m, alphatune.run, task=toy, model=tiny, task.evaluate_on=validation, logger=wandb]
"""
GRID = "  hparams.learning_rate: {values: [0.0, 0.1, 0.02]}"


def write(
    folder: Path, parameters: str = GRID, metric: str = "validation_loss", goal: str = "minimize", method: str = "grid"
) -> str:
    path = folder / "mine.yaml"
    path.write_text(FILE.format(parameters=parameters, metric=metric, goal=goal, method=method))
    return str(path)


class Runs:
    """Calls of `execute`, and what happens at each."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self.interrupt_at = -1
        self.refuse: set[float] = set()

    def enter(self, config: Config) -> None:
        hp = config.hparams
        if len(self.points) == self.interrupt_at:
            raise KeyboardInterrupt
        self.points.append((hp.learning_rate, hp.weight_decay))
        if hp.learning_rate in self.refuse:
            raise UserError("the training loss became nan")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Real runs, counted."""
    runs, real = Runs(), execute.execute

    def counting(config: Config, warnings: list[str] | None = None, origins: Any = None) -> Path:
        runs.enter(config)
        return real(config, warnings, origins)

    monkeypatch.setattr(execute, "execute", counting)
    return runs


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """Runs that take no time: the loss is a bowl around a learning rate of 0.01 and no weight decay."""
    base, runs = compose.config_of(["task.evaluate_on=validation"]), Runs()

    def config_of(overrides: list[str]) -> Config:
        config = copy.deepcopy(base)
        given = dict(o.split("=", 1) for o in overrides)
        config.hparams.learning_rate = float(given.get("hparams.learning_rate", 0.01))
        config.hparams.weight_decay = float(given.get("hparams.weight_decay", 0.0))
        config.seed = int(given.get("seed", 0))
        return config

    def pretend(config: Config, warnings: list[str] | None = None, origins: Any = None) -> Path:
        runs.enter(config)
        hp = config.hparams
        loss = abs(math.log10(hp.learning_rate / 0.01)) + hp.weight_decay if hp.learning_rate else 9.0
        path = tmp_path / "records" / f"{hp.learning_rate}-{hp.weight_decay}.json"
        scores = {"all": {"bleu": {"value": 50 - loss, "signature": ""}}}
        record.write(path, {
            "schema": record.SCHEMA, "run_id": f"toy/tiny/{path.stem}", "status": "completed", "validation_loss": loss,
            "scores": scores, "absent_metrics": {"meteor": "no Java"}, "sizes": {},
        })  # fmt: skip
        return path

    monkeypatch.setattr(compose, "config_of", config_of)
    monkeypatch.setattr(execute, "execute", pretend)
    return runs


@pytest.fixture
def found(tmp_path: Path) -> Any:
    """Calls the command with the journal in the test's folder."""

    def call(file: str, *arguments: str) -> int:
        return search.main([file, "--storage", str(tmp_path / "search.log"), *arguments])

    return call


def test_the_best_of_a_grid_through_an_interrupt_and_then_nothing(
    quick: list[str], counted: Runs, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [word for override in quick for word in ("--set", override)]
    counted.interrupt_at = 1
    assert found(write(tmp_path), *given) == 130
    assert capsys.readouterr().err.endswith("interrupted: finished trials are kept; the same command continues\n")
    counted.interrupt_at = -1
    assert found(write(tmp_path), *given) == 0
    assert [rate for rate, _ in counted.points] == [0.0, 0.1, 0.02]  # the first was not run again
    capsys.readouterr()
    assert found(write(tmp_path), *given) == 0
    assert len(counted.points) == 3
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("mine: 3 trials (grid), 3 finished, 0 to run")

    contents = [json.loads(p.read_text()) for p in (tmp_path / "records").rglob("*.json")]
    best = min(contents, key=lambda c: c["validation_loss"])
    rate = best["config"]["hparams"]["learning_rate"]
    assert said[3].split() == [f"{best['validation_loss']:.4f}", str(rate), best["run_id"]]
    line = next(s for s in said if s.startswith("best: "))
    assert line.startswith("best: python -m alphatune.run task=toy model=tiny task.evaluate_on=validation ")
    assert line.endswith(f" hparams.learning_rate={rate}") and "logger" not in line
    test = next(s for s in said if s.startswith("on the test split, five seeds: "))
    assert "evaluate_on" not in test and test.endswith("seed=0,1,2,3,4")


def test_a_search_for_the_highest_score(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = "  hparams.learning_rate: {values: [0.1, 0.01, 0.001]}\n  hparams.weight_decay: {values: [0.0, 0.5]}"
    assert found(write(tmp_path, parameters, "bleu/all", "maximize")) == 0
    assert pretended.points == [(rate, decay) for rate in (0.1, 0.01, 0.001) for decay in (0.0, 0.5)]
    said = capsys.readouterr().out.splitlines()
    assert said[2].split() == ["bleu/all", "hparams.learning_rate", "hparams.weight_decay", "run"]
    assert said[3].split() == ["50.0000", "0.01", "0.0", "toy/tiny/0.01-0.0"]


RANGES = """\
  hparams.learning_rate: {min: 0.0001, max: 1.0, distribution: log_uniform_values}
  hparams.weight_decay: {min: 0.0, max: 1.0}"""


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interrupted_search_takes_the_same_path(
    sampler: str, pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, RANGES, method="bayes")
    arguments = ["--sampler", sampler, "--trials", "14"]
    assert search.main([file, "--storage", str(tmp_path / "whole.log"), *arguments]) == 0
    whole, pretended.points = pretended.points, []
    assert len(set(whole)) == 14
    for at in (5, 12):
        pretended.interrupt_at = at
        assert found(file, *arguments) == 130
    pretended.interrupt_at = -1
    assert found(file, *arguments) == 0
    assert pretended.points == whole
    assert found(file, *arguments) == 0
    assert pretended.points == whole


def test_no_trial_is_lost_to_a_failed_one_and_a_second_call_tries_it_again(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended.refuse = {0.1}
    assert found(write(tmp_path)) == 1
    said = capsys.readouterr()
    assert "failed: the training loss became nan" in said.err
    assert said.out.splitlines()[5].split(maxsplit=2) == ["failed", "0.1", "the training loss became nan"]
    pretended.refuse = set()
    assert found(write(tmp_path)) == 0
    assert [rate for rate, _ in pretended.points] == [0.0, 0.1, 0.02, 0.1]
    assert "failed" not in capsys.readouterr().out


def test_random_stops_when_nothing_is_left(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(write(tmp_path, method="random"), "--trials", "20") == 0
    assert sorted(rate for rate, _ in pretended.points) == [0.0, 0.02, 0.1]
    assert "nothing is left to try" in capsys.readouterr().err


def test_a_budget_is_the_number_of_finished_trials(pretended: Runs, found: Any, tmp_path: Path) -> None:
    assert found(write(tmp_path), "--trials", "2") == 0
    assert found(write(tmp_path), "--trials", "2") == 0
    assert len(pretended.points) == 2
    (tmp_path / "mine.yaml").write_text((tmp_path / "mine.yaml").read_text() + "run_cap: 3\n")
    assert found(str(tmp_path / "mine.yaml")) == 0
    assert len(pretended.points) == 3


def test_other_settings_are_another_search(pretended: Runs, found: Any, tmp_path: Path) -> None:
    assert found(write(tmp_path)) == 0
    assert found(write(tmp_path), "--set", "seed=1") == 0
    assert len(pretended.points) == 6
    assert found(write(tmp_path, GRID.replace("0.02", "0.02, 0.03"))) == 0
    assert len(pretended.points) == 10  # a recorded run costs nothing when it is asked for again
    assert found(write(tmp_path)) == 0
    assert len(pretended.points) == 10


def test_other_data_is_another_search(
    pretended: Runs, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = search.load_data
    assert found(write(tmp_path)) == 0
    for files in ({"train.jsonl": "0"}, {"train.jsonl": "1"}, {"train.jsonl": "0"}):
        monkeypatch.setattr(search, "load_data", lambda *a, f=files, **k: dataclasses.replace(real(*a, **k), files=f))
        assert found(write(tmp_path)) == 0
    assert len(pretended.points) == 9  # the third was there already


def test_plan_runs_and_writes_nothing(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(write(tmp_path), "--plan") == 0
    assert not pretended.points and not (tmp_path / "search.log").exists()
    assert capsys.readouterr().out.splitlines()[1] == (
        "to run   python -m alphatune.run task=toy model=tiny task.evaluate_on=validation hparams.learning_rate=0.0"
    )
    assert found(write(tmp_path), "--trials", "1") == 0
    assert found(write(tmp_path), "--plan") == 0
    assert [s.split()[0] for s in capsys.readouterr().out.splitlines()[-3:]] == ["9.0000", "to", "to"]


def test_half_a_line_of_a_killed_process_is_dropped(pretended: Runs, found: Any, tmp_path: Path) -> None:
    assert found(write(tmp_path), "--trials", "1") == 0
    with (tmp_path / "search.log").open("ab") as f:
        f.write(b'{"op_code":4,"wor')
    assert found(write(tmp_path)) == 0
    assert len(pretended.points) == 3


def test_the_journal_is_text_and_makes_no_noise(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert found(write(tmp_path, RANGES, method="bayes"), "--trials", "12") == 0
    assert all(json.loads(line) for line in (tmp_path / "search.log").read_text().splitlines())
    assert "[I " not in capsys.readouterr().err
    assert not [w for w in recwarn if "optuna" in str(w.category.__module__)]


def error_of(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said.removeprefix("error: ").rstrip()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ({"metric": "bleu/none"}, [], "mine: metric bleu/none: no such number; must be one of: validation_loss, "
                                      "bleu/all, bleu/unseen, bleu/seen"),
        ({"parameters": "  hparams.rate: {values: [1]}"}, [], "hparams.rate=1: no such key; keys of hparams: "),
        ({"parameters": "  quant.q: {values: [3, 99]}"}, [], "quant.q=99: must be a whole number from 1 to 8"),
        ({}, ["--set", "quant.zzz=1"], "quant.zzz=1: no such key; keys of quant: "),
        ({}, ["--set", "hparams.learning_rate=1"], "hparams.learning_rate=1: mine searches this key"),
        ({}, ["--sampler", "tpe"], "--trials N: how many trials are to be finished in all, a whole number from 1"),
        ({}, ["--trials", "0"], "--trials N: how many trials are to be finished in all, a whole number from 1"),
        ({"parameters": RANGES}, [], "mine: hparams.learning_rate has a range: a grid needs values; use --sampler tpe"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_any_run(
    text: dict[str, str], arguments: list[str], message: str, counted: Runs, found: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert error_of(found(write(tmp_path, **text), *arguments), capsys).startswith(message)
    assert not counted.points and not (tmp_path / "search.log").exists()


def test_missing_data_is_told_once_and_not_by_every_trial(
    counted: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["task=webnlg", f"data.dir={tmp_path}", "data.offline=true"]
    words = [word for override in given for word in ("--set", override)]
    assert "webnlg" in error_of(found(write(tmp_path), *words), capsys)
    assert not counted.points


def test_a_number_that_no_record_has_ends_the_search(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(write(tmp_path, metric="bleu/seen")) == 2
    assert "error: the record has no bleu/seen: it has status, validation_loss, bleu/all" in capsys.readouterr().err
    assert len(pretended.points) == 1
    content = json.loads(next((tmp_path / "records").glob("*.json")).read_text())
    with pytest.raises(UserError, match="^the record has no meteor/all: no Java$"):
        search.objective(content, "meteor/all")


def test_a_damaged_journal_and_one_that_cannot_be_written(
    pretended: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.log"
    bad.write_text("no journal\nat all\n")
    said = error_of(search.main([write(tmp_path), "--storage", str(bad)]), capsys)
    assert said == f"{bad}: damaged; remove it, finished runs are read from their records"
    said = error_of(search.main([write(tmp_path), "--storage", str(bad / "x.log")]), capsys)
    assert said.startswith(f"{bad / 'x.log'}: cannot be read or written: ")


def test_without_optuna(
    pretended: Runs, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert error_of(found(write(tmp_path)), capsys) == "Optuna is not installed; pip install 'alphatune[search]'"
    assert found(write(tmp_path), "--plan") == 0  # what needs no Optuna works without


def test_a_missing_file(found: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(found("nowhere.yaml"), capsys).startswith("nowhere.yaml: no such file; sweeps of experiments/")


def test_the_shipped_toy_sweep_is_known_by_its_name() -> None:
    assert len(sweep.load("toy-tiny-alphatuning").grid()) == 6
