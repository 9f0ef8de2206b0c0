"""Whether a model carries an adapter already: what changes the base's layers must know."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from alphatune.errors import UserError


def refuse_adapters(model: nn.Module, what: str) -> None:
    """Refuse a model with an adapter in it, whoever put it there.

    Args:
        what: what cannot be done with it, such as "quantise".

    Raises:
        UserError: it carries one, which is to be merged or taken off first.
    """
    inside = any(isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper) for m in model.modules())
    if not inside and not isinstance(model, PeftModel):
        return
    configs: dict[str, Any] = getattr(model, "peft_config", None) or {}
    names = ", ".join(f"{name} ({getattr(c.peft_type, 'value', c.peft_type)})" for name, c in configs.items())
    if not inside:  # prompts in front of a model whose layers are as they were
        raise UserError(f"this model carries an adapter, {names}: {what} model.get_base_model() instead")
    raise UserError(
        f"this model carries an adapter{names and f', {names}'}: merge it first, model = model.merge_and_unload(), or "
        f"{what} the base alone and put the adapter on that"
    )
