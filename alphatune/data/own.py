"""A task of the user's own: one JSONL, CSV or TSV file per split, whose fields `task.fields` names.

A row is an example. The classes of a classification task are those of its training file, sorted, unless `task.labels`
gives them; `resolved` puts them into the task. Files are known by their content: where they lie decides nothing.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from alphatune.config import Data, Fields, Task
from alphatune.data.example import Dataset, Example
from alphatune.data.fields import Field, word
from alphatune.data.source import Source
from alphatune.errors import UserError

READER = "own"
SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # split -> the key of `data` that names its file
_KINDS = {".jsonl": Source.jsonl, ".csv": Source.csv, ".tsv": Source.tsv}
_SENTENCES = ("sentence1", "sentence2", "label", "subset")
_USED = {"generation": ("input", "target", "references", "subset"), "classification": _SENTENCES,
         "regression": _SENTENCES}  # fmt: skip
_OPTIONAL = ("references", "sentence2", "subset")
_SHOWN = 20  # names of fields, or classes, that a message lists
_WHOLE = re.compile("[0-9]+")


class _Anywhere(Source):
    """Files in any folder; messages name them as they were typed."""

    def path(self, name: str) -> Path:
        return Path(os.path.expanduser(name))


def read(task: Task, data: Data) -> Dataset:
    """The splits whose files are given; the others are empty.

    Raises:
        UserError: no file is given, one cannot be read, a row lacks a field, or a label is none of the classes; told
            with file and line.
    """
    _check_fields(task)
    source = _Anywhere(Path())
    given = {split: str(path) for split, key in SPLITS.items() if (path := getattr(data, key)) is not None}
    if not given:
        raise UserError(
            f"task={task.name}: no files: give data.train=FILE, data.valid=FILE and data.test=FILE, each .jsonl, .csv "
            "or .tsv"
        )
    rows = {split: _rows(source, SPLITS[split], path) for split, path in given.items()}
    labels = _classes(task, rows.get("train"), given.get("train")) if task.kind == "classification" else []
    example = _reader(task, labels, given.get("train"))
    splits = {split: [example(row, split, n) for n, row in enumerate(rows.get(split, []))] for split in SPLITS}
    files = {f"{split}{Path(path).suffix.lower()}": source.files[path] for split, path in given.items()}
    return Dataset(splits["train"], splits["validation"], splits["test"], files=files, labels=labels)


def resolved(task: Task, dataset: Dataset) -> Task:
    """The task as the other tasks are: with its classes and subsets, regression being classification without labels."""
    if task.reader != READER:
        return task
    subsets = task.subsets
    if task.fields.subset and not subsets:
        subsets = sorted({example.subset for example in dataset.split(task.evaluate_on)})
    kind = "generation" if task.kind == "generation" else "classification"
    return dataclasses.replace(task, kind=kind, labels=list(dataset.labels), subsets=subsets)


def _check_fields(task: Task) -> None:
    for name, default in dataclasses.asdict(Fields()).items():
        value, used = getattr(task.fields, name), _USED[task.kind]
        if name not in used and value != default:
            raise UserError(f"task.fields.{name}={value}: task.kind={task.kind} has no such field; it has {_and(used)}")
        if name in used and name not in _OPTIONAL and not value:
            raise UserError(f"task.fields.{name}: must name a field of the files")


def _and(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _rows(source: Source, key: str, path: str) -> list[Field]:
    read = _KINDS.get(Path(path).suffix.lower())
    if read is None:
        raise UserError(f"data.{key}={path}: its name must end in {', '.join(_KINDS)}: one object a line, or a table")
    if not source.path(path).is_file():
        raise UserError(f"data.{key}={path}: no such file")
    rows = read(source, path)
    if not rows:
        raise UserError(f"{path}: no row in it")
    return rows


# ---- rows ----------------------------------------------------------------------------------------------------------


def _reader(task: Task, labels: list[str], train: str | None) -> Callable[[Field, str, int], Example]:
    """What makes the n-th example of a split out of a row."""
    fields = task.fields

    def label(row: Field) -> int | float:
        if task.kind == "regression":
            return _named(row, fields.label, "label").number()
        return _index(_label(row, fields), labels, "" if task.labels else train or "", row.place)

    def example(row: Field, split: str, n: int) -> Example:
        subset = _text(row, fields.subset, "subset") if fields.subset else "all"
        if task.kind == "generation":
            text = _text(row, fields.input, "input")
            return Example(f"{split}-{n}", text, _targets(row, fields, split), subset)
        pair = _text(row, fields.sentence2, "sentence2") if fields.sentence2 else None
        text = _text(row, fields.sentence1, "sentence1")
        return Example(f"{split}-{n}", text, subset=subset, text_pair=pair, label=label(row))

    return example


def _named(row: Field, name: str, option: str) -> Field:
    if name not in row:
        raise _lacks(row, name, option)
    return row[name]


def _lacks(row: Field, name: str, option: str) -> UserError:
    names = row.names()
    told = ", ".join(map(word, names[:_SHOWN])) + (" and more" if len(names) > _SHOWN else "")
    return UserError(f"{row.place}: no field {word(name)} (task.fields.{option}); its fields are {told or 'none'}")


def _text(row: Field, name: str, option: str) -> str:
    return _filled(_named(row, name, option))


def _filled(field: Field) -> str:
    if not field.text().strip():
        raise field.refused("text with a word in it")
    return field.text()


def _targets(row: Field, fields: Fields, split: str) -> tuple[str, ...]:
    """What a row is trained on, in the training split, or compared with."""
    trained = split == "train" and fields.target in row
    if not fields.references or trained:
        return _texts(_named(row, fields.target, "target"))
    matching = [name for name in row.names() if fnmatchcase(name, fields.references)]
    if not matching:
        raise _lacks(row, fields.references, "references")
    if len(matching) == 1:
        return _texts(row[matching[0]])
    found = [text for name in matching if (text := row[name].text()).strip()]  # an empty cell: one reference less
    if not found:
        raise row[matching[0]].refused("text with a word in it")
    return tuple(found)


def _texts(field: Field) -> tuple[str, ...]:
    if not isinstance(field.value, list):
        return (_filled(field),)
    if not field.value:
        raise field.refused("text, or a list of one text or more")
    return tuple(map(_filled, field.entries()))


# ---- classes -------------------------------------------------------------------------------------------------------


def _classes(task: Task, train: list[Field] | None, path: str | None) -> list[str]:
    """The names of the classes, in index order."""
    if task.labels:
        return task.labels
    if train is None:
        raise UserError(f"task={task.name}: without data.train its classes are not known: give task.labels=[A,B,...]")
    found = {_label(row, task.fields) for row in train}
    if len(found) < 2:
        raise UserError(
            f"{path}: every {word(task.fields.label)} is {word(found.pop())}: two classes are needed; task.labels "
            "names those that the file does not have"
        )
    numbers = all(_WHOLE.fullmatch(name) for name in found)
    return sorted(found, key=int) if numbers else sorted(found)


def _label(row: Field, fields: Fields) -> str:
    field = _named(row, fields.label, "label")
    if isinstance(field.value, bool):
        return str(field.value).lower()
    name = field.name().strip()
    if not name:
        raise field.refused("the name of a class")
    return name


def _index(name: str, labels: list[str], train: str, place: str) -> int:
    """The index of a class by its name, or by its index where no class has a number for its name."""
    if name in labels:
        return labels.index(name)
    numbered = any(map(_WHOLE.fullmatch, labels))
    if not numbered and _WHOLE.fullmatch(name) and int(name) < len(labels):
        return int(name)
    told = ", ".join(map(word, labels[:_SHOWN])) + (" and more" if len(labels) > _SHOWN else "")
    known = f"the classes of {train} are {told}" if train else f"task.labels is {told}"
    raise UserError(f"{place}: the label {word(name)} is no class: {known}")
