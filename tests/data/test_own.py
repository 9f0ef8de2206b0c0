"""A user's own files: what is read, and one line with file, line number and the fields that are there for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alphatune.config import Data, Fields, Task
from alphatune.data import own
from alphatune.data.example import Dataset, Example
from alphatune.errors import UserError


def jsonl(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def text(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def read(task: Task, **files: str) -> Dataset:
    return own.read(task, Data(**files))  # type: ignore[arg-type]


def task(kind: str = "generation", labels: list[str] | None = None, **fields: str) -> Task:
    return Task(name="mine", kind=kind, reader="own", labels=labels or [], fields=Fields(**fields))


def refused(task: Task, **files: str) -> str:
    with pytest.raises(UserError) as caught:
        read(task, **files)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_generation_from_three_formats(tmp_path: Path) -> None:
    found = read(
        task(input="q", target="a", references="ref*"),
        train=jsonl(tmp_path / "t.jsonl", {"q": "1 + 1", "a": "2", "ref": "two"}, {"q": "0", "a": ["0", "zero"]}),
        valid=text(tmp_path / "v.TSV", 'q\tref1\tref2\nx, y\tan "x"\t\n"a\tb"\t1\t2\n'),
        test=text(tmp_path / "w.csv", '\ufeffref0,q,ref1\n"a, ""b""",c,"two\nlines"\n'),
    )
    assert [(e.id, e.text, e.targets) for e in found.train] == [
        ("train-0", "1 + 1", ("2",)), ("train-1", "0", ("0", "zero")),
    ]  # fmt: skip
    assert [(e.text, e.targets) for e in found.validation] == [("x, y", ('an "x"',)), ("a\tb", ("1", "2"))]
    assert found.test == [Example("test-0", "c", ('a, "b"', "two\nlines"))]
    assert list(found.files) == ["train.jsonl", "validation.tsv", "test.csv"]


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    first = read(task(), test=jsonl(tmp_path / "a.jsonl", {"input": "x", "target": "y"}))
    (tmp_path / "b").mkdir()
    second = read(task(), test=jsonl(tmp_path / "b" / "c.jsonl", {"input": "x", "target": "y"}))
    other = read(task(), test=jsonl(tmp_path / "a.jsonl", {"input": "x", "target": "z"}))
    assert first.files == second.files != other.files


def test_without_a_target_training_takes_the_references(tmp_path: Path) -> None:
    rows = [{"input": "x", "refs": ["a", "b"]}]
    found = read(
        task(references="refs"), train=jsonl(tmp_path / "a.jsonl", *rows), test=jsonl(tmp_path / "b.jsonl", *rows)
    )
    assert found.train[0].targets == found.test[0].targets == ("a", "b")


LABELS = {  # labels of the training file, of the test file, the classes, the indices of the test file
    "names": (["no", "yes", "no"], ["yes", "no"], ["no", "yes"], [1, 0]),
    "names by index": (["no", "yes"], [1, "0"], ["no", "yes"], [1, 0]),
    "numbers in their order": ([10, 9, 2], ["10", 2], ["2", "9", "10"], [2, 0]),
    "numbers are names, not indices": (["2", "1"], [1, "2"], ["1", "2"], [0, 1]),
    "truth values": ([True, False], ["true"], ["false", "true"], [1]),
    "blanks around": (["a ", "b"], [" b"], ["a", "b"], [1]),
}


@pytest.mark.parametrize("case", LABELS)
def test_classes_are_those_of_the_training_file(case: str, tmp_path: Path) -> None:
    train, test, classes, indices = LABELS[case]
    files = [jsonl(tmp_path / f"{name}.jsonl", *({"sentence1": "s", "label": label} for label in labels))
             for name, labels in (("train", train), ("test", test))]  # fmt: skip
    found = read(task("classification"), train=files[0], test=files[1])
    assert found.labels == classes
    assert [e.label for e in found.test] == indices
    resolved = own.resolved(task("classification"), found)
    assert (resolved.kind, resolved.labels) == ("classification", classes)


def test_given_classes_keep_their_order(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        {"sentence1": "s", "sentence2": "t", "label": "x"},
        {"sentence1": "s", "sentence2": "t", "label": 2},
    )
    found = read(task("classification", ["z", "x", "y"], sentence2="sentence2"), test=file)
    assert [e.label for e in found.test] == [1, 2]
    assert found.test[0].text_pair == "t"


def test_regression_and_subsets(tmp_path: Path) -> None:
    described = task("regression", label="score", subset="from")
    described.evaluate_on = "test"
    file = text(tmp_path / "a.csv", "sentence1,score,from\na,-1.5,web\nb,2e2,book\n")
    found = read(described, test=file)
    assert [(e.label, e.subset) for e in found.test] == [(-1.5, "web"), (200.0, "book")]
    resolved = own.resolved(described, found)
    assert (resolved.kind, resolved.labels, resolved.subsets) == ("classification", [], ["book", "web"])


