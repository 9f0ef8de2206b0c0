"""Packed models in transformers: quantise in place, `save_pretrained`, `from_pretrained`.

Importing this module registers it with transformers. A checkpoint holds int32 codes and float32 scales; its
config.json names the packed layers, so loading never guesses which they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer

from alphatune.errors import UserError
from alphatune.hf import counts
from alphatune.hf.carried import refuse_adapters
from alphatune.hf.dense import unpack_layers
from alphatune.packed import checksum, walk
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.packed.walk import LayerReport, linear_layers, replace, staying_layers, weight_of
from alphatune.quant.grouping import Grouping
from alphatune.settings import FORMATS, Quantization

Calibration = Sequence[Mapping[str, Tensor]]
_TENSORS = {"qweight": "I32", "alpha": "F32", "offset": "F32"}  # in the files, under these names of their dtypes
_Stored = dict[str, tuple[str, tuple[int, ...]]]  # name -> dtype and shape


def quantize_model(
    model: nn.Module, config: Quantization, progress: bool = True, calibration: Calibration | None = None
) -> nn.Module:
    """Pack the linear layers inside `model`'s transformer blocks, in place, and freeze the model.

    A transformers model can then be saved with `save_pretrained`; the errors made are in `model.hf_quantizer.reports`.

    Args:
        model: any transformers model, its weights loaded; other modules with repeated blocks are packed too.
        config: the format and the solver.
        calibration: batches of the model's inputs, for the solvers that need them.

    Returns:
        The same model.

    Raises:
        UserError: the model is packed already or carries an adapter, no layer is to be packed, weights are not finite
            or not in memory, a group size does not fit, or the solver lacks calibration inputs.
    """
    if not isinstance(config, Quantization):
        raise UserError(f"quantize_model takes alphatune.BCQConfig or alphatune.UniformConfig, not {type(config)}")
    if not hasattr(model, "save_pretrained"):
        _pack(model, config, progress, calibration)
        return model
    quantizer = PackedQuantizer(config, pre_quantized=False)
    quantizer.progress, quantizer.calibration = progress, calibration
    quantizer._process_model_after_weight_loading(model)  # marks the model only once it is packed
    _attach(quantizer, model)
    return model


def mark_packed(model: Any, config: Quantization) -> None:
    """Tell transformers that `model` holds packed layers, made with `config`, so that `save_pretrained` works."""
    quantizer = PackedQuantizer(config, pre_quantized=True)
    quantizer.keep(model, _sizes(model))
    _attach(quantizer, model)


class PackedQuantizer(HfQuantizer):
    """What transformers asks for while it loads or saves a packed model."""

    def __init__(self, quantization_config: Quantization, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)  # type: ignore[arg-type]  # it is used by its methods only
        self.reports: list[LayerReport] = []  # errors of the layers, where this process quantised them
        self.progress = True
        self.calibration: Calibration | None = None

    @property
    def settings(self) -> Quantization:
        """How the model is, or is to be, quantised."""
        return self.quantization_config  # type: ignore[return-value]

    def keep(self, model: Any, modules: dict[str, int]) -> None:
        """From now on these are the packed layers, here and in what `save_pretrained` writes."""
        self.quantization_config = changed(self.settings, modules=modules)  # type: ignore[assignment]
        model.config.quantization_config = self.quantization_config

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> Any:
        """Put empty packed layers into the skeleton."""
        if not self.pre_quantized:
            return model
        _show_as_quantised(model)
        stored = _stored(checkpoint_files)
        modules = self.settings.modules if isinstance(self.settings.modules, dict) else {}
        found: dict[str, int] = {}
        for name, size in modules.items():
            here = _here(model, name)
            if here is None:  # a part of the saved model that this class leaves out
                _check_left_out(model, name, stored)
                continue
            layer = model.get_submodule(here)
            rows, columns = weight_of(layer).shape
            grouping = Grouping.of(rows, columns, size)
            bias = getattr(layer, "bias", None)
            packed = PackedLinear.empty(grouping, self.settings.bits, self.settings.has_offset, bias)
            _check_stored(packed, (name, here), stored)
            replace(model, here, packed)
            found[here] = grouping.size
            parent = model.get_submodule(here.rpartition(".")[0])
            if not [*parent.parameters(recurse=False), *parent.buffers(recurse=False)]:
                # GPT-2 initialises c_proj.weight from the block that holds it: there is none to initialise any more
                parent._is_hf_initialized = True
        if not found:
            raise UserError(
                f"the checkpoint's quantization_config names no layer of {type(model).__name__}: "
                "its config.json belongs to another model"
            )
        self.keep(model, found)
        stops = {f"^{re.escape(name)}\\.weight$" for name in [*modules, *found]}  # see get_state_dict_and_metadata
        model._keys_to_ignore_on_load_unexpected = set(model._keys_to_ignore_on_load_unexpected or ()) | stops
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Quantise a model that was loaded dense; see that a packed one is complete. Either is frozen."""
        if not self.pre_quantized:
            self.reports = _pack(model, self.settings, self.progress, self.calibration)
            self.keep(model, _sizes(model))
            self.pre_quantized = True
            return model
        for name, layer in packed_layers(model).items():
            for which, tensor in _tensors(layer).items():
                # what the loader sets on all that it has read; what is offloaded stays on disk until it is used
                if not tensor.is_meta and not getattr(tensor, "_is_hf_initialized", False):
                    raise UserError(f"the checkpoint lacks {name}.{which}: it is incomplete or of another model")
                if tensor.is_floating_point() and not tensor.is_meta and not bool(tensor.isfinite().all()):
                    raise UserError(f"{name}.{which} holds values that are not finite: the checkpoint is damaged")
        model.requires_grad_(False)
        return model

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The state dict plus, in the place of one dense weight, the checksums of all tensors as bytes.

        Without alphatune, transformers would warn of the unknown quantisation, leave the packed layers at random
        weights and go on. The row of bytes does not fit the dense layer, which makes it stop with an error.
        """
        state: dict[str, Tensor] = model.state_dict()
        first = next((n for n in state if n.endswith(".qweight")), None)
        if first is not None:
            as_saved = revert_weight_conversion(model, dict(state))  # experts have other names in files
            state[first.removesuffix("qweight") + "weight"] = checksum.listed(as_saved)
        return state, {}

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        """`model.dequantize()`: ordinary layers with the weights that the packed ones stand for."""
        dense = unpack_layers(model, dtype or torch.float32)
        model.hqq_quantized = False
        return dense

    def is_serializable(self) -> bool:
        """Packed models can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters on a packed model can be trained."""
        return True


def register() -> None:
    """Tell transformers about the two formats; doing it again changes nothing."""
    for settings in FORMATS.values():
        auto.AUTO_QUANTIZATION_CONFIG_MAPPING[settings.quant_method] = settings  # used by its methods only
        auto.AUTO_QUANTIZER_MAPPING[settings.quant_method] = PackedQuantizer
    counts.register()


def _sizes(model: nn.Module) -> dict[str, int]:
    """The packed layers with their weights per scale."""
    return {name: layer.grouping.size for name, layer in packed_layers(model).items()}


def _attach(quantizer: PackedQuantizer, model: Any) -> None:
    model.hf_quantizer, model.is_quantized = quantizer, True
    model.quantization_method = quantizer.settings.quant_method
    _show_as_quantised(model)


def _show_as_quantised(model: Any) -> None:
    """Open the only door of peft's `prepare_model_for_kbit_training` to a format that it does not know by name.

    Behind it, gradient checkpointing is switched on as for other packed formats, which peft otherwise skips silently.
    """
    model.hqq_quantized = True


def _pack(model: nn.Module, config: Quantization, progress: bool, calibration: Calibration | None) -> list[LayerReport]:
    refuse_adapters(model, "quantise")
    if packed_layers(model):
        raise UserError("this model is quantised already; quantise the dense one")
    chosen = None if config.modules is None else _chosen(model, config.modules)
    reports = walk.quantize_layers(model, config, progress, calibration, chosen)
    model.requires_grad_(False)
    return reports


def _chosen(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers inside the blocks whose name is, or ends in, one of `names`."""
    layers, chosen, staying = linear_layers(model), dict[str, nn.Module](), staying_layers(model)
    for wanted in names:
        matches = {n: m for n, m in layers.items() if n == wanted or n.endswith(f".{wanted}")}
        if not matches:
            for name, reason in staying.items():
                if name == wanted or name.endswith(f".{wanted}"):
                    raise UserError(f"modules: {name} stays dense: {reason}")
            known = ", ".join(sorted({n.rpartition(".")[2] for n in layers})) or "none"
            raise UserError(f"modules: no linear layer inside the blocks is called {wanted}; there are: {known}")
        chosen.update(matches)
    return chosen


