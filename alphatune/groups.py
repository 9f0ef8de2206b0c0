"""The files of `conf/`: the groups, the choices of each, and what one file sets."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphatune.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def folder() -> Path:
    """`conf/` beside the package in a checkout, inside the package in an installed wheel."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"


def experiments() -> Path:
    """`experiments/`, which lies beside `conf/`."""
    return folder().parent / "experiments"


def choices(group: str) -> list[str]:
    """The names that a config group takes, those in subfolders as folder/name."""
    within = folder() / group
    return sorted(str(p.relative_to(within).with_suffix("")).replace(os.sep, "/") for p in within.rglob("*.yaml"))


def names() -> list[str]:
    """The config groups: the folders, but for `hparams`, whose rows are looked up and not chosen."""
    return sorted(p.name for p in folder().iterdir() if p.is_dir() and p.name != "hparams")


def has(group: str, name: str) -> bool:
    """Whether there is such a file."""
    return (folder() / group / f"{name}.yaml").is_file()


def read(group: str, name: str) -> dict[str, Any]:
    """What one file of `conf/` holds, expressions as they stand. Not to be changed: it is kept until the file changes.

    Raises:
        UserError: it is not YAML, or not keys and values.
    """
    return _read(folder() / group / f"{name}.yaml")[0]


def sets(group: str, name: str) -> dict[str, Any]:
    """Dotted key -> value of all that one file of `conf/` sets, the files of its group that it builds on included."""
    content, whole = _read(folder() / group / f"{name}.yaml")
    found: dict[str, Any] = {}
    for base in content.get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            found |= sets(group, base)
    own = {key: value for key, value in content.items() if key != "defaults"}
    return found | flat(own, "" if whole else f"{group}.")


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    """The content of a file, and whether its keys are those of the whole config."""
    return _read_once(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _read_once(path: Path, changed: int) -> tuple[dict[str, Any], bool]:
    whole = "@package _global_" in path.read_bytes().partition(b"\n")[0].decode("utf-8", errors="replace")
    return content(path, str(path.relative_to(folder().parent))), whole


def content(path: Path, shown: str) -> dict[str, Any]:
    """The keys and values of a YAML file, which a message calls `shown`.

    Raises:
        UserError: it cannot be read, is not YAML, or not keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{shown}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from error
    if not isinstance(found, dict):
        raise UserError(f"{shown}: not of the form key: value")
    return found  # type: ignore[return-value]


def flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested keys and values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
