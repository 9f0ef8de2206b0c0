"""LoRA beside packed layers, with peft's own `LoraConfig`, once `alphatune.register()` has told peft of them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.hf.offloaded import refuse_offloaded
from alphatune.packed.linear import PackedLinear, packed_layers

_INITS = ("gaussian", "orthogonal", "eva", "mica")  # others subtract the product that they start from from the base


class PackedLoraLinear(LoraLinear):
    """A low-rank product beside a packed layer. It cannot be merged: the sum of codes and that product has no codes."""

    def _get_base_layer_device_and_dtype(self, base_layer: Any) -> tuple[torch.device, torch.dtype]:
        return base_layer.qweight.device, torch.float32  # peft's own would look at `weight`, which rebuilds it

    @property
    def weight(self) -> Tensor:
        """The dense W [out, in] that this layer computes with (less any dropout), rebuilt at every access.

        Who multiplies by it, instead of calling the layer, then trains the low-rank product too.
        """
        weight: Tensor = self.get_base_layer().weight  # type: ignore[assignment]
        if self.disable_adapters:
            return weight
        for name in self.active_adapters:
            if name in self.lora_A:
                delta = self.get_delta_weight(name).to(weight.dtype)
                weight = weight + (delta.T if self.fan_in_fan_out else delta)
        return weight

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            UserError: always.
        """
        raise UserError(
            "LoRA cannot be merged into packed layers: it stays beside them. Keep the adapter, or merge it into the "
            "dense model and quantise that"
        )


class PackedLoraModel(LoraModel):
    """peft's LoRA, which also knows packed layers; target_modules="all-linear" means them where there are any.

    Raises:
        UserError: an initialisation that edits the base, whose codes cannot take it up; an offloaded model.
    """

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        packed = packed_names(self.model)
        if packed:
            refuse_offloaded(self.model, "add an adapter")
        init = peft_config.init_lora_weights
        if packed and isinstance(init, str) and init.lower() not in _INITS:
            raise UserError(
                f"init_lora_weights={init}: edits the base, which packed layers do not allow; use True, False or one "
                f"of: {', '.join(_INITS)}"
            )
        if packed and peft_config.target_modules == "all-linear":
            peft_config.target_modules = packed
        return super()._prepare_adapter_config(peft_config, model_config)

    @staticmethod
    def _create_new_module(lora_config: Any, adapter_name: str, target: nn.Module, **kwargs: Any) -> nn.Module:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, PackedLinear):
            return LoraModel._create_new_module(lora_config, adapter_name, target, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Unsupported layer type .*PackedLinear")
            return PackedLoraLinear(target, adapter_name, config=lora_config, **kwargs)


def packed_names(model: nn.Module) -> set[str]:
    """Names of the packed layers as they were before any adapter was put around them."""
    return {name.removesuffix(".base_layer") for name in packed_layers(model)}


def register() -> None:
    """Put this LoRA in the place of peft's own, unless somebody else has; doing it again changes nothing."""
    if PEFT_TYPE_TO_TUNER_MAPPING[PeftType.LORA] is LoraModel:
        PEFT_TYPE_TO_TUNER_MAPPING[PeftType.LORA] = PackedLoraModel
