"""From a task's name to checked examples."""

from __future__ import annotations

import dataclasses

import pytest

from alphatune.config import Data
from alphatune.data import fetch, load
from alphatune.errors import UserError

E2E = dataclasses.replace(load.task_config("e2e"), counts={"train": 2, "validation": 1, "test": 1, "test_targets": 2})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ALPHATUNE_DATA", raising=False)
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "train.txt").write_text("name : A||One . \nname : A||Two . \n")
    (tmp_path / "valid.txt").write_text("name : B||Three . \n")
    (tmp_path / "test.txt").write_text("name : C||Four . \nname : C||Five . \n")
    return tmp_path


def test_matching_counts(folder):
    dataset = load.load(E2E, Data(dir=str(folder)))
    assert (len(dataset.train), len(dataset.test)) == (2, 1)
    assert dataset.notes == {"files that differ from the pinned release": 3}
    assert set(dataset.files) == {"train.txt", "valid.txt", "test.txt"}


def test_other_counts_are_refused_or_noted(folder):
    task = dataclasses.replace(E2E, counts={"train": 42061, "validation": 1, "test_targets": 3})
    with pytest.raises(UserError) as caught:
        load.load(task, Data(dir=str(folder)))
    message = str(caught.value)
    assert "train: found 2, expected 42,061; test_targets: found 2, expected 3" in message
    assert "validation" not in message
    assert "data.allow_count_mismatch=true" in message
    dataset = load.load(task, Data(dir=str(folder), allow_count_mismatch=True))
    assert dataset.notes["train: expected 42061, accepted"] == 2
    assert len(dataset.train) == 2


def test_counts_hold_with_or_without_the_dropped_empty_texts(folder):
    (folder / "train.txt").write_text("name : A||One . \nname : A||Two . \nname : A||\n")
    for expected in (2, 3):
        task = dataclasses.replace(E2E, counts={"train": expected})
        assert load.load(task, Data(dir=str(folder))).notes["train: empty texts dropped"] == 1
    with pytest.raises(UserError, match="train: found 2, expected 4"):
        load.load(dataclasses.replace(E2E, counts={"train": 4}), Data(dir=str(folder)))


def test_a_missing_test_file_matters_only_where_it_is_scored(folder):
    (folder / "test.txt").unlink()
    with pytest.raises(UserError, match="test: found 0, expected 1"):
        load.load(E2E, Data(dir=str(folder)))
    load.load(dataclasses.replace(E2E, evaluate_on="validation"), Data(dir=str(folder)))


def test_duplicates_of_the_hub_copy_would_be_caught(folder):
    """The 4,615-row WebNLG test split repeats inputs: grouping hides that, counting the texts does not."""
    (folder / "test.txt").write_text("name : C||Four . \nname : C||Five . \n" * 2)
    with pytest.raises(UserError, match="test_targets: found 4, expected 2"):
        load.load(E2E, Data(dir=str(folder)))


def test_references(folder, monkeypatch):
    monkeypatch.setattr(load, "task_config", lambda name: E2E)
    monkeypatch.setenv("ALPHATUNE_DATA", str(folder))
    (folder / "train.txt").unlink()  # scoring needs no training data
    assert [(e.targets, e.subset) for e in load.load_split("e2e", "test")] == [(("Four .", "Five ."), "all")]
    with pytest.raises(UserError, match="split=dev: must be one of"):
        load.load_split("e2e", "dev")
    with pytest.raises(UserError, match="train: found 0, expected 2.*; --allow-count-mismatch accepts them$"):
        load.load_split("e2e", "train")


def test_the_remedy_for_other_counts_works_where_scores_are_computed(folder, monkeypatch, capsys):
    from alphatune.tools.score import main

    monkeypatch.setenv("ALPHATUNE_DATA", str(folder))  # one input instead of the published 630
    (folder / "hyp").write_text("Four .\n")
    argv = ["--task", "e2e", "--split", "test", "--hypotheses", str(folder / "hyp"), "--metrics", "ter"]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "data.allow_count_mismatch" not in told
    assert main([*argv, *[word for word in told.split() if word.startswith("--")]]) == 0
    assert "1 inputs" in capsys.readouterr().out.splitlines()[0]
    assert main([*argv[:2], "--references", "x", *argv[4:], "--allow-count-mismatch"]) == 2
    assert "is for the data that --split names" in capsys.readouterr().err


def test_hidden_labels_are_no_references(tmp_path, monkeypatch):
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    for name, label in (("train", "\tentailment"), ("dev", "\tentailment"), ("test", "")):
        head = "index\tsentence1\tsentence2" + ("\tlabel" if label else "")
        (folder / f"{name}.tsv").write_text(f"{head}\n0\ta\tb{label}\n")
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path))
    monkeypatch.setattr(load, "count_problems", lambda *args: {})
    with pytest.raises(UserError, match="glue/rte: the labels of its test split are hidden; use --split validation"):
        load.load_split("glue/rte", "test")
    examples = load.load_split("glue/rte", "validation")
    assert [e.label for e in examples] == [load.task_config("glue/rte").labels.index("entailment")]


@pytest.mark.parametrize("name", ["../webnlg", "glue", "/etc/passwd", "webnlg.yaml", "", "glue/../webnlg"])
def test_unknown_tasks_are_refused(name):
    with pytest.raises(UserError, match="must be one of: .*glue/cola.*webnlg"):
        load.task_config(name)


def test_unknown_readers_are_refused():
    with pytest.raises(UserError, match="task.reader=os: must be one of: toy, webnlg"):
        load.load(dataclasses.replace(E2E, reader="os"), Data())


def test_toy_needs_no_files():
    pytest.importorskip("alphatune.data.toy")
    dataset = load.load(dataclasses.replace(E2E, name="toy", reader="toy", counts={}), Data(offline=True))
    assert dataset.train and list(dataset.files) == ["the toy world"]


def test_fetch_says_where_the_files_are(folder, monkeypatch, capsys):
    monkeypatch.setattr(load, "task_config", lambda name: E2E)
    assert fetch.main(["e2e", "--dir", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "e2e: train 2, validation 1, test 1" in printed and str(folder) in printed
    assert fetch.main(["e2e"]) == 2
    assert "its data files are missing" in capsys.readouterr().err
