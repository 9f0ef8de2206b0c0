"""The files of `conf/`: the groups, the choices of each, and what one file sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def folder() -> Path:
    """`conf/` beside the package in a checkout, inside the package in an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def experiments() -> Path:
    """`experiments/`, which lies beside `conf/`."""
    return folder().parent / "experiments"


def choices(group: str) -> list[str]:
    """The names that a config group takes, those in subfolders as folder/name."""
    within = folder() / group
    return sorted(str(p.relative_to(within).with_suffix("")).replace(os.sep, "/") for p in within.rglob("*.yaml"))


def names() -> list[str]:
    """The config groups."""
    return sorted(p.name for p in folder().iterdir() if p.is_dir())


def content(group: str, name: str) -> DictConfig:
    """What one file of `conf/` sets, as a part of the whole config, the files of its group that it builds on included.

    Expressions are left as they stand.
    """
    path = folder() / group / f"{name}.yaml"
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    below = [str(d) for d in own.pop("defaults", []) if isinstance(d, str) and d != "_self_"]
    if "@package _global_" not in path.read_text(encoding="utf-8").partition("\n")[0]:
        own = OmegaConf.create({group: own})
    merged = OmegaConf.merge(*(content(group, base) for base in below), own)
    assert isinstance(merged, DictConfig)
    return merged


def leaves(content: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that a config sets; expressions as they stand."""
    for name in map(str, content):
        node: Any = content._get_node(name)
        if isinstance(node, DictConfig):
            yield from leaves(node, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", node._value()
