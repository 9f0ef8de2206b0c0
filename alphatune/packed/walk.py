"""Quantising a model: which of its layers, one after another, in bounded memory.

Quantised are the linear layers inside the repeated transformer blocks; embeddings, norms, biases and heads stay as
they are (section 4.1 of the paper).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from alphatune.errors import UserError
from alphatune.packed.calibration import second_moments
from alphatune.packed.linear import PackedLinear
from alphatune.packed.replaceable import owners_of, reason_to_stay
from alphatune.progress import Progress
from alphatune.quant.curvature import Curvature
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import check_span, solve_matrix
from alphatune.settings import CALIBRATED, BCQConfig, Quantization


@dataclass(frozen=True)
class LayerReport:
    """What quantising did to one layer."""

    name: str
    rows: int
    columns: int
    bits: int
    group_size: int
    mse: float  # mean squared error per weight
    relative_error: float  # ||W - W_q|| / ||W||
    output_error: float | None = None  # ||X (W - W_q)^T|| / ||X W^T|| on the calibration inputs, if there are any


def quantize_layers(
    model: nn.Module,
    config: Quantization,
    progress: bool = True,
    calibration: Sequence[Mapping[str, Tensor]] | None = None,
    layers: Mapping[str, nn.Module] | None = None,
) -> list[LayerReport]:
    """Replace the linear layers inside `model`'s transformer blocks by packed ones, in place.

    `layers` are those to replace, by name; without them all of `linear_layers(model)`, and warnings tell of linear
    layers inside the blocks that stay dense (`staying_layers`) and of weights there that no linear layer holds (the
    experts of a mixture).

    `calibration` are batches of the model's own inputs (`input_ids`, `attention_mask`, ...); the solvers "weighted",
    "hessian" and "gptq" need them, others do not look at them.

    Raises:
        UserError: a group size that does not fit, a solver that lacks calibration inputs or cannot do what is asked
            of it with this model, weights that are not finite, or no layer to quantise. The model is then as it was.
    """
    targets = linear_layers(model) if layers is None else dict(layers)
    if not targets:
        why = next((f"; {name} stays dense: {reason}" for name, reason in staying_layers(model).items()), "")
        raise UserError(f"{type(model).__name__} has no linear layers inside repeated blocks: nothing to quantise{why}")
    with _one_thread():
        for name, layer in targets.items():
            _check_finite(layer, name)  # calibration would spread a fault to every layer behind it
    if layers is None:
        _tell_of_dense_weights(model)
    width = model_width(model)
    moments: Iterable[tuple[str, Tensor | None]] = dict.fromkeys(targets).items()
    if isinstance(config, BCQConfig) and config.solver in CALIBRATED:
        if calibration is None:
            raise UserError(f"solver={config.solver}: needs calibration inputs; give them, or use alternating")
        _check_calibration(calibration)
        shapes = {name: weight_of(layer).shape for name, layer in targets.items()}
        for rows, columns in shapes.values():
            check_span(Grouping.of(rows, columns, config.group_size, width), config)
        moments = second_moments(model, {name: shape[1] for name, shape in shapes.items()}, calibration)
    reports, packed = [], {}
    with Progress("quantise", len(targets), "layer", progress) as shown:
        last: Curvature | None = None
        for name, hessian in moments:
            if hessian is not None and isinstance(config, BCQConfig) and (last is None or last.moments is not hessian):
                last = Curvature.of(hessian, config.damping)  # once for all layers that read the same input
            packed[name], report = quantize_layer(targets[name], config, name, width, last)
            reports.append(report)
            shown.advance()
    for name, layer in packed.items():  # at the end: calibration inputs come from the model as it was
        replace(model, name, layer)
    let_go(model)
    return reports


def quantize_layer(
    layer: nn.Module,
    config: Quantization,
    name: str = "",
    width: int | None = None,
    hessian: Tensor | Curvature | None = None,
) -> tuple[PackedLinear, LayerReport]:
    """The packed form of one `nn.Linear` or `Conv1D`, and its quantisation error.

    `hessian` is X^T X / T of the layer's inputs, [in, in], or its curvature, for the solvers that need it.

    Raises:
        UserError: the group size does not fit, the solver cannot do what is asked, or the weights are not finite.
    """
    with _one_thread():
        _check_finite(layer, name)
    weight = weight_of(layer)
    grouping = Grouping.of(weight.shape[0], weight.shape[1], config.group_size, width)
    check_span(grouping, config)
    if not isinstance(config, BCQConfig) or config.solver not in CALIBRATED:
        hessian = None
    elif hessian is None:
        raise UserError(f"solver={config.solver}: needs the second moments of the layer's inputs")
    elif isinstance(hessian, Tensor):
        hessian = Curvature.of(hessian, config.damping)
    with _float32_by_default(), nullcontext() if hessian is not None else _one_thread():
        solved = solve_matrix(weight, config, grouping, hessian)
    report = LayerReport(
        name, grouping.rows, grouping.columns, config.bits, grouping.size,
        solved.mse, solved.relative_error, solved.output_error,
    )  # fmt: skip
    bias = getattr(layer, "bias", None)
    return PackedLinear(solved.qweight, solved.alpha, solved.offset, bias, grouping), report


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside the repeated blocks that packed ones can stand for, by name."""
    staying = staying_layers(model)
    return {name: layer for name, layer in _all_linear(model).items() if name not in staying}


