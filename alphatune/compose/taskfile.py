"""A task in one YAML file of the user's: `task=path/to/mine.yaml` is `task=own` and what the file sets.

The file has the parts of a run, above all `task:` and `data:`; names of data files are relative to its folder. What it
sets counts as typed before everything else that is typed, so the rest of the command line wins over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from alphatune import groups, ranges
from alphatune.config import field_of
from alphatune.errors import UserError

_ENDINGS = (".yaml", ".yml")
_FILES = ("data.train", "data.valid", "data.test")


def expanded(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line with the settings of a task file in place of its name.

    Raises:
        UserError: the file cannot be read, or sets what the schema does not allow.
    """
    named = {argument: path for argument in arguments if (path := _named(argument))}
    if not named:
        return list(arguments)
    if len(named) > 1 or "," in (only := next(iter(named.values()))):
        raise UserError(f"task={','.join(named.values())}: one task file at a time")
    first = next(i for i, argument in enumerate(arguments) if "=" in argument and not argument.startswith("-"))
    others = [argument for argument in arguments[first:] if argument not in named]
    return [*arguments[:first], *_overrides(Path(only)), *others]


def beside(override: str, folder: Path) -> str:
    """An override of a file in `folder`, the name of a task file or data file in it relative to the present folder."""
    key, _, value = override.partition("=")
    return f"{key}={_relative(value, folder)}" if _named(override) or key in _FILES else override


def _named(argument: str) -> str:
    """The task file that an argument names; empty if it names none."""
    key, _, value = argument.partition("=")
    value = value.strip("'\"")
    return value if key == "task" and value.endswith(_ENDINGS) else ""


def _relative(name: str, folder: Path) -> str:
    name = name.strip("'\"")
    return name if name.startswith("~") else str(folder / name)


def _overrides(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"task={path}: no such file")
    settings = {"task.name": path.stem} | groups.flat(groups.content(path, str(path)))
    found = ["task=own"]
    for key, value in settings.items():
        field = field_of(key)
        if field is None or key == "task.reader":
            raise UserError(
                f"{path}: {key}: no such key; a task file sets task.kind, task.fields.input, data.train, ..."
            )
        if isinstance(value, list):
            words = [item for item in value if isinstance(item, str | int) and not isinstance(item, bool)]
            if len(words) < len(value):
                raise UserError(f"{path}: {key}={value}: must be a list of words; yes, no, on, off need quotes in YAML")
            value = list(map(str, words))
        if not ranges.allows(field, value) or isinstance(value, list) != str(field.type).startswith("list"):
            raise UserError(f"{path}: {key}={value}: must be {ranges.wanted(field)}")
        if key in _FILES and value is not None:
            value = _relative(value, path.parent)
        found.append(f"{key}={_literal(value)}")
    return found


def _literal(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, str):
        return str(QuotedString(text=value, quote=Quote.single).with_quotes())
    return "null" if value is None else repr(value).lower()