GOOD = {"input": "x", "target": "y"}
BAD_GENERATION = {  # the file's name and content, what the line says
    "field": ("a.jsonl", '{"input": "x", "target": "y"}\n{"input": "x", "taget": "y"}\n',
              "a.jsonl line 2: no field target (task.fields.target); its fields are input, taget"),
    "column": ("a.csv", "imput,target\nx,y\n",
               "a.csv line 2: no field input (task.fields.input); its fields are imput, target"),
    "number": ("a.jsonl", '{"input": 7, "target": "y"}', "a.jsonl line 1: input is 7, must be text"),
    "null": ("a.jsonl", '{"input": "x", "target": null}', "a.jsonl line 1: target is null, must be text"),
    "empty": ("a.csv", "input,target\nx,y\nx, \n", "a.csv line 3: target is ' ', must be text with a word in it"),
    "no references": ("a.jsonl", '{"input": "x", "target": []}',
                      "target is [], must be text, or a list of one text or more"),
    "json": ("a.jsonl", '{"input": "x", "target": "y"}\n{"input": ', "a.jsonl line 2: not JSON"),
    "list": ("a.jsonl", '["x", "y"]', "a.jsonl line 1: the content is ['x', 'y'], must be an object with named fields"),
    "cells": ("a.csv", "input,target\nx,y,z\n", "a.csv line 2: 3 fields, must be 2 as in the header"),
    "quote": ("a.csv", 'input,target\nx,"y\n', "a.csv line 2: not CSV"),
    "twice": ("a.csv", "input,input\nx,y\n", "2 columns are called input, must be one each"),
    "no row": ("a.csv", "input,target\n", "a.csv: no row in it"),
    "empty file": ("a.jsonl", "", "a.jsonl: the file is empty"),
    "ending": ("a.json", "{}", "its name must end in .jsonl, .csv, .tsv"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_GENERATION)
@pytest.mark.parametrize("key", own.SPLITS.values())
def test_malformed_files_are_told_with_their_line(case: str, key: str, tmp_path: Path) -> None:
    name, content, told = BAD_GENERATION[case]
    assert told in refused(task(), **{key: text(tmp_path / name, content)})


def test_mistakes_of_classes(tmp_path: Path) -> None:
    rows = [{"sentence1": "s", "label": label} for label in ("a", "b")]
    train = jsonl(tmp_path / "a.jsonl", *rows)
    classes = task("classification")

    def test(row: dict[str, Any]) -> str:
        return refused(classes, train=train, test=jsonl(tmp_path / "b.jsonl", rows[0], row))

    assert test({"sentence1": "s", "label": "c"}).endswith(
        f"b.jsonl line 2: the label c is no class: the classes of {train} are a, b"
    )
    assert "b.jsonl line 2: the label 2 is no class" in test({"sentence1": "s", "label": 2})
    assert "b.jsonl line 2: no field label (task.fields.label); its fields are sentence1" in test({"sentence1": "s"})
    assert "b.jsonl line 2: label is '', must be the name of a class" in test({"sentence1": "s", "label": ""})
    assert "label is 1.5, must be text or a whole number" in test({"sentence1": "s", "label": 1.5})
    assert "the label c is no class: task.labels is a, b" in refused(
        task("classification", ["a", "b"]), train=jsonl(tmp_path / "c.jsonl", {"sentence1": "s", "label": "c"})
    )
    assert "every label is a: two classes are needed" in refused(classes, train=jsonl(tmp_path / "d.jsonl", rows[0]))
    assert "without data.train its classes are not known: give task.labels" in refused(classes, test=train)
    assert "a.jsonl line 1: label is 'a', must be a finite number" in refused(task("regression"), train=train)
    assert "must be a finite number" in refused(
        task("regression"), train=text(tmp_path / "e.jsonl", '{"sentence1": "s", "label": NaN}')
    )


def test_mistakes_of_settings(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", GOOD)
    assert "no files: give data.train=FILE" in refused(task())
    assert refused(task(), test=f"{file}l.jsonl").endswith("no such file")
    assert "no such file" in refused(task(), test=str(tmp_path / "folder.jsonl"))
    assert (
        "task.fields.label=x: task.kind=generation has no such field; it has input, target, references and subset"
        in (refused(task(label="x"), test=file))
    )
    assert "task.fields.input: must name a field" in refused(task(input=""), test=file)
    assert "no field refs* (task.fields.references)" in refused(task(references="refs*"), test=file)
