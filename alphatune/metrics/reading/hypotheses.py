"""A file of hypotheses: one text or label per line, or JSON lines that may also name the input they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from alphatune.errors import UserError
from alphatune.metrics.reading.files import read_lines, shown

PREDICTION, ID = "prediction", "id"  # the keys of a run's predictions.jsonl


@dataclass(frozen=True)
class Hypotheses:
    """What a file says, one entry per line: texts, or labels as they stand there."""

    path: Path
    values: list[str | int | float]
    ids: list[str] | None = None  # the input of each line, where the file or a second one says it

    def texts(self) -> list[str]:
        """The values as texts.

        Raises:
            UserError: a value is a number.
        """
        for line, value in enumerate(self.values, start=1):
            if not isinstance(value, str):
                raise UserError(f"{self.path}, line {line}: {PREDICTION!r} must be a text, not {shown(value)}")
        return [value for value in self.values if isinstance(value, str)]


def read_hypotheses(path: Path, ids: Path | None = None) -> Hypotheses:
    """The hypotheses of a file: JSON lines if its name ends in `.jsonl`, else a text or label per line.

    A JSON line is an object with `prediction` (a text, or a label) and, if it likes, `id` (a text); other keys are
    ignored, so a run's `predictions.jsonl` is such a file. `ids` is a file with one id per line.

    Raises:
        UserError: an unreadable file, a line that is no such object, an id that is missing or stands there twice, or
            another number of ids than of hypotheses.
    """
    named: list[str] | None = None
    values: list[str | int | float] = []
    if path.suffix == ".jsonl":
        values, named = _json_lines(path)
    else:
        values.extend(read_lines(path))
    source = path
    if ids is not None:
        source, named = ids, [line.strip() for line in read_lines(ids)]
        if len(named) != len(values):
            raise UserError(f"{ids}: {len(named)} ids, but {path} has {len(values)} hypotheses")
    if named is not None:
        _check_ids(source, named)
    return Hypotheses(path, values, named)


def _check_ids(source: Path, ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for line, name in enumerate(ids, start=1):
        if not name:
            raise UserError(f"{source}, line {line}: no id")
        if name in first:
            raise UserError(f"{source}, line {line}: the id {shown(name)} stands in line {first[name]} already")
        first[name] = line


def _json_lines(path: Path) -> tuple[list[str | int | float], list[str] | None]:
    values: list[str | int | float] = []
    ids: list[str] = []
    for line, text in enumerate(read_lines(path), start=1):
        entry = _object(text, f"{path}, line {line}")
        values.append(_prediction(entry, f"{path}, line {line}"))
        if ID in entry:
            if not isinstance(entry[ID], str):
                raise UserError(f"{path}, line {line}: {ID!r} must be a text, not {shown(entry[ID])}")
            ids.append(entry[ID])
        if ids and len(ids) != line:
            raise UserError(f"{path}, line {line}: all lines must have an {ID!r}, or none")
    return values, ids or None


def _object(text: str, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        entry = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:  # also an integer of thousands of digits
        raise UserError(f"{where}: not usable JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not usable JSON: nested too deeply") from error
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be an object such as {{{ID!r}: ..., {PREDICTION!r}: ...}}, not {shown(entry)}")
    return entry


def _prediction(entry: dict[str, Any], where: str) -> str | int | float:
    if PREDICTION not in entry:
        raise UserError(f"{where}: no {PREDICTION!r}; keys: {shown(', '.join(entry))}")
    value = entry[PREDICTION]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{where}: {PREDICTION!r} must be a text or a label, not {shown(value)}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{where}: {PREDICTION!r} holds half of a surrogate pair, which is no character")
    return value
