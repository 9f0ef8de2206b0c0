"""Where each value of a run comes from: typed, a typed group, the cell's hyper-parameters, a preset, or a default.

`compose` lays what is found here; it goes into the record, beside the config and not into the run's identity, and is
told on the terminal where it is not what one would expect.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

from alphatune import groups
from alphatune.compose.hparams import OTHER_Q, PROVENANCE
from alphatune.config import Config, Hparams

RECORDED = ("task", "data", "method.lora", "quant", "hparams", "trainer", "decode")  # whose sources the record says
TYPED, DEFAULT = "typed", "default"
_ORDER = ("task", "model", "quant", "method", "trainer", "decode", "logger", "experiment")  # of conf/config.yaml

Sources = dict[str, str]


def stated(chosen: dict[str, str], given: set[str], typed: Iterable[str]) -> tuple[Sources, set[str]]:
    """What the command line and the files of the chosen groups say, the cell's hyper-parameters aside.

    Args:
        chosen: group -> name of its file.
        given: the groups that are typed.
        typed: the dotted keys that are typed.

    Returns:
        Key -> source of all that is set, and the keys that the cell's hyper-parameters must leave alone: those that are
        typed, those of a preset, and those that the file of a typed group sets in its own node (a method's learning
        rate is meant for cells that have none of their own).
    """
    found: Sources = {}
    fixed: set[str] = set()
    for group in [g for g in _ORDER if g in chosen]:
        keys = _fields_of(tuple(groups.sets(group, chosen[group])))
        source = f"typed group {group}={chosen[group]}" if group in given else DEFAULT
        if group == "experiment":
            source = f"experiment={chosen[group]}"
            fixed |= keys
        elif group in given:
            fixed |= {key for key in keys if key.startswith(f"{group}.")}
        found |= dict.fromkeys(keys, source)
    keys = _fields_of(tuple(typed))
    return found | dict.fromkeys(keys, TYPED), fixed | keys


def recorded(found: Sources) -> Sources:
    """The source of every value of the `RECORDED` parts."""
    return {key: found.get(key, DEFAULT) for key in _fields() if key.startswith(tuple(f"{part}." for part in RECORDED))}


def announcements(config: Config, sources: dict[str, str]) -> list[str]:
    """One line for hyper-parameters that nobody chose for this cell, and one for those of another q."""
    lines = []
    hp, method = config.hparams, config.method
    if method.train != "nothing" and hp.provenance == Hparams().provenance:
        told = {"learning_rate": f"learning rate {hp.learning_rate:g}", "epochs": f"epochs {hp.epochs:g}",
                "batch_size": f"batch size {hp.batch_size}"}  # fmt: skip
        open_ = [name for name in told if sources.get(f"hparams.{name}") != TYPED]
        if open_:
            lines.append(
                f"no published hyper-parameters for {config.task.name} with {config.model.name} and {method.name}: "
                f"the defaults are {', '.join(told[name] for name in open_)}; "
                f"set {', '.join(f'hparams.{name}' for name in open_)}"
            )
    other = [key for key, source in sources.items() if source.endswith(OTHER_Q) and key != PROVENANCE]
    if other and method.train != "nothing":
        lines.append(f"quant.q={config.quant.q}: {hp.provenance}; taken over: {', '.join(other)}")
    return lines


@functools.cache
def _fields() -> tuple[str, ...]:
    """The dotted keys of the schema."""

    def below(node: Any, prefix: str) -> Iterable[str]:
        for f in dataclasses.fields(node):
            value = getattr(node, f.name)
            yield from below(value, f"{prefix}{f.name}.") if dataclasses.is_dataclass(value) else [f"{prefix}{f.name}"]

    return tuple(below(Config(), ""))


@functools.lru_cache(maxsize=4096)
def _fields_of(keys: tuple[str, ...]) -> frozenset[str]:
    """The schema's keys that setting `keys` sets, or sets a part of."""
    return frozenset(
        ours
        for ours in _fields()
        for key in keys
        if key == ours or ours.startswith(f"{key}.") or key.startswith(f"{ours}.")
    )
