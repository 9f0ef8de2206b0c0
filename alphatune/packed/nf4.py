"""NF4, the codes that QLoRA freezes, through bitsandbytes: linear layers of the blocks become its `Linear4bit`.

The codes follow from the weights alone and take a second to make, so nothing is stored.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import torch
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.packed.walk import linear_layers, replace, weight_of
from alphatune.settings import NF4


def installed() -> bool:
    """Whether bitsandbytes is there; importing it takes a second and is left to who needs it."""
    return importlib.util.find_spec("bitsandbytes") is not None


def install(model: nn.Module) -> None:
    """Replace the linear layers inside the transformer blocks of a dense `model`, in place.

    Raises:
        UserError: bitsandbytes is not installed, or there is no layer to quantise.
    """
    if not installed():
        raise UserError("nf4 needs bitsandbytes: pip install 'alphatune[qlora]'")
    import bitsandbytes as bnb

    targets = linear_layers(model)
    if not targets:
        raise UserError(f"{type(model).__name__} has no linear layers inside repeated blocks: nothing to quantise")
    for name, layer in targets.items():
        weight = weight_of(layer)
        rows, columns = weight.shape
        bias: Any = layer.bias
        coded = bnb.nn.Linear4bit(
            columns, rows, bias=bias is not None, compute_dtype=torch.float32, compress_statistics=True,
            quant_type="nf4", device="meta",
        )  # fmt: skip
        codes: Any = bnb.nn.Params4bit(
            weight.contiguous(), requires_grad=False, compress_statistics=True, quant_type="nf4", blocksize=NF4.block
        )
        codes.module = coded
        coded.weight = codes.to(weight.device)  # codes are made on the way to a device
        if bias is not None:
            coded.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        replace(model, name, coded)
    wide: Any = model
    wide.is_loaded_in_4bit = True  # by this peft knows which of its LoRA layers fits


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The NF4 layers of `model`, by name; inside adapters too."""
    bnb: Any = sys.modules.get("bitsandbytes")  # whoever made such layers has imported it
    if bnb is None:
        return {}
    return {name: module for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}


def dense(layer: nn.Module) -> Tensor:
    """The weight [out, in] that an NF4 layer's codes stand for, in float32."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = layer.weight
    found: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return found.float()
