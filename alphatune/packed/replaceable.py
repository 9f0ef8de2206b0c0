"""Which linear layers a packed one can stand for: told by what a layer does, never by what it is called.

A packed layer maps as `nn.Linear` and `Conv1D` do, and rebuilds its `weight` for whoever multiplies by that instead. It
cannot stand for a layer that computes something else, or whose weight is not its own.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_FORWARDS = (nn.Linear.forward, Conv1D.forward)


def reason_to_stay(layer: nn.Module, owners: dict[int, int]) -> str | None:
    """Why a packed layer cannot stand for this linear one, in a few words; None if it can. `owners`: see below."""
    if "forward" in vars(layer):
        return "its calls are redirected, as for offloading"
    if type(layer).forward not in _FORWARDS:
        return f"{type(layer).__name__} has a forward of its own"
    weight = layer._parameters.get("weight")
    if weight is None:  # parametrizations, pruning, spectral norm
        return "its weight is computed from other parameters"
    if owners[id(weight)] > 1 or owners[id(layer)] > 1:
        return "it shares its weight with another module"
    return None


def owners_of(model: nn.Module) -> dict[int, int]:
    """By identity: how many modules hold each parameter, and each module, as theirs."""
    found: dict[int, int] = {id(model): 0}
    for module in model.modules():  # each once
        held: list[nn.Module | torch.Tensor | None] = [*module._modules.values(), *module._parameters.values()]
        for one in {id(x) for x in held if x is not None}:
            found[one] = found.get(one, 0) + 1
    return found
