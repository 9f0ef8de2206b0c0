"""Where each value of a run comes from: typed, a typed group, the cell's hyper-parameters, a preset, or a default.

The order is that of `compose`: later layers win over earlier ones. What is found goes into the record, beside the
config and not into the run's identity, and is told on the terminal where it is not what one would expect.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from alphatune import groups
from alphatune.compose import compose
from alphatune.config import Config, Hparams

GROUPS = ("task", "data", "method.lora", "quant", "hparams", "trainer", "decode")
TYPED, DEFAULT = "typed", "default"
_OTHER_Q = ", of another q"  # at the end of a source whose file has no value for the run's q
_BY_Q = re.compile(r"[{,]\s*(\w+)\s*:")  # the cases of ${by_q:${quant.q},{3: a, other: b}}


def of(overrides: list[str]) -> dict[str, str]:
    """Dotted key -> where its value comes from, for all values of `GROUPS`.

    "typed", "typed group decode=stock", "hparams/<file> (<provenance>)", "experiment=smoke" or "default".
    """
    config = compose.config_of(overrides)
    chosen, typed = compose.chosen(overrides), compose.typed(overrides)
    found = dict.fromkeys(_keys(), DEFAULT)

    def layer(source: str, content: DictConfig, only: tuple[str, ...] = ("",)) -> None:
        for key, value in groups.leaves(content):
            for ours in found:
                if key.startswith(only) and _overlap(key, ours):
                    found[ours] = source + (_OTHER_Q if _for_another_q(value, config.quant.q) else "")

    given = [g for g in ("task", "quant", "method", "trainer", "decode") if g in typed]
    for group in given:
        layer(f"typed group {group}={typed[group]}", groups.content(group, typed[group]))
    if "hparams" in chosen:
        name = chosen["hparams"]
        layer(f"hparams/{name} ({config.hparams.provenance})", groups.content("hparams", name))
    for group in [g for g in given if g != "task"]:  # once more: these win over the cell's hyper-parameters
        own = (f"{group}.", *(["quant."] if group == "method" and "quant" in given else []))
        layer(f"typed group {group}={typed[group]}", groups.content(group, typed[group]), own)
    if "experiment" in chosen:
        layer(f"experiment={chosen['experiment']}", groups.content("experiment", chosen["experiment"]))
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        for ours in found:
            if key not in groups.names() and _overlap(key, ours):
                found[ours] = TYPED
    return found


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
    other = [key for key, source in sources.items() if source.endswith(_OTHER_Q) and key != "hparams.provenance"]
    if other and method.train != "nothing":
        lines.append(f"quant.q={config.quant.q}: {hp.provenance}; taken over: {', '.join(other)}")
    return lines


def _keys() -> Iterator[str]:
    for group in GROUPS:
        node: Any = Config()
        for part in group.split("."):
            node = getattr(node, part)
        yield from (f"{group}.{f.name}" for f in dataclasses.fields(node))


def _overlap(key: str, ours: str) -> bool:
    """Whether setting `key` sets `ours`, or a part of it."""
    return key == ours or ours.startswith(f"{key}.") or key.startswith(f"{ours}.")


def _for_another_q(value: Any, q: int) -> bool:
    if not isinstance(value, str) or not value.startswith("${by_q:"):
        return False
    return str(q) not in _BY_Q.findall(value.partition(",")[2])
