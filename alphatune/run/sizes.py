"""Parameters and bytes, by arithmetic: what the paper's size columns say.

total bytes = 4 (P - w) + q w / 8 + 4 q s, with P all parameters, w the weights of the quantised layers and s the number
of groups (scales per plane). Everything that is not codes is float32. MB = 10^6 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from alphatune.config import Config
from alphatune.learn.methods import HEADS, lora_targets
from alphatune.packed.walk import linear_layers, model_width, weight_of
from alphatune.quant.grouping import Grouping
from alphatune.settings import NF4

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Sizes:
    """Sizes of one adapted model."""

    parameters: int  # of the unquantised model, tied weights once
    linear_weights: int  # in the layers that are quantised
    groups: int  # scales per plane; 0 without quantisation
    trainable_parameters: int | None  # None: nothing trains (the PTQ rows print "-")
    dense_bytes: int  # the model in float32
    total_bytes: int  # the deployed model, adapter included
    checkpoint_bytes: int  # what is stored per task


def sizes(model: nn.Module, config: Config) -> Sizes:
    """Sizes of `config`'s method on the unquantised `model`, which may be on the meta device."""
    method, quant = config.method, config.quant
    layers = linear_layers(model)
    weights = sum(weight_of(layer).numel() for layer in layers.values())
    groups = sum(_groups(layer, config, model_width(model)) for layer in layers.values())
    parameters = sum(p.numel() for p in model.parameters())
    lora = _lora_parameters(model, config) if method.train == "lora" else 0
    head = sum(p.numel() for n, p in model.named_parameters() if any(part in HEADS for part in n.split(".")))
    head = head if config.task.kind != "generation" else 0

    planes = groups * (quant.q + (quant.format == "uniform" or quant.offset))  # an offset counts as a plane's scales
    packed_bytes = FLOAT * (parameters - weights) + quant.q * weights // 8 + FLOAT * planes
    dense_bytes = FLOAT * parameters
    trainable: int | None = {
        "nothing": 0,
        "weights": parameters,
        "lora": lora + head,
        "scales": (groups * quant.q if method.trainable == "all" else groups) + head,
    }[method.train]
    if method.quantize == "nf4":
        groups = sum(NF4.blocks(weight_of(layer).numel()) for layer in layers.values())
        codes = sum(NF4.bytes(weight_of(layer).numel()) for layer in layers.values())
        total, checkpoint = FLOAT * (parameters - weights + lora) + codes, FLOAT * int(trainable or 0)
    elif method.quantize == "never":
        total, checkpoint = dense_bytes + FLOAT * lora, FLOAT * int(trainable or 0)
    elif method.coded:
        total, checkpoint = packed_bytes + FLOAT * lora, FLOAT * int(trainable or 0)
    elif method.quantize == "frozen":
        total, checkpoint, trainable = packed_bytes + FLOAT * lora, FLOAT * (lora + head), None
    else:  # quantised after adaptation: the whole model is specific to the task
        total, checkpoint, trainable = packed_bytes, packed_bytes, None
    if method.train == "nothing":
        trainable = None
    quantized = groups if method.quantize != "never" else 0
    return Sizes(parameters, weights, quantized, trainable, dense_bytes, total, checkpoint)


def layer_bytes(rows: int, columns: int, q: int, group_size: int | None) -> int:
    """Bytes of one BCQ layer: codes and float32 scales (Table 1)."""
    return rows * columns * q // 8 + FLOAT * q * Grouping.of(rows, columns, group_size).count


def _groups(layer: nn.Module, config: Config, width: int | None) -> int:
    rows, columns = weight_of(layer).shape
    return Grouping.of(rows, columns, config.quant.group_size, width).count


def _lora_parameters(model: nn.Module, config: Config) -> int:
    """r (in + out) for every adapted layer."""
    shapes = [weight_of(model.get_submodule(n)).shape for n in lora_targets(model, config.method.lora.targets)]
    return sum(config.method.lora.r * (rows + columns) for rows, columns in shapes)
