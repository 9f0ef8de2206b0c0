"""The typed config of a run without asking Hydra again: what the chosen files say, and single values set on it.

Hydra reads and merges the files of the chosen groups in 0.1 s or more, and for most rows of a table the files are the
same. So what they say is kept, and plain values (a number or a word for a field of the schema) are set on a copy.
Whatever is not plain, mistakes among them, is refused, and left to Hydra.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from alphatune import groups, ranges
from alphatune.config import Config, field_of

Stamp = tuple[tuple[str, int], ...]
Chosen = dict[str, str]  # group -> the name of its file
_PLAIN = {"bool": bool, "int": int, "float": float, "str": str}


def by_hydra(overrides: list[str]) -> tuple[DictConfig, Chosen]:
    """The composed config, unresolved, without Hydra's own part, and the files that were chosen.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: what Hydra refuses.
    """
    with _hydra():
        cfg = hydra.compose("config", overrides=overrides, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    chosen = {group: str(choices[group]) for group in groups.names() if groups.has(group, choices.get(group, ""))}
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, chosen


def settings(overrides: list[Override]) -> tuple[Config, Chosen]:
    """The config of these overrides and the files that they choose, the caller's own.

    Raises:
        ValueError: something is not plain.
        HydraException, OmegaConfBaseException: what Hydra refuses.
    """
    names = groups.names()
    choosing = [o for o in overrides if o.key_or_group in names]
    if any(not _is_plain(o) for o in overrides) or any(not isinstance(o.value(), str) for o in choosing):
        raise ValueError("not plain")
    base = _of_files(groups.folder(), _stamp(groups.folder()), tuple(str(o.input_line) for o in choosing))
    config, chosen = copy.deepcopy(base[0]), base[1]
    values = {str(o.key_or_group): o.value() for o in overrides if o not in choosing}
    put(config, values)
    return config, dict(chosen)


def put(config: Config, values: Mapping[str, Any]) -> None:
    """Set plain values, dotted key -> value.

    Raises:
        ValueError: one is not plain, or its field does not take it; some may be set already.
    """
    for key, value in values.items():
        field = field_of(key)
        kind = _PLAIN.get(str(field.type).split(" | ")[0]) if field is not None else None
        nothing = field is not None and field.type == "list[str]" and value == []  # as for the runs of a search
        if field is None or not (kind or nothing) or not ranges.allows(field, value):
            raise ValueError(f"{key}={value}: not plain")
        if isinstance(value, str) and ("${" in value or value == "???"):  # OmegaConf's expressions
            raise ValueError(f"{key}={value}: an expression")
        *path, last = key.split(".")
        as_float = kind is float and value is not None
        setattr(functools.reduce(getattr, path, config), last, float(value) if as_float else [] if nothing else value)


def _is_plain(override: Override) -> bool:
    """Whether this is `key=value` with one value for the key."""
    special = override.is_delete() or override.is_add() or override.is_force_add() or override.is_sweep_override()
    return not special and override.package is None


@functools.lru_cache(maxsize=256)
def _of_files(folder: Path, stamp: Stamp, choices: tuple[str, ...]) -> tuple[Config, Chosen]:
    cfg, chosen = by_hydra(list(choices))
    OmegaConf.resolve(cfg)
    config: Config = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    return config, chosen


def _stamp(folder: Path) -> Stamp:
    """When each file of the folder changed: another content is another composition."""
    found: list[tuple[str, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found += _stamp(Path(entry.path)) if entry.is_dir() else [(entry.path, entry.stat().st_mtime_ns)]
    return tuple(found)


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Hydra, ready to compose; inside a job it is running already and is put back afterwards."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(groups.folder()), version_base="1.3", job_name="alphatune"):
            yield
    finally:
        GlobalHydra.instance().hydra = running
