"""SAMSum: the original JSON and the hub's CSV and parquet give the same examples."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from alphatune.data import samsum
from alphatune.data.load import task_config
from alphatune.errors import UserError

TASK = task_config("samsum")
ROWS = {
    "train": [
        {"id": "1", "summary": "Bo will come. ", "dialogue": 'Al: Coming? 😀\r\nBo: "Yes", soon\r\n'},
        {"id": "2", "summary": "Nothing was said.", "dialogue": ""},
        {"id": "3", "summary": "Al is late.", "dialogue": "Al: late\nBo: ok"},
    ],
    "val": [{"id": "4", "summary": "Cy left.", "dialogue": "Cy: bye,\r\nAl: <file_gif>"}],
    "test": [{"id": "5", "summary": "Di slept.", "dialogue": "Di: zzz"}],
}


def write_json(folder: Path) -> None:
    for split, rows in ROWS.items():
        (folder / f"{split}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def write_csv(folder: Path) -> None:
    for split, rows in ROWS.items():
        name = "validation" if split == "val" else split
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "dialogue", "summary"])
            writer.writeheader()
            writer.writerows(rows)


def write_parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for split, rows in ROWS.items():
        name = "validation" if split == "val" else split
        rows = [{**row, "dialogue": row["dialogue"] or None} for row in rows]  # the hub's CSV loader gives null
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
def test_every_layout_gives_the_same_examples(tmp_path, write):
    write(tmp_path)
    assert samsum.fits(tmp_path, TASK)
    dataset = samsum.read(tmp_path, TASK)
    assert [(e.id, e.text, e.targets) for e in dataset.train] == [
        ("1", 'Al: Coming? 😀\nBo: "Yes", soon', ("Bo will come.",)),
        ("3", "Al: late\nBo: ok", ("Al is late.",)),
    ]
    assert [(e.id, e.text) for e in dataset.validation] == [("4", "Cy: bye,\nAl: <file_gif>")]
    assert [(e.id, e.targets) for e in dataset.test] == [("5", ("Di slept.",))]
    assert dataset.notes == {
        "train: dialogues with CRLF read as LF": 1,
        "train: empty texts dropped": 1,
        "validation: dialogues with CRLF read as LF": 1,
    }


def test_an_empty_dialogue_is_kept_where_scores_are_computed(tmp_path):
    (tmp_path / "test.json").write_text('[{"id": "9", "summary": "Silence.", "dialogue": "\\r\\n"}]')
    dataset = samsum.read(tmp_path, TASK)
    assert [(e.text, e.targets) for e in dataset.test] == [("", ("Silence.",))]
    assert dataset.notes["test: empty dialogues kept"] == 1


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="no SAMSum files here"):
        samsum.read(tmp_path, TASK)
    (tmp_path / "train.json").write_text('{"entries": []}')  # WebNLG's file of the same name
    assert not samsum.fits(tmp_path, TASK)
    (tmp_path / "train.json").write_text('[{"dialogue": "A: hi", "summary": "Hi."}]')
    with pytest.raises(UserError, match=r"train\.json record 1: id is missing, must be text or a whole number"):
        samsum.read(tmp_path, TASK)
