"""The sweep files: Table 10's ranges, commands that W&B's agent can run, and configs that compose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.search import sweep

FOLDER = ROOT / "experiments" / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))

# Table 10: learning rates and weight decays by method; q of the AlphaTuning rows
DENSE = ([1e-4, 2e-4, 5e-4], [0.0, 0.01, 0.02])
ALPHA = ([1e-4, 2e-4, 5e-4, 1e-3, 2e-3], [0.0, 0.01, 0.05, 0.1])
BITS = {
    ("webnlg", "gpt2-medium"): [2, 3], ("webnlg", "gpt2-large"): [1, 2, 3], ("dart", "gpt2-medium"): [2, 3],
    ("dart", "gpt2-large"): [2, 3], ("e2e", "gpt2-medium"): [2, 3], ("e2e", "gpt2-large"): [1, 2],
}  # fmt: skip
GROUPS = [
    (task, model, method)
    for task, model in BITS
    for method in (("alphatuning",) if task == "dart" else ("full_ft", "lora", "alphatuning"))
]
METRIC = {"webnlg": "bleu/all", "dart": "bleu/all", "e2e": "bleu_e2e/all"}


def as_wandb_reads(path: Path) -> dict[str, Any]:
    """The file through the YAML reader that W&B uses, which takes 1e-4 for a text."""
    return yaml.safe_load(path.read_text())


def test_there_is_a_file_for_every_group_of_table_10() -> None:
    assert {p.stem for p in FILES} == {"-".join(group) for group in GROUPS} | {"toy-tiny-alphatuning"}


@pytest.mark.parametrize(("task", "model", "method"), GROUPS)
def test_ranges_are_those_printed(task: str, model: str, method: str) -> None:
    content = as_wandb_reads(FOLDER / f"{task}-{model}-{method}.yaml")
    rates, decays = ALPHA if method == "alphatuning" else DENSE
    expected = {"hparams.learning_rate": {"values": rates}, "hparams.weight_decay": {"values": decays}}
    if method == "alphatuning":
        expected["quant.q"] = {"values": BITS[task, model]}
    assert content["parameters"] == expected
    assert content["metric"] == {"name": METRIC[task], "goal": "maximize"}
    assert {f"task={task}", f"model={model}", f"method={method}"} <= set(content["command"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_file_has_what_wandb_needs(path: Path) -> None:
    content = as_wandb_reads(path)
    assert content["method"] == "grid" and content["name"] == path.stem and content["project"] == "alphatune"
    assert (ROOT / content["program"]).is_file()
    assert content["command"][:4] == ["${env}", "${interpreter}", "-m", "alphatune.run"]
    assert content["command"][-1] == "${args_no_hyphens}"
    assert {"logger=wandb", "task.evaluate_on=validation"} <= set(content["command"])
    assert content.keys() == {"program", "name", "project", "method", "metric", "parameters", "command"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_first_point_composes_and_is_selected_on_validation(path: Path) -> None:
    read = sweep.load(str(path))
    assert not any(o.startswith("logger") for o in read.fixed)
    point = read.grid()[0]
    config = config_of(read.overrides(point))
    assert "-".join((config.task.name, config.model.name, config.method.name)) == path.stem
    assert config.hparams.learning_rate == point["hparams.learning_rate"]
    assert config.hparams.weight_decay == point["hparams.weight_decay"]
    assert config.quant.q == point.get("quant.q", 3)
    assert config.task.evaluate_on == "validation" and config.seed == 0
    assert config.hparams.provenance.startswith("a point of ")
    metric, _, group = read.metric.partition("/")
    assert metric in config.task.metrics and group == "all"


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_point_composes(path: Path) -> None:
    read = sweep.load(str(path))
    for point in read.grid():
        hparams = config_of(read.overrides(point)).hparams
        assert (hparams.learning_rate, hparams.weight_decay) == tuple(point.values())[:2]


def agents_command(path: Path, point: dict[str, Any]) -> list[str]:
    """The command line that `wandb agent` makes of a file and a point, by the agent's own code."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    told = {"args": {key: {"value": value} for key, value in point.items()}}
    words = utils.create_sweep_command_args(told) | {"env": ["/usr/bin/env"], "interpreter": ["python"]}
    command = utils.create_sweep_command(as_wandb_reads(path)["command"])
    return [w for part in command for w in (words[part[2:-1]] if part.startswith("${") else [part])]


