"""A value of a data file together with its place: taken out as what it has to be, or refused in one line.

Every reader takes texts, lists, objects, numbers and flags out of its files through `Field`, so what is said about a
wrong one is decided here alone: `train.json record 3: lexicalisations[0].lex is null, must be text`.
"""

from __future__ import annotations

import math
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from alphatune.errors import UserError

_SHOWN = 60  # characters of a refused value that are printed
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() also takes 1_0, nan and inf
_HALF_OR_NUL = re.compile("[\0\ud800-\udfff]")
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, _SHOWN, _SHOWN


@dataclass(frozen=True)
class Unusable:
    """Stands for a value that a file has, or lacks, and that no field can be: `what` says why."""

    what: str

    def __repr__(self) -> str:
        return self.what


MISSING = Unusable("missing")


def shown(value: Any) -> str:
    """A value for a message: short and on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = _short.repr(value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def word(name: str) -> str:
    """A name of a file or a column for a message: as it is where that is short and printable, else quoted and cut."""
    return name if name.isprintable() and len(name) <= _SHOWN else shown(name)


class Field:
    """A value, the place it is from, and its path there.

    Args:
        value: as the file's format gives it.
        place: file and line, row or record.
        path: where in the record, e.g. `lexicalisations[0].lex`; empty for the record itself.
    """

    __slots__ = ("path", "place", "value")

    def __init__(self, value: Any, place: str, path: str = "") -> None:
        self.value = value
        self.place = place
        self.path = path

    def refused(self, allowed: str) -> UserError:
        """The error to raise for this value, given what is allowed."""
        return UserError(f"{self.place}: {self.path or 'the content'} is {shown(self.value)}, must be {allowed}")

    def text(self) -> str:
        """The value as text: whole characters, none of them NUL. Raises UserError for anything else."""
        if not isinstance(self.value, str):
            raise self.refused("text")
        if _HALF_OR_NUL.search(self.value):
            raise self.refused("text of whole Unicode characters, without NUL and lone surrogates")
        return self.value

    def name(self) -> str:
        """An identifier: text, or a whole number as text. Raises UserError for anything else."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        if not isinstance(self.value, str):
            raise self.refused("text or a whole number")
        return self.text()

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from `low` to `high`, or text that is one. Raises UserError for anything else."""
        value = self.value.strip() if isinstance(self.value, str) else self.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value)):
            number = float(value) if abs(float(value)) < math.inf else math.nan
            if low <= number <= high:
                return number
        raise self.refused("a finite number" if low == -math.inf else f"a number from {low:g} to {high:g}")

    def flag(self) -> bool:
        """True or false. Raises UserError for anything else."""
        if not isinstance(self.value, bool):
            raise self.refused("true or false")
        return self.value

    def names(self) -> list[str]:
        """The names of an object's fields. Raises UserError for anything but an object."""
        if not isinstance(self.value, dict):
            raise self.refused("an object with named fields")
        return list(self.value)

    __iter__ = None  # or iterating would call __getitem__ with 0, 1, ...: take `entries` or `names`

    def __contains__(self, key: str) -> bool:
        return key in self.names()

    def __getitem__(self, key: str) -> Field:
        """A field of an object. One that is missing is refused as soon as it is taken for something."""
        self.names()
        return Field(self.value.get(key, MISSING), self.place, f"{self.path}.{key}" if self.path else key)

    def items(self) -> list[tuple[str, Field]]:
        """The names and fields of an object. Raises UserError for anything but an object."""
        return [(name, self[name]) for name in self.names()]

    def entries(self, count: int | None = None) -> list[Field]:
        """The entries of a list, of `count` if that is given. Raises UserError for anything else."""
        if not isinstance(self.value, list) or count not in (None, len(self.value)):
            raise self.refused("a list" if count is None else f"a list of {count}")
        return [Field(value, self.place, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def records(self) -> list[Field]:
        """The entries of a list as records of their own, numbered from 1. Raises UserError for anything but a list."""
        if not isinstance(self.value, list):
            raise self.refused("a list of records")
        return [Field(value, f"{self.place} record {n}") for n, value in enumerate(self.value, 1)]
