"""A composed config as the typed one, its values checked against the schema."""

from __future__ import annotations

import dataclasses

from omegaconf import DictConfig, OmegaConf

from alphatune import ranges
from alphatune.config import Config, Tiny
from alphatune.errors import UserError
from alphatune.settings import check_solver


def parse(cfg: DictConfig) -> Config:
    """The typed config of a composed one.

    Raises:
        UserError: a key that the schema does not have, or a value outside its allowed set.
    """
    _refuse_unknown_keys(cfg, Config, "")
    config: Config = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    if not isinstance(config, Config):
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), cfg))  # type: ignore[assignment]
    config.model.name = config.model.name or config.model.name_or_path.rstrip("/").rsplit("/", 1)[-1]
    ranges.check(config)
    _check_heads(config.model.tiny)
    quant = config.quant
    if quant.format == "bcq":
        check_solver(quant.solver, quant.q, quant.offset, quant.start, "quant.", "q")
    elif quant.start != "greedy":
        raise UserError(f"quant.start={quant.start}: quant.format={quant.format} is a searched grid and has no start")
    return config


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
