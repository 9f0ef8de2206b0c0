"""A composed config as the typed one, its values checked against the schema."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alphatune import groups, ranges
from alphatune.config import Config, Data, Task, Tiny
from alphatune.errors import UserError
from alphatune.settings import check_solver

_METRICS = {"generation": ["bleu"], "classification": ["accuracy"], "regression": ["pearson", "spearman"]}  # default


def parse(cfg: DictConfig) -> Config:
    """The typed config of a composed one.

    Raises:
        UserError: a key that the schema does not have, or a value outside its allowed set.
    """
    _refuse_unknown_keys(cfg, Config, "")
    config: Config = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    if not isinstance(config, Config):
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), cfg))  # type: ignore[assignment]
    return checked(config)


def checked(config: Config) -> Config:
    """The same config, its values checked one by one and together; a model without a name gets one.

    Raises:
        UserError: a value outside its allowed set.
    """
    if config.model.name_or_path.startswith("~"):  # no shell expands it behind a "="
        config.model.name_or_path = str(Path(config.model.name_or_path).expanduser())
    config.model.name = config.model.name or config.model.name_or_path.rstrip("/").rsplit("/", 1)[-1]
    ranges.check(config)
    for key in ("metrics", "subsets", "labels"):
        if not all(isinstance(name, str) for name in getattr(config.task, key)):
            raise UserError(f"task.{key}={getattr(config.task, key)}: must be a list of words")
    _check_heads(config.model.tiny)
    _check_own(config.task, config.data)
    quant = config.quant
    if quant.format == "bcq":
        check_solver(quant.solver, quant.q, quant.offset, quant.start, "quant.", "q")
    elif quant.start != "greedy":
        raise UserError(f"quant.start={quant.start}: quant.format={quant.format} is a searched grid and has no start")
    return config


def _check_own(task: Task, data: Data) -> None:
    """What belongs to the user's own tasks and what does not; their default metrics are put in place."""
    named = [f"data.{key}" for key in ("train", "valid", "test") if getattr(data, key) is not None]
    if task.reader != "own":
        if task.kind == "regression":
            raise UserError(f"task.kind=regression: is of task=own; task={task.name} is regression without task.labels")
        if named:
            raise UserError(f"{named[0]}: is of task=own; task={task.name} is read from data.dir")
        return
    if data.dir is not None:
        raise UserError(f"data.dir={data.dir}: task=own has a file for each split: data.train, data.valid, data.test")
    taken = [name for name in groups.choices("task") if name != "own"]
    if not re.fullmatch(r"\w[\w.+-]*", task.name) or task.name in taken:
        raise UserError(
            f"task.name={task.name}: must be a name of letters, digits and . _ + -, and none of: {', '.join(taken)}"
        )
    if task.labels and task.kind != "classification":
        raise UserError(f"task.labels={task.labels}: task.kind={task.kind} has no classes; leave it out")
    if len(set(task.labels)) < len(task.labels) or len(task.labels) == 1 or not all(map(str.strip, task.labels)):
        raise UserError(f"task.labels={task.labels}: must be two names or more, each once")
    if task.metrics == ["default"]:
        task.metrics = list(_METRICS[task.kind])


def _check_heads(tiny: Tiny) -> None:
    if tiny.width % tiny.heads:
        possible = [n for n in range(1, 65) if tiny.width % n == 0]
        raise UserError(
            f"model.tiny.heads={tiny.heads}: must divide model.tiny.width={tiny.width}, e.g. "
            f"{', '.join(map(str, possible))}"
        )


def _refuse_unknown_keys(node: DictConfig, schema: type, prefix: str) -> None:
    known = {f.name: f for f in dataclasses.fields(schema)}
    for key in map(str, node):
        if key not in known:
            value = node._get_node(key)
            where = prefix.rstrip(".") or "the config"
            raise UserError(f"{prefix}{key}={value}: no such key; keys of {where}: {', '.join(known)}")
        factory = known[key].default_factory
        if dataclasses.is_dataclass(factory):
            child = node._get_node(key)
            if child is None or child._is_none():  # type: ignore[union-attr]
                raise UserError(f"{prefix}{key}=null: {key} cannot be empty; leave it out for the default")
            _refuse_unknown_keys(child, factory, f"{prefix}{key}.")  # type: ignore[arg-type]
