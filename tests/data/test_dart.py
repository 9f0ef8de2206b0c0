"""DART: both releases, and the reconstruction that must never pass for the official file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from alphatune.data import dart
from alphatune.data.load import task_config
from alphatune.errors import UserError

TASK = task_config("dart")
PARTIAL = task_config("dart_partial")

Entries = list[dict[str, Any]]


def entry(triples: list[list[str]], *annotations: tuple[str, str]) -> dict[str, Any]:
    return {
        "tripleset": triples,
        "subtree_was_extended": False,
        "annotations": [{"source": source, "text": text} for source, text in annotations],
    }


LAKE = [["Big Lake", "DEPTH_(M)", "12"], ["Big Lake", "Near", "R&amp;D Park"]]
JULY_2020: Entries = [
    entry(LAKE, ("webnlg", "Big Lake, near R&amp;D Park, is 12 m deep.")),
    entry([["[TABLECONTEXT]", "TITLE", "Races"]], ("WikiTableQuestions_lily", "There were races."), ("e2e", "")),
    entry(LAKE),  # the July-2020 test file has such twins without annotations
    entry(LAKE, ("webnlg", "At 12 m Big Lake is deep.")),
    entry([["Nowhere", "IS", "empty"]]),
]
APRIL_2021 = [e for e in JULY_2020 if e["annotations"]]


def write(folder: Path, **splits: Entries) -> None:
    for split, entries in splits.items():
        (folder / f"dart-v1.1.1-full-{split}.json").write_text(json.dumps(entries), encoding="utf-8")


@pytest.mark.parametrize("release", [JULY_2020, APRIL_2021])
def test_both_releases_give_the_same_inputs(tmp_path, release):
    write(tmp_path, train=release, dev=release, test=release)
    dataset = dart.read(tmp_path, TASK)
    lake = "Big Lake : depth_(m) : 12 | Big Lake : near : R&amp;D Park"
    assert [(e.text, e.targets) for e in dataset.test] == [
        (lake, ("Big Lake, near R&amp;D Park, is 12 m deep.", "At 12 m Big Lake is deep.")),
        ("[TABLECONTEXT] : title : Races", ("There were races.",)),
    ]
    assert [e.targets for e in dataset.train] == [
        ("Big Lake, near R&amp;D Park, is 12 m deep.",),
        ("There were races.",),
        ("At 12 m Big Lake is deep.",),
    ]
    assert dataset.notes["train: empty texts dropped"] == dataset.notes["test: empty texts dropped"] == 1
    assert dataset.notes.get("test: entries without annotations", 0) == len(JULY_2020) - len(APRIL_2021) - (
        0 if release is JULY_2020 else 2
    )


def test_the_reconstruction_is_left_alone_unless_asked_for(tmp_path):
    write(tmp_path, dev=APRIL_2021, test=APRIL_2021)
    (tmp_path / dart.RECONSTRUCTED).write_text(json.dumps([entry(LAKE, ("webnlg", "A lake."))]))
    dataset = dart.read(tmp_path, TASK)
    assert dataset.train == []
    assert dataset.notes[f"{dart.RECONSTRUCTED} left unread (task=dart_partial reads it)"] == 1
    assert dart.RECONSTRUCTED not in dataset.files


def test_the_reconstruction_restricts_evaluation_to_its_sources(tmp_path):
    write(tmp_path, dev=APRIL_2021, test=APRIL_2021)
    assert not dart.fits(tmp_path, PARTIAL)
    with pytest.raises(UserError, match="accepted: reconstructed-partial-train.json"):
        dart.read(tmp_path, PARTIAL)
    (tmp_path / dart.RECONSTRUCTED).write_text(json.dumps([entry(LAKE, ("webnlg", "A lake."), ("e2e", "Water."))]))
    dataset = dart.read(tmp_path, PARTIAL)
    assert len(dataset.train) == 2
    assert [e.text[:8] for e in dataset.test] == [e.text[:8] for e in dataset.validation] == ["Big Lake"]
    assert dataset.notes["train: texts of the reconstructed file, not the official one"] == 2
    assert dataset.notes["test: texts of other sources left out"] == 1


def test_formatted_files(tmp_path):
    row = {"context": "A : is : b", "completion": "A is b."}
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}_formatted.jsonl").write_text(json.dumps(row) + "\n")
    dataset = dart.read(tmp_path, TASK)
    assert [(e.text, e.targets, e.subset) for e in dataset.test] == [("A : is : b", ("A is b.",), "all")]
    (tmp_path / "test_formatted.jsonl").write_text('{"context": "A"}\n')
    with pytest.raises(UserError, match="test_formatted.jsonl line 1: completion is missing, must be text"):
        dart.read(tmp_path, TASK)


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="no DART files here"):
        dart.read(tmp_path, TASK)
    write(tmp_path, test=[{"tripleset": [["a", "b"]], "annotations": []}])
    with pytest.raises(
        UserError, match=r"full-test\.json record 1: tripleset\[0\] is \['a', 'b'\], must be a list of 3"
    ):
        dart.read(tmp_path, TASK)
    with pytest.raises(UserError, match="task.variant=new"):
        dart.read(tmp_path, dataclasses.replace(TASK, variant="new"))
