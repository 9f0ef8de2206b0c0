"""A backbone that is packed already: whether its codes are those that a run names (method.quantize=given).

One packed base serves many tasks this way: `alphatune quantize` makes it once, every run adds its scales.
"""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.packed.linear import packed_layers
from alphatune.run.identity import GIVEN
from alphatune.settings import FORMATS


def fault(quantization: Any, config: Config) -> str | None:
    """What keeps a run from taking the codes of a checkpoint with this quantization_config, or None."""
    name, known = config.model.name_or_path, {settings.quant_method: name for name, settings in FORMATS.items()}
    found = quantization if isinstance(quantization, dict) else {}
    if found.get("quant_method") not in known:
        return f"{name}: is not packed, but method.quantize=given takes its codes: `alphatune quantize` packs it"
    form = known[found["quant_method"]]
    has = [form, found.get("bits"), found.get("group_size"), bool(found.get("offset"))]
    quant = config.quant
    wants = [quant.format, quant.q, quant.group_size, quant.offset and quant.format == "bcq"]
    if has == wants:
        return None
    said = " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in zip(GIVEN, has, strict=True)
    )
    return f"{name}: its codes have {said}; name them so, whatever differs from the defaults"


def check(model: nn.Module, config: Config) -> None:
    """Where a run takes its backbone's codes, refuse one that has none, or others than the run names.

    Raises:
        UserError: it has.
    """
    if config.method.quantize != "given":
        return
    settings = getattr(model.config, "quantization_config", None)
    told = fault(settings if isinstance(settings, dict) or settings is None else settings.to_dict(), config)
    if told is None and not packed_layers(model):
        told = f"{config.model.name_or_path}: its config.json names codes, but no layer has any"
    if told:
        raise UserError(told)
