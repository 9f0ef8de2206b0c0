"""LoftQ's start of LoRA on codes (Li et al. 2023): B A begins as what quantising took from the weights, at its rank.

One iteration of LoftQ, as peft does for models that are quantised already: the codes stay as they are, so that any
adapter still fits the one packed base.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.packed import nf4
from alphatune.packed.linear import PackedLinear
from alphatune.packed.walk import weight_of


@torch.no_grad()
def start(model: nn.Module, original: nn.Module) -> None:
    """Set every LoRA pair of `model` so that codes plus B A are nearest to the weights of `original`, in place.

    Args:
        model: wrapped by peft, with LoRA on packed or NF4 layers.
        original: the same model before quantising.

    Raises:
        UserError: LoRA lies on a layer that is not quantised.
    """
    wrapped: Any = model
    for name, module in wrapped.get_base_model().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        wanted = weight_of(original.get_submodule(name)).float()
        base: Any = module.get_base_layer()
        lost = wanted - _coded(base, name).to(wanted.device)
        for adapter in module.lora_A:
            a: Any = module.lora_A[adapter].weight
            b: Any = module.lora_B[adapter].weight
            left, right = _factors(lost, a.shape[0])
            root = module.scaling[adapter] ** 0.5  # peft multiplies B A by it
            a.copy_(right / root)
            b.copy_(left / root)


def _coded(layer: nn.Module, name: str) -> Tensor:
    if isinstance(layer, PackedLinear):
        return layer.weight_t().T
    if name and layer in nf4.layers(layer).values():
        return nf4.dense(layer)
    raise UserError(f"method.lora.start=residual: {name} is not quantised")


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """[out, rank] and [rank, in] of which the product is the best approximation of its rank (Eckart and Young)."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank, root = min(rank, len(s)), s.sqrt()
    left, right = matrix.new_zeros(len(matrix), rank), matrix.new_zeros(rank, matrix.shape[1])
    left.copy_(u[:, :rank] * root[:rank])
    right.copy_(root[:rank, None] * v[:rank])
    return left, right