def test_the_agent_runs_this_project_with_the_overrides() -> None:
    path = FOLDER / "webnlg-gpt2-medium-alphatuning.yaml"
    point = sweep.load(str(path)).grid()[-1]
    assert agents_command(path, point) == [
        "/usr/bin/env", "python", "-m", "alphatune.run", "task=webnlg", "model=gpt2-medium", "method=alphatuning",
        "task.evaluate_on=validation", "hparams.provenance=a point of the grid of Table 10", "logger=wandb",
        "hparams.learning_rate=0.002", "hparams.weight_decay=0.1", "quant.q=3",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_under_an_agent_is_the_agents_run(quick: list[str], tmp_path: Path) -> None:
    from test_track import wandb_run

    path = FOLDER / "toy-tiny-alphatuning.yaml"
    point = sweep.load(str(path)).grid()[0]
    (tmp_path / "config.yaml").write_text("".join(f"{key}:\n  value: {value}\n" for key, value in point.items()))
    given = os.environ | {
        "WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "agent456", "WANDB_PROJECT": "shelf",
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "config.yaml"), "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    for folder in ("first", "recorded"):  # the second time the record is there, and the agent gets its numbers
        (tmp_path / folder).mkdir()
        command = [*agents_command(path, point), *quick]
        done = subprocess.run(command, cwd=tmp_path / folder, env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        run = wandb_run(tmp_path / folder)
        assert (run["id"], run["project"], run["exit"]) == ("agent456", "shelf", 0)
        assert {"bleu/all", "validation_loss"} <= run["summary"].keys()
        assert len(run["history"]) >= 2
        assert run["config"]["hparams"]["learning_rate"] == run["config"]["hparams.learning_rate"] == 0.003
    assert len(list((tmp_path / "records").rglob("*.json"))) == 1


GOOD: dict[str, Any] = {
    "method": "random", "metric": {"name": "valid_loss"}, "run_cap": 4,
    "command": ["${env}", "python", "-m", "alphatune.run", "seed=3", "logger=wandb", "logger.mode=offline"],
    "parameters": {
        "hparams.learning_rate": {"min": 0.001, "max": 0.1, "distribution": "log_uniform_values"},
        "hparams.warmup_steps": {"min": 0, "max": 10},
        "hparams.dropout": {"min": 0, "max": 0.5, "q": 0.1, "distribution": "q_uniform"},
        "quant.group_size": {"values": [None, "h", 64]},
        "trainer.gradient_checkpointing": {"value": False},
    },
}  # fmt: skip


def test_ranges_constants_and_aliases_are_read(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    read = sweep.load(str(tmp_path / "mine.yaml"))
    assert (read.name, read.metric, read.maximize, read.method, read.run_cap) == (
        "mine", "validation_loss", False, "random", 4,
    )  # fmt: skip
    assert read.fixed == ("seed=3", "trainer.gradient_checkpointing=false")
    d = optuna.distributions
    assert [p.distribution() for p in read.parameters] == [
        d.FloatDistribution(0.001, 0.1, log=True), d.IntDistribution(0, 10), d.FloatDistribution(0.0, 0.5, step=0.1),
        d.CategoricalDistribution((None, "h", 64)),
    ]  # fmt: skip
    assert read.overrides({"quant.group_size": None, "x": True, "y": 0.5})[2:] == [
        "quant.group_size=null", "x=true", "y=0.5",
    ]  # fmt: skip
    with pytest.raises(UserError, match="^mine: hparams.learning_rate has a range: a grid needs values; use --sampler"):
        read.grid()


def _with(**changes: Any) -> str:
    return yaml.safe_dump({**GOOD, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not a readable YAML file: "),
        ("- 1", "not of the form key: value"),
        ("", "no command, or one of the wrong kind"),
        (_with(parameters=[1]), "no parameters, or one of the wrong kind"),
        (_with(metric={}), "no metric, or one of the wrong kind"),
        (_with(method="guess"), "method=guess: must be one of: grid, random, bayes"),
        (_with(metric={"name": "x", "goal": "up"}), "metric: must have a name, and as goal minimize or maximize"),
        (_with(command=["python", "train.py"]), "command: does not run alphatune.run"),
        (_with(run_cap=0), "run_cap=0: must be a whole number from 1"),
        (_with(parameters={"a": {"value": 1}}), "parameters: nothing is searched"),
        (_with(parameters={"a": 3}), "parameters: a: must have value, values, or min and max"),
        (_with(parameters={"a": {"values": 3}}), "parameters: a: values must be a list of single values"),
        (_with(parameters={"a": {"min": 1, "max": "b"}}), "parameters: a: min, max and q must be numbers"),
        (_with(parameters={"a": {"min": 2, "max": 1}}), "parameters: a: min=2, max=1, q=None is no range for"),
        (_with(parameters={"a": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}), "parameters: a: min=0"),
        (_with(parameters={"a": {"min": 0, "max": 1, "distribution": "beta"}}),
         "parameters: a: distribution=beta: must be one of: uniform, int_uniform, q_uniform, log_uniform_values"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        sweep.load(str(path))
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_a_missing_file_names_those_that_are_there() -> None:
    with pytest.raises(UserError, match="^nowhere: no such file; sweeps of experiments/sweeps/: dart-gpt2-large-"):
        sweep.load("nowhere")
