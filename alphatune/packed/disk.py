"""Codes and scales on disk: one safetensors file per quantised model, one report of the errors beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from alphatune.config import Quant
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.packed.walk import let_go, linear_layers, model_width, quantize_layers, replace, weight_of  # fmt: skip
from alphatune.quant.grouping import Grouping

TENSORS = "packed.safetensors"
REPORT = "report.json"
Calibration = Sequence[Mapping[str, torch.Tensor]]


def write(
    folder: Path, model: nn.Module, quant: Quant, progress: bool = True, calibration: Calibration | None = None
) -> None:
    """Quantise `model` in place and write its codes, scales and per-layer errors to `folder`.

    `calibration`: batches of inputs, for the solvers that need them.
    """
    reports = quantize_layers(model, quant.settings(), progress, calibration)
    tensors = {}
    for name, layer in packed_layers(model).items():
        tensors[f"{name}.qweight"] = layer.qweight
        tensors[f"{name}.alpha"] = layer.alpha
        if layer.offset is not None:
            tensors[f"{name}.offset"] = layer.offset
    save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, folder / TENSORS)
    (folder / REPORT).write_text(json.dumps([asdict(r) for r in reports], allow_nan=False))


def install(model: nn.Module, folder: Path, quant: Quant) -> None:
    """Replace the linear layers of `model` by packed ones with the codes and scales of `folder`."""
    tensors = load_file(folder / TENSORS)
    for name, layer in linear_layers(model).items():
        replace(model, name, _packed(name, layer, tensors, quant, model_width(model)))
    let_go(model)


def write_dense(model: nn.Module, folder: Path, quant: Quant) -> None:
    """Overwrite the weights of the linear layers of `model` with their dequantised values; the layers stay dense."""
    tensors = load_file(folder / TENSORS)
    with torch.no_grad():
        for name, layer in linear_layers(model).items():
            packed = _packed(name, layer, tensors, quant, model_width(model))
            weight_of(layer).copy_(packed.weight_t().T)


def _packed(
    name: str, layer: nn.Module, tensors: dict[str, torch.Tensor], quant: Quant, width: int | None
) -> PackedLinear:
    rows, columns = weight_of(layer).shape
    return PackedLinear(
        tensors[f"{name}.qweight"],
        tensors[f"{name}.alpha"],
        tensors.get(f"{name}.offset"),
        getattr(layer, "bias", None),
        Grouping.of(rows, columns, quant.group_size, width),
    )