def staying_layers(model: nn.Module) -> dict[str, str]:
    """The linear layers inside the repeated blocks that must stay dense, by name, each with the reason."""
    owners = owners_of(model)
    reasons = {name: reason_to_stay(layer, owners) for name, layer in _all_linear(model).items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _all_linear(model: nn.Module) -> dict[str, nn.Module]:
    inside = blocks(model)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(inside)
    }


def blocks(model: nn.Module) -> tuple[str, ...]:
    """How the names of what is inside the repeated blocks start: the outermost `ModuleList`s of like modules."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{b}.") for b in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside and len({type(m) for m in module}) == 1:
            found.append(name)
    return tuple(f"{name}." for name in found)


def weight_of(layer: nn.Module) -> Tensor:
    """The weight as [out, in]: GPT-2's `Conv1D` stores the transpose."""
    weight = layer.weight.detach()  # type: ignore[union-attr, operator]
    return weight.T if isinstance(layer, Conv1D) else weight


def model_width(model: nn.Module) -> int | None:
    """The h of the paper: the model's hidden size."""
    return getattr(getattr(model, "config", None), "hidden_size", None)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule called `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's operations on one thread: those on one layer are short, and each would wait for threads that other work
    holds up (beside one other process two threads took 30 times as long as one)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def let_go(model: nn.Module) -> None:
    """Copy what still lies in a mapped checkpoint: one tensor of it keeps the file, dense weights too, in memory."""
    for tensor in (*model.parameters(), *model.buffers()):
        borrowed = tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter) and not tensor.is_shared()
        if borrowed and not tensor.untyped_storage().resizable():
            tensor.data = tensor.data.clone()


def _check_finite(layer: nn.Module, name: str) -> None:
    stored = layer.weight.detach()  # type: ignore[union-attr, operator]  # as it lies in memory: no copy is made
    if stored.is_meta:
        raise UserError(f"{name or 'the layer'}: weights not in memory (offloaded?): load the whole model")
    if not all(bool(extreme.isfinite()) for extreme in torch.aminmax(stored)):  # NaN is both extremes
        raise UserError(f"{name or 'the layer'}: holds weights that are not finite; the model is damaged")


def _check_calibration(batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse what is no list of batches, each a mapping of a model's inputs to tensors that hold tokens."""
    form = 'a list of batches such as [{"input_ids": tensor}]'
    if isinstance(batches, Mapping | str) or not isinstance(batches, Sequence):
        raise UserError(f"calibration: must be {form}, not a {type(batches).__name__}")
    for number, batch in enumerate(batches):
        values = batch.values() if isinstance(batch, Mapping) else ()
        if not values or "input_ids" not in batch or not all(isinstance(value, Tensor) for value in values):
            raise UserError(f"calibration: must be {form}; batch {number} is not such a mapping of names to tensors")
        if batch["input_ids"].ndim != 2 or not batch["input_ids"].numel():
            shape = list(batch["input_ids"].shape)
            raise UserError(f"calibration: batch {number} has input_ids of shape {shape}, not [texts, tokens]")


def _tell_of_dense_weights(model: nn.Module) -> None:
    """Warn of what stays dense inside the blocks: linear layers that packed ones cannot stand for, other matrices."""
    staying = staying_layers(model)
    if staying:
        name, reason = next(iter(staying.items()))
        count = f"{len(staying)} linear layers stay" if len(staying) > 1 else "one linear layer stays"
        warnings.warn(f"{count} dense inside the blocks: {name} ({reason})", stacklevel=4)
    inside, matrices, loose = blocks(model), 0, dict[str, int]()
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(path, recurse=False):
            if leaf.startswith(inside) and parameter.ndim > 1:
                matrices += parameter.numel()
                if not isinstance(module, nn.Linear | Conv1D | nn.Embedding):
                    loose[leaf] = parameter.numel()
    if loose:
        largest = max(loose, key=lambda name: loose[name])
        warnings.warn(
            f"{sum(loose.values()) / matrices:.0%} of the weights inside the blocks stay dense: {largest} "
            f"({len(loose)} of its kind) is no linear layer",
            stacklevel=4,
        )


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Within the block, new tensors are float32 whatever the program has set: scales must not depend on that."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
