"""What a column shows: a number of a run's record, or one that follows from the config alone (sizes, settings).

Names of a column's value:
  valid_loss                                          the final model's validation loss, nats per target token
  valid_rise                                          its last value in training less its lowest: overfitting
  <metric>_<subset>                                   a score, e.g. bleu_unseen
  trainable_params, checkpoint_mb, total_mb           sizes; MB = 10^6 bytes
  bits_per_weight                                     what codes and scales take, over the weights that they stand for
  layer_w_shape, layer_w_mb, layer_alpha_shape,       one layer (Table 1), shapes in multiples of the model width h
  layer_code_shape, layer_mb
  a dotted key, e.g. hparams.learning_rate            the composed setting
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.learn import models
from alphatune.tables.experiment import Column, Row

if TYPE_CHECKING:
    from torch import nn

MB = 10**6
SIZES = ("trainable_params", "checkpoint_mb", "total_mb")
LAYER = ("layer_w_shape", "layer_w_mb", "layer_alpha_shape", "layer_code_shape", "layer_mb")


def name_of(column: Column) -> str:
    """The column's value: named, or the key itself."""
    return column.value or column.key


def is_setting(column: Column) -> bool:
    """Whether the column shows a composed setting."""
    return "." in name_of(column)


def measured(column: Column) -> bool:
    """Whether the column needs runs."""
    return not is_setting(column) and name_of(column) not in SIZES + LAYER


def of_record(record: dict[str, Any], name: str) -> float | None:
    """A value of a record; None where the run has none."""
    sizes = record["sizes"]
    if name == "trainable_params":
        return sizes["trainable_parameters"]
    if name in SIZES:
        return sizes[name.replace("_mb", "_bytes")] / MB
    if name == "valid_loss":
        return record["validation_loss"]
    if name == "bits_per_weight":
        return _bits(sizes)
    if name == "valid_rise":
        curve = [loss for _, loss in record["curves"]["validation"]]
        return curve[-1] - min(curve) if curve else None
    cuts = (i for i, letter in enumerate(name) if letter == "_")  # metrics and subsets may have some of their own
    found = (record["scores"].get(name[i + 1 :], {}).get(name[:i]) for i in cuts)
    return next((score["value"] for score in found if score is not None), None)


def _bits(sizes: dict[str, Any]) -> float | None:
    """Bits per quantised weight: all bytes but those of what stays dense, over the weights; None of a dense model."""
    if not sizes.get("groups"):
        return None
    dense = sizes["dense_bytes"] - 4 * sizes["linear_weights"]
    return 8 * (sizes["total_bytes"] - dense) / sizes["linear_weights"]


def of_config(config: Config, row: Row, name: str) -> float | str | None:
    """A value that needs no run; None where the model's shape is not known here."""
    if "." in name:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        return str(value) if isinstance(value, bool | list) or value is None else value
    if config.task.kind == "classification" and config.task.reader == "own" and not config.task.labels:
        return None  # the head has as many rows as the user's training file has classes: a run says
    try:
        network = _network(config)
    except (OSError, ValueError):
        return None  # a checkpoint that is not here and whose shape no file of conf/model says
    return _layer(network, config, row.layer, name) if name in LAYER else _size(network, config, name)


def _size(network: nn.Module, config: Config, name: str) -> float | None:
    from alphatune.run.sizes import sizes

    found = sizes(network, config)
    if name == "trainable_params":
        return found.trainable_parameters
    return (found.checkpoint_bytes if name == "checkpoint_mb" else found.total_bytes) / MB


def _layer(network: nn.Module, config: Config, layer: str, name: str) -> float | str:
    from alphatune.packed.walk import linear_layers, model_width, weight_of
    from alphatune.quant.grouping import Grouping
    from alphatune.run.sizes import FLOAT, layer_bytes

    layers = linear_layers(network)
    chosen = next((weight_of(m).shape for n, m in layers.items() if n.endswith(layer)), None)
    if chosen is None:
        known = ", ".join(sorted({n.rpartition(".")[2] for n in layers}))
        raise UserError(f"layer={layer}: the model has no such linear layer; there are: {known}")
    rows, columns = chosen
    width = model_width(network) or 1
    grouping = Grouping.of(rows, columns, config.quant.group_size, width)
    q = config.quant.q
    if name == "layer_w_mb":
        return FLOAT * rows * columns / MB
    if name == "layer_mb":
        return layer_bytes(rows, columns, q, grouping.size) / MB
    shape = {
        "layer_w_shape": _in_h([rows, columns], width),
        "layer_alpha_shape": ["q", *_in_h([grouping.count], width)],
        "layer_code_shape": ["q", *_in_h([rows, columns], width)],
    }[name]
    return f"({', '.join(shape)})"


def _in_h(numbers: list[int], width: int) -> list[str]:
    return [str(n) if n % width else f"{n // width}h".replace("1h", "h", n == width) for n in numbers]


_networks: dict[tuple[str, str, int], nn.Module] = {}


def _network(config: Config) -> nn.Module:
    """The model's shapes on the meta device; built once per model and kind of task."""
    kind, labels = config.task.kind, len(config.task.labels)
    key = (repr(config.model), kind, labels)
    if key not in _networks:
        _networks[key] = models.skeleton(config.model, kind, labels)
    return _networks[key]