def _here(model: Any, name: str) -> str | None:
    """The name in `model` of the linear layer that was `name` in the model that was saved, which may have had a head.

    Raises:
        UserError: there is such a module, but it is not linear.
    """
    prefix = f"{model.base_model_prefix}."
    for candidate in (name, prefix + name, name.removeprefix(prefix)):
        try:
            layer = model.get_submodule(candidate)
        except AttributeError:
            continue
        if not isinstance(layer, nn.Linear | walk.Conv1D):
            raise UserError(f"quantization_config.modules: {candidate} is no linear layer of {type(model).__name__}")
        return candidate
    return None


def _tensors(layer: PackedLinear) -> dict[str, Tensor]:
    tensors = {name: getattr(layer, name) for name in _TENSORS}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _stored(files: list[str] | None) -> _Stored:
    """Dtypes and shapes of all tensors in the checkpoint's files, by name.

    Raises:
        UserError: a file is missing, cut off, or not safetensors.
    """
    stored: _Stored = {}
    for file in files or []:
        path = Path(file)
        if path.suffix != ".safetensors":
            raise UserError(f"{path.name}: packed checkpoints are safetensors files only")
        if not path.is_file():
            raise UserError(f"{path.name}: this part of the checkpoint is missing")
        try:
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  # no mapping
                    part = opened.get_slice(key)
                    stored[key] = (part.get_dtype(), tuple(part.get_shape()))
        except SafetensorError as error:
            raise UserError(f"{path.name}: not a whole safetensors file: {error}") from error
    if files and not any(name.endswith(".qweight") for name in stored):
        raise UserError(f"{Path(files[0]).name}: holds no packed layer; config.json belongs to another checkpoint")
    return stored


def _check_left_out(model: Any, name: str, stored: _Stored) -> None:
    """A class may leave out a part of the model that was saved, but not of its own kind, and not what is nowhere."""
    saved_from = getattr(model.config, "architectures", None) or []
    if type(model).__name__ in saved_from or (stored and f"{name}.qweight" not in stored):
        raise UserError(
            f"{type(model).__name__} has no layer {name}, which quantization_config names: config.json belongs to "
            "another model"
        )


def _check_stored(layer: PackedLinear, names: Iterable[str], stored: _Stored) -> None:
    """Refuse tensors that loading would cast, or that do not fit the layer."""
    for which, tensor in _tensors(layer).items():
        for name in names:
            if f"{name}.{which}" not in stored:
                continue
            dtype, shape = stored[f"{name}.{which}"]
            if dtype != _TENSORS[which]:
                raise UserError(f"{name}.{which}: the file holds {dtype}, not {_TENSORS[which]}: it is damaged")
            if shape != tuple(tensor.shape):
                raise UserError(
                    f"{name}.{which}: the file has shape {list(shape)}, config.json implies {list(tensor.shape)}"
                )


register()
