"""What a field of a settings class may hold: said once, in the field's metadata, and checked here.

The check looks at the type too. It takes no text for a number and no truth value for a whole number, so that the
command line, Python and a file agree on what they accept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from alphatune.errors import UserError

Field = dataclasses.Field[Any]
_TYPES: dict[str, Callable[[Any], bool]] = {  # a truth value is an int to Python, but nobody means one by it
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
}


def one_of(*allowed: str) -> Any:
    """A string field that takes one of `allowed`; the first is the default."""
    return dataclasses.field(default=allowed[0], metadata={"one_of": allowed})


def between(low: float, high: float, default: float | None, below: bool = False, zero: str = "", null: str = "") -> Any:
    """A number field from `low` to `high`, or from `low` to below `high`. Of type `... | None` it takes None too.

    `zero` and `null` say in words what 0 and None mean where they are no amounts.
    """
    return dataclasses.field(
        default=default, metadata={"range": (low, high), "below": below, "zero": zero, "null": null}
    )


def judged(allows: Callable[[Any], bool], wanted: str, default: Any) -> Any:
    """A field that takes what `allows` says; `wanted` tells what that is, in words."""
    return dataclasses.field(default=default, metadata={"allows": allows, "wanted": wanted})


def same(settings: type, name: str) -> Any:
    """A field with the default and the allowed values of the field `name` of another settings class."""
    other = field(settings, name)
    return dataclasses.field(default=other.default, metadata=other.metadata)


def field(settings: type, name: str) -> Field:
    """The field `name` of a settings class. Raises KeyError if there is none."""
    return {f.name: f for f in dataclasses.fields(settings)}[name]


def choices(settings: type, name: str) -> tuple[str, ...]:
    """What a field made by `one_of` takes."""
    allowed: tuple[str, ...] = field(settings, name).metadata["one_of"]
    return allowed


def check(settings: Any, prefix: str = "") -> None:
    """Refuse a value that its field does not allow, in `settings` and the settings inside it.

    Raises:
        UserError: names the field (after `prefix`), the value, and what is allowed.
    """
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{prefix}{f.name}.")
        elif not allows(f, value):
            raise UserError(f"{prefix}{f.name}={value}: must be {wanted(f)}")


def allows(f: Field, value: Any) -> bool:
    """Whether the field takes `value`."""
    if "allows" in f.metadata:
        return bool(f.metadata["allows"](value))
    kinds = str(f.type).split(" | ")
    if value is None:
        return "None" in kinds
    if "one_of" in f.metadata:
        return isinstance(value, str) and value in f.metadata["one_of"]
    if kinds[0] in _TYPES and not _TYPES[kinds[0]](value):
        return False
    if "range" not in f.metadata:
        return True
    low, high = f.metadata["range"]
    return bool(low <= value < high if f.metadata["below"] else low <= value <= high)  # also refuses nan


def wanted(f: Field) -> str:
    """What a value of the field must be, in words, e.g. "a whole number from 1 to 8"."""
    if "wanted" in f.metadata:
        return str(f.metadata["wanted"])
    if "one_of" in f.metadata:
        return f"one of: {', '.join(f.metadata['one_of'])}"
    kinds = str(f.type).split(" | ")
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word",
             "list[str]": "a list of words"}.get(kinds[0], f"of type {f.type}")  # fmt: skip
    if "range" in f.metadata:
        low, high = f.metadata["range"]
        words += f" from {low} to {'below ' if f.metadata['below'] else ''}{high}"
    named = [(value, f.metadata.get(name)) for value, name in ((0, "zero"), ("null", "null"))]
    meanings = [f"{value}: {meaning}" for value, meaning in named if meaning]
    words += ", or null" if "None" in kinds else ""
    return words + (f" ({'; '.join(meanings)})" if meanings else "")
