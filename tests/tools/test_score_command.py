"""`python -m alphatune.score`: what it prints, and one line for every mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import alphatune.data
from alphatune.config import Data, Task
from alphatune.data import load_split, task_config, task_names
from alphatune.data.example import Example
from alphatune.metrics import LABEL_METRICS, TEXT_METRICS
from alphatune.metrics.outside import java
from alphatune.metrics.protocols import PROTOCOLS, protocols_of
from alphatune.tools import score as command
from alphatune.tools.score import main

HYPOTHESES = "The cat sat on the red mat .\nA dog barks at the old moon .\nIt rains .\n"
GROUPS = "A cat sat on the red mat .\nThe cat sat on a mat .\n\nA dog barks at the moon .\n\nIt rains today .\n"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("hyp").write_text(HYPOTHESES)
    Path("ref").write_text(GROUPS)
    return tmp_path


def values(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, dict[str, float]]:
    """The values of a run, by group and metric."""
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    return {group: {name: cell["value"] for name, cell in row.items()} for group, row in printed["values"].items()}


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message of a run that must fail with status 2 and one line."""
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_every_task_of_a_run_is_scored_by_its_own_metrics_all_of_one_protocol() -> None:
    assert {"toy", "webnlg", "dart_partial", "samsum", "glue/stsb"} <= set(task_names())
    for name in set(task_names()) - {"own"}:  # whose metrics depend on its kind
        task = task_config(name)
        assert task.metrics
        assert set(task.metrics) <= set(LABEL_METRICS if task.kind == "classification" else TEXT_METRICS)
        (protocol,) = protocols_of(task.metrics)
        assert task.reader in protocol.readers


def test_every_metric_belongs_to_one_protocol() -> None:
    named = [metric for protocol in PROTOCOLS.values() for metric in protocol.metrics]
    assert sorted(named) == sorted([*TEXT_METRICS, *LABEL_METRICS])


