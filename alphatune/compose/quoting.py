"""Overrides as people type them, in quotes where Hydra's grammar needs them.

Hydra reads `data.dir=/data/dàta` and `data.dir=/a,b` as mistakes and `data.dir=2024_01` as the number 202401. A value
that it cannot read is quoted, so that the schema says whether it is allowed; a setting that takes any text takes what
was typed, as it was typed. With -m a comma divides the values of a sweep, quoted or not.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException

from alphatune.compose.taskfile import expanded
from alphatune.config import Config
from alphatune.errors import UserError

_ASSIGNMENT = re.compile(r"(\+{0,2}[A-Za-z_][\w/@-]*(?:\.[\w@-]+)*=)(.*)", re.DOTALL | re.ASCII)


def quoted(arguments: Iterable[str], sweep: bool = False) -> list[str]:
    """The arguments of a command line, with quotes around the values that need them. Others stay as they are.

    A task file among them is replaced by what it sets.

    Args:
        arguments: overrides, and flags.
        sweep: whether commas divide the values of a sweep.
    """
    return [_quoted(argument, sweep) for argument in expanded(list(arguments))]


@functools.lru_cache(maxsize=4096)
def _quoted(argument: str, sweep: bool) -> str:
    assignment = _ASSIGNMENT.fullmatch(argument)
    if not assignment:
        return argument
    key, value = assignment.groups()
    text = _takes_text(key.strip("+="))
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        if value[:1] in "[{" and not text:
            return argument  # quotes belong around the texts inside
        return key + ",".join(map(_literal, value.split(",") if sweep else [value]))
    except ValueError as error:  # Python converts no number of thousands of digits
        raise UserError(f"{key.strip('+=')}: a number of {len(value):,} digits is not read") from error
    if not text:
        return argument
    found = override.value()
    if isinstance(found, ChoiceSweep) and found.simple_form:
        return argument if sweep else key + _literal(value)
    unlike_text = isinstance(found, bool | int | float | list | dict)
    return key + _literal(value) if unlike_text else argument


def _literal(text: str) -> str:
    within = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text if within else QuotedString(text=text, quote=Quote.single).with_quotes()


def _takes_text(key: str) -> bool:
    """Whether the schema allows any text for `key`."""
    schema: Any = Config
    *path, last = key.split(".")
    for part in path:
        found = {f.name: f.default_factory for f in dataclasses.fields(schema)}.get(part)
        if not dataclasses.is_dataclass(found):
            return False
        schema = found
    field = {f.name: f for f in dataclasses.fields(schema)}.get(last)
    return field is not None and field.type in ("str", "str | None") and "one_of" not in field.metadata
