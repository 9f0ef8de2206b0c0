"""YAML files that others may have written: keys and values, and nothing that a YAML file can do besides.

No tags, no anchors and aliases (a few lines of nested ones are gigabytes), no `${...}` that would put the environment
of this process into a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphatune.errors import UserError

_LARGEST, _DEEPEST = 4 << 20, 30  # bytes, levels
_CALL = re.compile(r"\$\{\s*([\w.]+)\s*:")


def read(path: Path, expressions: bool = False, shown: str = "") -> Any:
    """What the file holds.

    Args:
        expressions: whether texts may hold `${...}`; they are left as they stand.
        shown: what messages call the file; its name, if not given.

    Raises:
        UserError: it cannot be read, is not YAML, or asks for more than keys and values; names file and line.
    """
    shown = shown or path.name
    try:
        content = path.read_bytes()
        if len(content) > _LARGEST:
            raise UserError(f"{shown}: {len(content):,} bytes, more than the {_LARGEST:,} of any such file")
        text = content.decode("utf-8")
        _check(text, shown, expressions)
        return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown} line {line}: not UTF-8") from error
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{shown}: not a readable YAML file: {' '.join(str(error).split())}") from error


def call_in(text: str) -> str | None:
    """The name of a resolver that a text would call, such as oc.env, or None. A reference to another value is none."""
    found = _CALL.search(text)
    return found[1] if found else None


def _check(text: str, name: str, expressions: bool) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{name} line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"{where}: anchors and aliases (& and *) are not read: write the value out, or in quotes")
        if getattr(event, "tag", None):
            raise UserError(f"{where}: tags ({event.tag}) are not read")
        if depth == 0 and isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent):
            raise UserError(f"{name}: not of the form key: value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UserError(f"{where}: nested more than {_DEEPEST} levels deep")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value and not expressions:
            raise UserError(f"{where}: ${{...}} is not read here: write the value")
