"""SAMSum: chat dialogues and their summaries.

Layouts: the original JSON (`train.json`, `val.json`, `test.json`), the CSV of hub copies (`train.csv`,
`validation.csv`, `test.csv`), and parquet with the same columns. Copies differ in line ends (mostly CRLF, or LF), so
CRLF is read as LF and blanks at the ends of dialogue and summary are cut: all copies then give the same examples.
A training dialogue without words is dropped (the original has one, some copies have not).
"""

from __future__ import annotations

from pathlib import Path

from alphatune.config import Task
from alphatune.data.example import Dataset, Example
from alphatune.data.fields import Field
from alphatune.data.pairs import empty_note
from alphatune.data.source import Source, holdings
from alphatune.errors import UserError

LAYOUTS = "train.json, val.json, test.json; or train.csv, validation.csv, test.csv; or the same as .parquet"
_TEXTS = ("dialogue", "summary")
_STEMS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}


def fits(folder: Path, task: Task) -> bool:
    """Whether `folder` holds one of the layouts."""
    source = Source(folder)
    return any(_recognised(source, name) for name in map(lambda s: _file(source, s), _STEMS) if name)


def read(folder: Path, task: Task) -> Dataset:
    """Reads whichever layout `folder` holds.

    Raises:
        UserError: no layout fits, or a file is damaged.
    """
    source = Source(folder)
    if not fits(folder, task):
        raise UserError(f"{folder}: no SAMSum files here; accepted: {LAYOUTS}; {holdings(folder)}")
    return source.dataset(*(_examples(source, split) for split in _STEMS))


def _file(source: Source, split: str) -> str | None:
    return source.first(*(f"{stem}.{ending}" for ending in ("json", "csv", "parquet") for stem in _STEMS[split]))


def _recognised(source: Source, name: str) -> bool:
    return name.endswith(".parquet") or ("dialogue" in (head := source.head(name, 65536)) and "summary" in head)


def _rows(source: Source, name: str) -> list[Field]:
    if name.endswith(".json"):
        return source.json(name).records()
    if name.endswith(".csv"):
        return source.csv(name)
    rows, _ = source.parquet(name)
    # The hub's loader of CSV files turns an empty cell into null.
    return [Field({**row.value, **{k: "" for k in _TEXTS if row.value.get(k, "") is None}}, row.place) for row in rows]


def _examples(source: Source, split: str) -> list[Example]:
    name = _file(source, split)
    here = source.of(split, [name] if name else [])
    examples = []
    for row in [row for name in here for row in _rows(source, name)]:
        dialogue, summary = (row[key].text() for key in _TEXTS)
        identifier = row["id"].name()
        source.note(f"{split}: dialogues with CRLF read as LF", "\r\n" in dialogue)
        dialogue, summary = (text.replace("\r\n", "\n").strip() for text in (dialogue, summary))
        if split == "train" and not (dialogue and summary):
            source.note(empty_note(split))
            continue
        source.note(f"{split}: empty dialogues kept", not dialogue)
        examples.append(Example(identifier, dialogue, (summary,)))
    return examples
