"""A user's own task like a built-in one: runs, records, scores, tables. The examples of docs/own-task.md run here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import QUICK, ROOT

from alphatune.compose.compose import config_of
from alphatune.run import execute as running
from alphatune.run import identity, record
from alphatune.run.execute import execute
from alphatune.tools import package, score, table

EXAMPLES = ROOT / "examples" / "own"
METHODS = ["full_ft", "ptq_full_ft", "lora", "ptq_w_plus_lora", "ptq_merged_lora", "alphatuning", "peqa", "bcq_lora",
           "ptq"]  # fmt: skip


def test_from_files_to_a_record_and_a_table(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the page, on a smaller model: generation, everything typed."""
    given = ["task=own", "task.name=weather", *(f"data.{s}={EXAMPLES}/weather/{s}.jsonl" for s in ("train", "valid")),
             f"data.test={EXAMPLES}/weather/test.csv", "task.fields.input=report", "task.fields.target=text",
             "task.fields.references=text*", "task.metrics=[bleu,ter]", "task.max_context=120"]  # fmt: skip
    assert running.main([*given, *quick, "method=lora"]) == 0
    (path,) = (tmp_path / "records").rglob("*.json")
    made = record.read(path)
    assert path.relative_to(tmp_path / "records").parts[:3] == ("weather", "tiny", "lora")
    assert set(made["scores"]["all"]) == {"bleu", "ter"} and made["validation_loss"] > 0
    assert set(made["data"]["files"]) == {"train.jsonl", "validation.jsonl", "test.csv"}
    assert str(tmp_path) not in path.read_text() and str(EXAMPLES) not in path.read_text()

    # the same task in one file, beside copies of the data: the same run, which a table finds
    copy = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLES, copy)
    mine, setting = copy / "weather.yaml", [o for o in quick if not o.startswith("runtime")]
    assert execute(config_of([f"task={mine}", *quick, "method=lora"])) == path
    rows = "\n".join(f"- {{id: tiny/{m}, label: {m}, set: [method={m}]}}" for m in METHODS)
    base = ", ".join(["task=weather.yaml", "model=tiny", *setting])
    (copy / "mine.yaml").write_text(
        f"title: Mine\nseeds: [0]\nbase: [{base}]\ncolumns: [{{key: bleu_all, label: BLEU}}]\nrows:\n{rows}\n"
    )
    arguments = [str(copy / "mine.yaml"), "--out", str(tmp_path), *(f"--set={o}" for o in quick if "runtime" in o)]
    assert table.main([*arguments, "--plan"]) == 0
    assert "9 cells (9 rows), 1 done, 8 to run" in capsys.readouterr().out
    assert table.main([*arguments, "--render"]) == 0
    assert str(path) in (tmp_path / "mine.csv").read_text()
    assert "data weather (24 training examples, 8 inputs evaluated)" in (tmp_path / "mine.md").read_text()

    # other content is another run
    with (copy / "weather" / "valid.jsonl").open("a") as file:
        file.write('{"report": "town : Bonn", "text": "Bonn."}\n')
    assert table.main([*arguments, "--plan"]) == 0
    assert "9 cells (9 rows), 0 done, 9 to run" in capsys.readouterr().out


def test_classes_are_found_scored_and_packaged(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = f"task={EXAMPLES / 'speech.yaml'}"
    path = execute(config_of([mine, *quick, "method=alphatuning", "quant.q=2"]))
    made = record.read(path)
    assert made["data"]["labels"] == ["question", "request", "statement"]
    assert made["config"]["task"]["labels"] == []  # as it was asked for
    assert set(made["scores"]["all"]) == {"accuracy", "matthews"}

    # a file of labels by name, and the run's own predictions, score as the record says
    store = next(Path(o.partition("=")[2]) for o in quick if o.startswith("runtime.artifacts"))
    key = next(k for stage, k in made["stages"].items() if stage.startswith("decode"))
    predictions = store / "decode" / key / "predictions.jsonl"
    command = ["--task", str(EXAMPLES / "speech.yaml"), "--split", "test", "--json", "--hypotheses"]
    assert score.main([*command, str(predictions)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == "speech" and told["values"]["all"] == made["scores"]["all"]
    rows = [json.loads(line) for line in (EXAMPLES / "speech" / "test.jsonl").open()]
    (tmp_path / "gold").write_text("".join(f"{row['act']}\n" for row in rows))
    assert score.main([*command, str(tmp_path / "gold")]) == 0
    assert json.loads(capsys.readouterr().out)["values"]["all"]["accuracy"]["value"] == 100.0
    assert score.main([*command[:2], "--references", str(tmp_path / "gold"), *command[4:], str(tmp_path / "gold")]) == 0
    (tmp_path / "bad").write_text("question\nrequest\nanswer\n")
    assert score.main([*command, str(tmp_path / "bad"), "--ids", str(tmp_path / "gold")]) == 2

    # the weights of the record are found again, with as many classes
    source = package.run_of(made, None, str(store), "model")
    assert source.config.task.labels == made["data"]["labels"]
    assert source.plan.run_id == made["run_id"]


def test_regression_predicts_numbers(quick: list[str], tmp_path: Path) -> None:
    lines = "".join(f"{'very ' * n}good\t{n / 2}\n" for n in range(9))
    (tmp_path / "a.tsv").write_text(f"text\tstars\n{lines}")
    file = tmp_path / "a.tsv"
    config = config_of([
        "task=own", "task.kind=regression", f"data.train={file}", f"data.valid={file}", f"data.test={file}",
        "task.fields.sentence1=text", "task.fields.label=stars", *quick, "method=full_ft", "hparams.epochs=4",
        "hparams.learning_rate=1e-2",
    ])  # fmt: skip
    made = record.read(execute(config))
    assert set(made["scores"]["all"]) == {"pearson", "spearman"}
    assert made["config"]["task"]["name"] == "own"


def test_what_is_missing_is_told(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*more: str) -> str:
        assert running.main(["task=own", *quick, *more]) == 2
        return capsys.readouterr().err

    file = EXAMPLES / "weather" / "train.jsonl"
    fields = ["task.fields.input=report", "task.fields.target=text"]
    assert f"{file} line 1: no field input (task.fields.input); its fields are report, text" in told(
        f"data.train={file}"
    )
    assert "no test examples" in (line := told(*fields, f"data.train={file}")) and "give data.test=FILE" in line
    assert "no train examples" in (line := told(*fields, f"data.test={file}")) and "give data.train=FILE" in line
    assert "accuracy is of labels, but task=own is generation" in told(
        *fields, f"data.train={file}", f"data.test={file}", "task.metrics=[accuracy]"
    )
    (tmp_path / "hyp").write_text("a\n")
    assert score.main(["--task", "own", "--split", "test", "--hypotheses", str(tmp_path / "hyp")]) == 2
    assert "no files: give data.train=FILE" in capsys.readouterr().err
    assert score.main(["--task", "gone.yaml", "--split", "test", "--hypotheses", str(file)]) == 2
    assert "task=gone.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["weather", "speech"])
def test_the_example_tables_have_every_method(name: str) -> None:
    from alphatune.tables import experiment

    found = experiment.load(str(EXAMPLES / f"{name}_methods.yaml"))
    assert {config_of([*found.base, *row.set]).method.name for row in found.rows} == set(METHODS)


def test_old_names_of_runs_stay() -> None:
    """The names of fields are in no spec of a task that does not use them."""
    config = config_of(["task=toy", *QUICK])
    assert "fields" not in identity.plan(config, {}, {}).decoded["data"]["task"]
