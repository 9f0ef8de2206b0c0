"""Packed models made ordinary again: each packed layer becomes what it was, with the weights that it stands for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from alphatune.errors import UserError
from alphatune.hf.carried import refuse_adapters
from alphatune.hf.offloaded import refuse_offloaded
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.packed.walk import replace


def unpack_layers(model: Any, dtype: torch.dtype) -> Any:
    """Put ordinary layers in the place of packed ones, in place.

    Returns:
        The same model, in `dtype`.

    Raises:
        UserError: nothing in it is packed, a part of it is offloaded, or it carries an adapter.
    """
    layers = packed_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} has no packed layer")
    refuse_adapters(model, "dequantise")
    refuse_offloaded(model, "dequantise it")
    with torch.device("meta"):
        original = type(model)(without_quantization(model))  # which says of each layer what it was
    for name, layer in layers.items():
        replace(model, name, _dense_layer(layer, isinstance(original.get_submodule(name), Conv1D)))
    return model.to(dtype)


def without_quantization(model: Any) -> Any:
    """The model's config as that of a dense model."""
    values = model.config.to_dict()
    values.pop("quantization_config", None)
    return type(model.config).from_dict(values)


def _dense_layer(layer: PackedLinear, transposed: bool) -> nn.Module:
    weight = layer.weight_t().detach()
    dense: Any
    with torch.device("meta"):  # no initial values: they are replaced at once
        if transposed:
            dense = Conv1D(layer.out_features, layer.in_features)
        else:
            dense = nn.Linear(layer.in_features, layer.out_features)
    dense.weight = nn.Parameter(weight if transposed else weight.T.contiguous(), requires_grad=False)
    dense.bias = layer.bias
    if transposed and layer.bias is None:  # a Conv1D cannot do without
        dense.bias = nn.Parameter(weight.new_zeros(layer.out_features), requires_grad=False)
    return dense
