"""`task=mine.yaml`: what the file sets, what wins over it, and one line for every mistake in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphatune.compose.compose import check, config_of, launch
from alphatune.errors import UserError

FILE = """\
task:
  kind: classification
  fields: {sentence1: "a, 'b'", label: ünit}
  labels: ["no", "yes", 3]
data: {train: a.jsonl, test: /abs/c.csv}
hparams: {learning_rate: 1e-2}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my task.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        config_of(list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_ones_own_is_the_task(mine: Path, tmp_path: Path) -> None:
    config = config_of([f"task={mine}", "task.name=mine"])
    task = config.task
    assert (task.name, task.kind, task.reader, task.metrics) == ("mine", "classification", "own", ["accuracy"])
    assert (task.fields.sentence1, task.fields.label, task.labels) == ("a, 'b'", "ünit", ["no", "yes", "3"])
    assert (config.data.train, config.data.valid, config.data.test) == (str(tmp_path / "a.jsonl"), None, "/abs/c.csv")
    assert config.hparams.learning_rate == 0.01


def test_what_is_typed_wins_wherever_it_stands(mine: Path) -> None:
    config = config_of(["hparams.learning_rate=5e-3", "data.train=b.jsonl", "task.name=x", f"task='{mine}'", "seed=3"])
    assert (config.hparams.learning_rate, config.data.train, config.task.name, config.seed) == (5e-3, "b.jsonl", "x", 3)


def test_the_name_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text("data: {test: a.jsonl}\n")
    config = config_of(["task=mine.yml"])
    assert (config.task.name, config.task.metrics, config.data.test) == ("mine", ["bleu"], "a.jsonl")


@pytest.mark.parametrize(("content", "line"), [
    ("task: {feilds: {input: q}}", "task.feilds.input: no such key"),
    ("task: {reader: toy}", "task.reader: no such key"),
    ("task: {kind: tagging}", "task.kind=tagging: must be one of: generation, classification, regression"),
    ("task: {labels: [yes, no]}", "task.labels=[True, False]: must be a list of words; yes, no, on, off need quotes"),
    ("task: {labels: yes}", "task.labels=True: must be a list of words"),
    ("task: {max_context: many}", "task.max_context=many: must be a whole number from 8 to 4096"),
    ("task: {name: [a]}", "task.name=['a']: must be a word"),
    ("task: [", "cannot be read as YAML"),
    ("- task", "not of the form key: value"),
])  # fmt: skip
def test_mistakes_in_the_file(content: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert f"{path}: {line}" in told(f"task={path}")


@pytest.mark.parametrize(("overrides", "line"), [
    (["task=gone.yaml"], "task=gone.yaml: no such file"),
    (["task=a.yaml,b.yaml"], "task=a.yaml,b.yaml: one task file at a time"),
    (["task=a.yaml", "task=b.yaml"], "one task file at a time"),
    (["task=own", "task.name=webnlg"], "task.name=webnlg: must be a name of letters, digits and . _ + -, and none of"),
    (["task=own", "task.name=../x"], "task.name=../x: must be a name"),
    (["task=own", "data.dir=x"], "data.dir=x: task=own has a file for each split"),
    (["task=toy", "data.train=x.jsonl"], "data.train: is of task=own; task=toy is read from data.dir"),
    (["task=glue/rte", "task.kind=regression"], "task.kind=regression: is of task=own"),
    (["task=own", "task.labels=[a,b]"], "task.labels=['a', 'b']: task.kind=generation has no classes"),
    (["task=own", "task.kind=classification", "task.labels=[a,a]"], "must be two names or more, each once"),
])  # fmt: skip
def test_mistakes_on_the_command_line(overrides: list[str], line: str) -> None:
    assert line in told(*overrides)


@pytest.mark.parametrize(("kind", "metrics"), [("generation", ["bleu"]), ("classification", ["accuracy"]),
                                               ("regression", ["pearson", "spearman"])])  # fmt: skip
def test_metrics_by_kind(kind: str, metrics: list[str]) -> None:
    assert config_of(["task=own", f"task.kind={kind}"]).task.metrics == metrics
    assert config_of(["task=own", f"task.kind={kind}", "task.metrics=[]"]).task.metrics == []


def test_sweeps_and_flags_take_a_task_file(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs: list[list[str]] = []
    for arguments in (["-m", f"task={mine}", "task.name=mine", "seed=0,1"], ["seed=2", f"task={mine}", "task.name=x"]):
        check(arguments)
        launch(arguments, jobs.append)
    configs = [config_of(job) for job in jobs]
    assert [(c.seed, c.task.name, c.task.labels) for c in configs] == [
        (0, "mine", ["no", "yes", "3"]), (1, "mine", ["no", "yes", "3"]), (2, "x", ["no", "yes", "3"]),
    ]  # fmt: skip
    launch(["--cfg", "job", f"task={mine}", "--package", "task.fields"], jobs.append)
    assert "label: ünit" in capsys.readouterr().out and len(jobs) == 3