def test_the_table_names_values_and_signatures(capsys: pytest.CaptureFixture[str]) -> None:
    Path("subsets").write_text("seen\nunseen\nseen\n")
    argv = ["--task", "webnlg", "--metrics", "bleu,ter", "--hypotheses", "hyp", "--references", "ref"]
    assert main([*argv, "--subsets", "subsets", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("webnlg, 3 inputs, protocol lora (microsoft/LoRA@")
    assert lines[1].split() == ["bleu", "ter"]
    assert [line.split()[0] for line in lines[2:5]] == ["all", "seen", "unseen"]
    assert lines[5].startswith("bleu|")
    assert lines[6].startswith("ter|")
    assert all(line.endswith("|protocol:lora") for line in lines[5:7])


def test_line_ends_and_a_last_newline_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--task", "webnlg", "--metrics", "bleu,ter,bleu_e2e,nist", "--references", "ref", "--hypotheses"]
    plain = values(capsys, *argv, "hyp")
    Path("crlf").write_bytes(HYPOTHESES.replace("\n", "\r\n").encode())
    Path("open").write_text(HYPOTHESES.rstrip("\n"))
    assert values(capsys, *argv, "crlf") == plain
    assert values(capsys, *argv, "open") == plain


def test_an_empty_line_is_an_empty_hypothesis(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hyp").write_text(HYPOTHESES.replace("A dog barks at the old moon .", ""))
    Path("subsets").write_text("a\nempty\nb\n")
    argv = ["--task", "webnlg", "--metrics", "ter", "--hypotheses", "hyp", "--references", "ref"]
    assert values(capsys, *argv, "--subsets", "subsets")["empty"]["ter"] == 1.0


def test_layouts_agree(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reference0").write_text("A cat sat on the red mat .\nA dog barks at the moon .\nIt rains today .\n")
    Path("reference1").write_text("The cat sat on a mat .\n\n\n")
    argv = ["--task", "webnlg", "--metrics", "bleu,ter", "--hypotheses", "hyp", "--references"]
    grouped = values(capsys, *argv, "ref")
    assert values(capsys, *argv, "reference0", "reference1") == grouped
    assert values(capsys, *argv, "reference") == grouped
    assert values(capsys, *argv, ".") == grouped


def test_references_of_a_split(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def split(task: Task, data: Data, name: str, *, allow_count_mismatch: bool) -> tuple[Task, list[Example]]:
        asked.append((task.name, name))
        texts = ["a cat", "a dog", "It rains ."]
        subsets = ["seen", "unseen", "seen"]
        return task, [Example(f"test-{i}", "", (texts[i],), subsets[i]) for i in range(3)]

    monkeypatch.setattr(command, "split_of", split)
    argv = ["--task", "webnlg", "--metrics", "ter", "--split", "test", "--hypotheses"]
    whole = values(capsys, *argv, "hyp")
    assert list(whole) == ["all", "seen", "unseen"]
    assert asked == [("webnlg", "test")]
    Path("one").write_text("It rains .\n")
    assert "1 hypotheses, but the test split of webnlg has 3 inputs" in fails(capsys, *argv, "one")
    # the same part of the split, said in two ways, and in an order of its own
    Path("ids").write_text("test-2\n")
    assert values(capsys, *argv, "one", "--ids", "ids") == {"all": {"ter": 0.0}, "seen": {"ter": 0.0}}
    lines = [{"id": "test-2", "prediction": "It rains ."}, {"id": "test-1", "prediction": "a cat"}]
    Path("part.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert values(capsys, *argv, "part.jsonl") == {"all": {"ter": 0.25}, "seen": {"ter": 0.0}, "unseen": {"ter": 0.5}}
    for content, message in [
        (
            "test-3\n",
            "the id 'test-3' of hypothesis 1 is not in the test split of webnlg, whose ids are such as 'test-0'",
        ),
        ("test-1\ntest-2\n", "ids: 2 ids, but one has 1 hypotheses"),
        ("\n", "ids, line 1: no id"),
    ]:
        Path("ids").write_text(content)
        assert message in fails(capsys, *argv, "one", "--ids", "ids")
    Path("ids").write_text("test-1\ntest-2\ntest-1\n")
    assert "ids, line 3: the id 'test-1' stands in line 1 already" in fails(capsys, *argv, "hyp", "--ids", "ids")


def test_differences_to_other_texts(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": f"test-{i}", "prediction": text} for i, text in enumerate(["a cat", "a dog", "It rains ."] * 4)]
    Path("refs").write_text("".join(f"{line['prediction']} today\n" for line in lines))
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    worse = [{**line, "prediction": "a"} for line in lines]
    Path("b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(worse)))  # matched by id
    argv = ["--task", "webnlg", "--references", "refs", "--hypotheses", "a.jsonl", "--against"]
    assert command.main([*argv, "b.jsonl", "--metrics", "ter,nist", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["differences"]["all"]) == ["ter"]  # NIST would be worked out anew for every draw
    found, (one,) = told["differences"]["all"]["ter"], [told["values"]["all"]["ter"]["value"]]
    assert found["low"] < found["value"] < found["high"] < 0 < one
    assert command.main([*argv, "b.jsonl", "--metrics", "ter", "--draws", "200"]) == 0
    assert f"all ter: {found['value']:+.4f} [" in capsys.readouterr().out
    Path("part").write_text("a\n")
    assert "--against part: 1 texts, but there are 12 inputs" in fails(capsys, *argv, "part")
    Path("other.jsonl").write_text("".join(json.dumps({**line, "id": f"x{line['id']}"}) + "\n" for line in lines))
    assert "--against other.jsonl: has other ids than a.jsonl" in fails(capsys, *argv, "other.jsonl")
    assert "--against: compares bleu, " in fails(capsys, *argv, "b.jsonl", "--metrics", "nist")
    assert "99 draws: at least 100" in fails(capsys, *argv, "b.jsonl", "--metrics", "ter", "--draws", "99")
    glue = ["--task", "glue/mrpc", "--hypotheses", "part", "--references", "part", "--against", "part"]
    assert "--against: compares texts, and glue/mrpc has labels" in fails(capsys, *glue)


def test_a_run_of_the_toy_task_can_be_scored(capsys: pytest.CaptureFixture[str]) -> None:
    examples = load_split("toy", "test")
    Path("h.jsonl").write_text(
        "".join(json.dumps({"id": e.id, "prediction": e.targets[0], "score": 0.1}) + "\n" for e in reversed(examples))
    )
    printed = values(capsys, "--task", "toy", "--hypotheses", "h.jsonl", "--split", "test")
    assert printed == {group: {"bleu": pytest.approx(100.0)} for group in ("all", "unseen", "seen")}


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "expected"),
    [
        ("glue/cola", "1\n0\n1\n", "1\n0\n1\n", {"matthews": 100.0}),
        ("glue/mrpc", "1\n0\n1\n", "1\n1\n1\n", {"f1": 80.0}),
        ("glue/stsb", "0.5\n2.5\n4.5\n", "1.0\n2\n3.0\n", {"pearson": 100.0}),
        ("mnli", "neutral\nentailment\n", "neutral\nneutral\n", {"accuracy": 50.0}),
    ],
)
def test_glue(capsys, task, predictions, labels, expected) -> None:  # type: ignore[no-untyped-def]
    Path("hyp").write_text(predictions)
    Path("ref").write_text(labels)
    printed = values(capsys, "--task", task, "--hypotheses", "hyp", "--references", "ref")
    assert printed["all"] == pytest.approx(expected)


def test_protocols(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    argv = ["--hypotheses", "hyp", "--references", "ref", "--task"]
    assert set(values(capsys, *argv, "e2e")["all"]) == {"bleu_e2e", "nist"}
    assert set(values(capsys, *argv, "e2e", "--protocol", "e2e-perl")["all"]) == {"nist_perl"}
    assert main([*argv, "e2e", "--protocol", "e2e-perl", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["protocols"] == {"e2e-perl": PROTOCOLS["e2e-perl"].source}
    assert printed["values"]["all"]["nist_perl"]["signature"].endswith("|protocol:e2e-perl")


def test_absent_metrics_are_told_and_none_at_all_is_1(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    argv = ["--task", "e2e", "--hypotheses", "hyp", "--references", "ref", "--metrics"]
    assert main([*argv, "bleu_e2e,cider"]) == 0
    assert "cider is absent: no Java runtime" in capsys.readouterr().out
    assert main([*argv, "cider"]) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "the following arguments are required: --task, --hypotheses"),
        ("--task webnlg --hypotheses hyp", "--references --split is required"),
        (
            "--task webnlgg --hypotheses hyp --references ref",
            "--task webnlgg: must be one of: dart, dart_partial, e2e, glue/cola",
        ),
        ("--task webnlg --hypotheses no --references ref", "no: no such file"),
        ("--task webnlg --hypotheses hyp --references no", "no: no such file"),
        ("--task webnlg --hypotheses empty --references ref", "empty: the file is empty"),
        ("--task webnlg --hypotheses latin --references ref", "latin, line 1: not UTF-8"),
        ("--task webnlg --hypotheses one --references ref", "3 groups of references, but there are 1 hypotheses"),
        ("--task webnlg --hypotheses hyp --references ref --metrics blue", "--metrics blue: unknown"),
        ("--task webnlg --hypotheses hyp --references ref --metrics f1", "--metrics f1: unknown"),
        ("--task webnlg --hypotheses hyp --references ref --metrics ,", "--metrics names none"),
        ("--task webnlg --hypotheses hyp --references ref --metrics ter --protocol lora", "exclude each other"),
        ("--task webnlg --hypotheses hyp --references ref --protocol e2e", "not for webnlg; must be one of: lora, "),
        ("--task webnlg --hypotheses hyp --references ref --protocol x", "--protocol: invalid choice"),
        ("--task webnlg --hypotheses hyp --references ref --ids one", "--ids: only with --split"),
        ("--task webnlg --hypotheses hyp --references ref --subsets one", "one: 1 subset names"),
        ("--task webnlg --hypotheses hyp --references ref --jobs 0", "--jobs 0"),
        ("--task webnlg --hypotheses hyp --references ref --layout x", "--layout: invalid choice"),
        ("--task glue/mrpc --hypotheses hyp --references hyp", "hyp, line 1: 'The cat"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], argv: str, message: str) -> None:
    Path("empty").write_text("")
    Path("latin").write_bytes("caf\xe9\n".encode("latin-1"))
    Path("one").write_text("one\n")
    assert message in fails(capsys, *argv.split())


def test_as_a_program() -> None:
    argv = [sys.executable, "-m", "alphatune.score"]
    env = {"PYTHONPATH": str(Path(alphatune.data.__file__).parents[2]), "PATH": ""}
    done = subprocess.run([*argv, "--help"], capture_output=True, text=True, env=env, check=True)
    assert "reference layouts" in done.stdout
    done = subprocess.run([*argv, "--task", "x"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on the PATH")
def test_all_of_e2e(capsys: pytest.CaptureFixture[str]) -> None:
    printed = values(capsys, "--task", "e2e", "--hypotheses", "hyp", "--references", "ref")
    assert list(printed["all"]) == task_config("e2e").metrics


def test_scores_of_texts_wait_for_neither_scipy_nor_scikit_learn(in_folder: Path) -> None:
    asked = (
        "import sys; from alphatune.tools.score import main; main(sys.argv[1:]); "
        "print(sorted({'scipy', 'sklearn', 'pandas', 'torch', 'hydra'} & set(sys.modules)))"
    )
    argv = ["--task", "samsum", "--hypotheses", "hyp", "--references", "hyp"]
    done = subprocess.run([sys.executable, "-c", asked, *argv], capture_output=True, text=True, check=True)
    assert "rougeL" in done.stdout and done.stdout.endswith("[]\n")


def test_texts_are_matched_by_id_where_one_file_has_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = [Example(f"toy-{i}", "context", (f"text number {i} is long enough",)) for i in range(6)]
    monkeypatch.setattr(command, "split_of", lambda task, *given, **more: (task, split))
    texts = [example.targets[0] for example in split]
    Path("a.txt").write_text("".join(f"{text}\n" for text in texts))
    turned = [{"id": e.id, "prediction": t} for e, t in zip(split, texts, strict=True)][::-1]
    Path("b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in turned))
    argv = ["--task", "toy", "--split", "test", "--metrics", "bleu", "--json"]
    for files in (("a.txt", "b.jsonl"), ("b.jsonl", "a.txt")):
        assert command.main([*argv, "--hypotheses", files[0], "--against", files[1]]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["values"]["all"]["bleu"]["value"] == pytest.approx(100)
        assert told["differences"]["all"]["bleu"]["value"] == 0
    refs = ["--task", "toy", "--references", "a.txt", "--metrics", "bleu"]
    for files, without in ((("a.txt", "b.jsonl"), "a.txt"), (("b.jsonl", "a.txt"), "a.txt")):
        error = fails(capsys, *refs, "--hypotheses", files[0], "--against", files[1])
        assert f"{without} has no ids, so which texts belong together is unknown" in error


def test_what_is_wrong_with_the_other_texts_is_told_before_the_scoring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").write_text("a b\n")
    monkeypatch.setattr(command, "score", lambda *given, **more: pytest.fail("it was scored"))
    argv = ["--task", "toy", "--references", "a", "--hypotheses", "a", "--against"]
    assert "gone: " in fails(capsys, *argv, "gone")
    assert "99 draws" in fails(capsys, *argv, "a", "--draws", "99")
    assert "--against: compares bleu, " in fails(capsys, *argv, "a", "--metrics", "meteor")
