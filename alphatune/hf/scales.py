"""AlphaTuning and PEQA in peft: an adapter is a set of scales for the packed layers of one base model.

Importing this module registers the method with peft. Adapters hold values, not differences, so one can be switched for
another by looking at other tensors: no weight is rebuilt, copied or moved. Merged models stay packed.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from accelerate.utils import align_module_device
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from alphatune import ranges
from alphatune.config import Method
from alphatune.errors import UserError
from alphatune.hf import lora
from alphatune.hf.offloaded import refuse_offloaded
from alphatune.hf.rows import RowAdapters, row_adapters
from alphatune.packed.fingerprint import fingerprint as packed_fingerprint
from alphatune.packed.linear import PackedLinear, moved_only

TRAINABLE = ranges.choices(Method, "trainable")


class _Type(StrEnum):
    """peft's own enum of methods is closed; its registries take any key that equals the method's name."""

    ALPHATUNING = "ALPHATUNING"


@dataclass
class AlphaTuningConfig(PeftConfig):
    """Train scales of packed layers and nothing else.

    Raises:
        UserError: an unknown value of `trainable`, or one that is not what was saved.
    """

    trainable: str = field(
        default="first",
        metadata={"help": 'Which scales: "first" (alpha_1: AlphaTuning), "all" (every alpha), "gain" (PEQA\'s step).'},
    )
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names (or last parts, or a regex) of packed layers; None: all of them."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Packed layers to leave out."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Other modules to train and to save whole, such as a new head."}
    )
    base_fingerprint: str | None = field(default=None, metadata={"help": "Hash of the base; filled in by first use."})
    seal: str | None = field(default=None, metadata={"help": "Hash of what the scales are; filled in when saved."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = _Type.ALPHATUNING  # type: ignore[assignment]
        if self.trainable not in TRAINABLE:
            raise UserError(f"trainable={self.trainable}: must be one of: {', '.join(TRAINABLE)}")
        if self.seal not in (None, self._seal()):  # "first" and "gain" have scales of one shape, and other results
            raise UserError("adapter_config.json: trainable or base_fingerprint is not what was saved with the scales")
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # peft's own form
        self._expected_base = self.base_fingerprint  # given by a saved adapter, unlike one that is filled in later

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json, sealed."""
        self.seal = self._seal()
        super().save_pretrained(save_directory, **kwargs)

    def _seal(self) -> str:
        return hashlib.sha256(f"{self.trainable} {self.base_fingerprint}".encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values, in a fixed order."""
        values = super().to_dict()
        return {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}


class AlphaTuningLayer(nn.Module, BaseTunerLayer):
    """A packed layer with the scales of its adapters; the active adapter's are the ones it computes with.

    `alphatuning_scale[name]` is float32 [G, R], or [G, q, R] where all alphas train.
    """

    adapter_layer_names = ("alphatuning_scale",)

    def __init__(self, base_layer: PackedLinear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.alphatuning_scale = nn.ParameterDict()
        self.trains: dict[str, str] = {}  # adapter -> which scales
        self.merged_adapters: list[str] = []
        self._unmerged: tuple[Tensor, Tensor | None] | None = None  # the base's scales while an adapter is merged

    def add(self, adapter_name: str, which: str) -> None:
        """A new adapter that starts from the base's scales: nothing changes yet."""
        if self.merged:
            raise UserError("an adapter is merged: unmerge it before adding another")
        self.alphatuning_scale[adapter_name] = nn.Parameter(self.base_layer.initial_scale(which))
        self.trains[adapter_name] = which

    def delete_adapter(self, adapter_name: str) -> None:
        """Drop an adapter."""
        super().delete_adapter(adapter_name)
        self.trains.pop(adapter_name, None)

    def current(self) -> tuple[Tensor | None, str | None]:
        """Scales and kind of the adapter in use; (None, None) where the base's own are.

        Raises:
            UserError: two adapters are active at once; scales are values and do not add up.
        """
        if self.disable_adapters:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return None, None
        active = [name for name in self.active_adapters if name in self.alphatuning_scale]
        if len(active) > 1:
            raise UserError(f"adapters {', '.join(active)} are active at once; scales do not add up: choose one")
        return self._scales_of(active[0]) if active else (None, None)

    def forward(self, x: Tensor, adapter_names: RowAdapters | None = None) -> Tensor:
        if adapter_names is None or self.disable_adapters:
            return self._called(x, *self.current())
        if self.merged:
            raise UserError("adapter_names: an adapter is merged; unmerge it first")
        of_row = adapter_names.of(x)
        parts, order = [], list[int]()
        for name in dict.fromkeys(of_row):
            rows = [i for i, other in enumerate(of_row) if other == name]
            parts.append(self._called(x[rows], *self._scales_of(name)))
            order += rows
        return torch.cat(parts)[torch.tensor(order, device=x.device).argsort()]

    def weight_t(self) -> Tensor:
        """The dense W^T [in, out] that this layer computes with now."""
        return self.base_layer.weight_t(*self.current())

    @property
    def weight(self) -> Tensor:
        """The dense W [out, in], rebuilt at every access; who multiplies by it trains the scales as calls do."""
        return self.base_layer.dense_weight(*self.current())

    def _called(self, x: Tensor, scale: Tensor | None, which: str | None) -> Tensor:
        """The base layer's output; called as a module, so that hooks on it (offloading) do their work."""
        found: Tensor = self.base_layer(x, scale, which)
        return found

    def _scales_of(self, name: str) -> tuple[Tensor | None, str | None]:
        """Scales and kind of an adapter; (None, None) if it has none for this layer."""
        if name not in self.alphatuning_scale:
            return None, None
        with align_module_device(self.alphatuning_scale):  # offloaded together with the base
            return self.alphatuning_scale[name].float(), self.trains[name]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AlphaTuningLayer:
        """`to`, `half` and the like move the scales but leave them float32, as those of the base."""
        self.base_layer._apply(fn, recurse)  # first: it knows what of it may change its dtype
        if self._unmerged is not None:
            self._unmerged = tuple(None if t is None else moved_only(fn)(t) for t in self._unmerged)  # type: ignore
        return super()._apply(moved_only(fn), recurse)

    def _get_base_layer_device_and_dtype(self, base_layer: Any) -> tuple[torch.device, torch.dtype]:
        return base_layer.qweight.device, torch.float32  # peft's own would round the scales to the dtype of the bias

    def base_tensors(self) -> list[Tensor]:
        """Codes and scales of the base, without any merged adapter."""
        layer = self.base_layer
        alpha, offset = self._unmerged or (layer.alpha, layer.offset)
        return [t for t in (layer.qweight, alpha, offset) if t is not None]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write one adapter's scales into the base layer, which stays packed.

        Raises:
            UserError: several adapters, a base that is on disk, or (with `safe_merge`) scales that are not finite.
        """
        names = [n for n in (adapter_names or self.active_adapters) if n in self.alphatuning_scale]
        if not names or self.merged:
            if self.merged:
                warnings.warn(f"already merged: {', '.join(self.merged_adapters)}", stacklevel=2)
            return
        if len(names) > 1:
            raise UserError(f"merge one adapter, not {', '.join(names)}: scales do not add up")
        layer = self.base_layer
        refuse_offloaded(layer, "merge an adapter")
        alpha, offset = layer.effective(self.alphatuning_scale[names[0]].float(), self.trains[names[0]])
        if safe_merge and not bool(alpha.isfinite().all()):
            raise UserError(f"adapter {names[0]} holds scales that are not finite; it was not merged")
        self._unmerged = (layer.alpha, layer.offset)
        layer.alpha, layer.offset = alpha.detach().clone(), None if offset is None else offset.detach().clone()
        self.merged_adapters = names

    def unmerge(self) -> None:
        """Put the base's own scales back, bit for bit."""
        if self._unmerged is not None:
            self.base_layer.alpha, self.base_layer.offset = self._unmerged
            self._unmerged, self.merged_adapters = None, []


class AlphaTuningModel(BaseTuner):
    """Puts `AlphaTuningLayer`s around the packed layers of a model."""

    prefix = "alphatuning_"
    tuner_layer_cls = AlphaTuningLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # found by type instead

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        packed = lora.packed_names(self.model)
        if not packed:
            raise UserError(
                "this model has no packed layer: quantise it with alphatune.quantize_model or load a packed checkpoint"
            )
        targets = peft_config.target_modules
        if targets in (None, "all-linear"):
            peft_config.target_modules = packed
        elif isinstance(targets, str):  # a regex may match other modules too
            peft_config.target_modules = {name for name in packed if re.fullmatch(targets, name)}
            if not peft_config.target_modules:
                raise UserError(f"target_modules={targets}: matches no packed layer")
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        refuse_offloaded(model, "add an adapter")
        found = fingerprint(model)
        expected = getattr(peft_config, "_expected_base", None)
        if expected and found and found != expected:
            raise UserError(
                f"this adapter belongs to another packed base (its codes and scales hash to {expected[:12]}, those "
                f"of this model to {found[:12]}); load the base that it was trained on"
            )
        peft_config.base_fingerprint = found or expected

    def _create_and_replace(
        self, peft_config: Any, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module,
        current_key: str, parameter_name: str | None = None,
    ) -> None:  # fmt: skip
        layer = target if isinstance(target, AlphaTuningLayer) else None
        if layer is None:
            if not isinstance(target, PackedLinear):
                raise UserError(f"target_modules: {current_key} is a {type(target).__name__}, not a packed layer")
            layer = AlphaTuningLayer(target)
        layer.add(adapter_name, peft_config.trainable)
        if adapter_name not in self.active_adapters:
            layer.alphatuning_scale[adapter_name].requires_grad_(False)
        if layer is not target:
            setattr(parent, target_name, layer)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """peft enters this around every forward and `generate` of the model."""
        names = kwargs.get("adapter_names")
        if names is None:
            yield
            return
        layers: dict[nn.Module, list[str]] = {
            m: list(m.alphatuning_scale) for m in self.model.modules() if isinstance(m, AlphaTuningLayer)
        }
        with row_adapters(self.model, layers, names, args, kwargs):
            yield

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: adapters hold values of scales, of which a weighted sum is no task.

        Raises:
            UserError: always.
        """
        raise UserError(
            "add_weighted_adapter: scales are values, not differences, and do not add up; choose one adapter"
        )

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)  # peft's own also assigns `weight`, which a packed layer does not have

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """peft's mapping of names; an adapter that lacks a layer's scales would leave the base's there unnoticed."""
        mapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        for name, layer in model.named_modules():
            if isinstance(layer, AlphaTuningLayer) and adapter_name in layer.alphatuning_scale:
                key, shape = f"{name}.alphatuning_scale.{adapter_name}", layer.alphatuning_scale[adapter_name].shape
                if key not in mapped:
                    raise UserError(f"the adapter's file lacks the scales of {name}: it is incomplete")
                if mapped[key].shape != shape:
                    raise UserError(f"{name}: the adapter has scales {list(mapped[key].shape)}, not {list(shape)}")
        return mapped


def fingerprint(model: nn.Module) -> str | None:
    """That of the packed layers of a model, whatever adapter is merged into them; None on the meta device."""
    tensors = list(_base_tensors(model))
    if any(t.is_meta for t in tensors):
        return None
    return packed_fingerprint((str(t.dtype), t.shape, t.detach().cpu().contiguous().numpy().tobytes()) for t in tensors)


def _base_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Codes, scales and offset of each packed layer, in order."""
    inside = set[int]()
    for _, module in model.named_modules():
        if isinstance(module, AlphaTuningLayer):
            inside.add(id(module.base_layer))
            yield from module.base_tensors()
        elif isinstance(module, PackedLinear) and id(module) not in inside:
            yield from (t for t in (module.qweight, module.alpha, module.offset) if t is not None)


def register() -> None:
    """Tell peft about AlphaTuning, and about LoRA beside packed layers; doing it again changes nothing."""
    key: Any = _Type.ALPHATUNING
    PEFT_TYPE_TO_CONFIG_MAPPING[key] = AlphaTuningConfig
    PEFT_TYPE_TO_TUNER_MAPPING[key] = AlphaTuningModel
    PEFT_TYPE_TO_PREFIX_MAPPING[key] = AlphaTuningModel.prefix
    lora.register()


register()
