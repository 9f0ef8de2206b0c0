"""What trains and what is frozen. A method is data (`conf/method/*.yaml`); this file carries it out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from alphatune.config import Config, Lora
from alphatune.errors import UserError
from alphatune.hf.scales import AlphaTuningConfig
from alphatune.packed import nf4
from alphatune.packed.linear import packed_layers
from alphatune.packed.walk import linear_layers

HEADS = ("classifier", "score")  # what transformers calls a freshly initialised classification head
ADAPTER = "adapter_model.safetensors"  # peft's name
_QUERY_VALUE = ("c_attn", "query_key_value", "qkv_proj", "q_proj", "v_proj", "query", "value", "q", "v")


def prepare(model: nn.Module, config: Config) -> nn.Module:
    """The model with exactly its method's parameters trainable; wrapped by peft for scales and LoRA.

    A classification head is new, so every method trains it. BERT's pooler is pre-trained and stays frozen: the
    parameter counts of Table 15 leave no room for it.
    """
    method = config.method
    model.requires_grad_(False)
    if method.train == "weights":
        model.requires_grad_(True)
    elif method.train == "scales":
        return _with_scales(model, config)
    elif method.train == "lora":
        model = _with_lora(model, method.lora)
    if config.task.kind == "classification" and method.train != "nothing":
        for name, parameter in model.named_parameters():
            if is_head(name):
                parameter.requires_grad_(True)
    return model


def merge(model: nn.Module) -> nn.Module:
    """The plain model after adaptation: LoRA merged into dense weights, trained scales written into the layers.

    LoRA on codes stays beside them: merging would need new codes.
    """
    unload: Any = getattr(model, "merge_and_unload", None)
    coded = packed_layers(model) or nf4.layers(model)
    if unload is None or (coded and not _has_scales(model)):
        return model
    merged: nn.Module = unload()
    return merged


def save_adapter(model: nn.Module, folder: Path) -> bool:
    """Write trained scales (and a new head) to `folder` as peft does; False, and nothing, for other methods."""
    if not _has_scales(model):
        return False

    wrapped: Any = model
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    folder.mkdir()
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, folder / ADAPTER, {"format": "pt"})
    settings = copy.copy(wrapped.peft_config["default"])
    settings.inference_mode = True  # as in every saved adapter: loading it does not mean to go on training
    settings.save_pretrained(str(folder))
    return True


def save_lora(model: nn.Module, folder: Path) -> None:
    """Write a trained LoRA to `folder` as peft does, with the classification head if it trained."""
    wrapped: Any = model
    settings = copy.copy(wrapped.peft_config["default"])
    tensors: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    heads = {n: p for n, p in model.named_parameters() if p.requires_grad and is_head(n)}
    if heads:  # the runner trains the head where it stands; peft expects it among the modules to save
        settings.modules_to_save = sorted({part for n in heads for part in n.split(".") if part in HEADS})
        settings.task_type = "SEQ_CLS"
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    stored = {n: t.detach().cpu().contiguous() for n, t in {**tensors, **heads}.items()}
    save_file(stored, folder / ADAPTER, {"format": "pt"})


def load_adapter(model: nn.Module, folder: Path) -> bool:
    """Put what `save_adapter` wrote into a model prepared the same way; False, and nothing, for other methods."""
    if not _has_scales(model):
        return False

    set_peft_model_state_dict(model, load_file(folder / ADAPTER))
    return True


def is_head(name: str) -> bool:
    """Whether a parameter of this name belongs to a new classification head."""
    return any(part in HEADS for part in name.split("."))


def lora_targets(model: nn.Module, which: str) -> list[str]:
    """Names of the layers that get a low-rank adapter: query and value (GPT-2: fused c_attn), or all linear ones."""
    names = list(packed_layers(model)) or list(nf4.layers(model)) or list(linear_layers(model))
    if which == "linear":
        return names
    chosen = [n for n in names if n.rsplit(".", 1)[-1] in _QUERY_VALUE]
    if not chosen:
        raise UserError("method.lora.targets=query_value: this architecture names no query or value layer; use linear")
    return chosen


def _with_lora(model: nn.Module, lora: Lora) -> nn.Module:
    targets = lora_targets(model, lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        fan_in_fan_out=isinstance(model.get_submodule(targets[0]), Conv1D),
    )
    return get_peft_model(model, settings)  # type: ignore[arg-type]


def _with_scales(model: nn.Module, config: Config) -> nn.Module:
    method = config.method
    if not packed_layers(model):
        raise UserError(f"method={method.name} trains scales, but the model has no quantised layer")
    task = "SEQ_CLS" if config.task.kind == "classification" else "CAUSAL_LM"  # SEQ_CLS: a new head trains too
    settings = AlphaTuningConfig(trainable=method.trainable, task_type=task)  # type: ignore[arg-type]
    wrapped = get_peft_model(model, settings)  # type: ignore[arg-type]
    settings.base_model_name_or_path = config.model.name  # not the folder that it was read from
    return wrapped


def _has_scales(model: nn.Module) -> bool:
    configs: dict[str, Any] = getattr(model, "peft_config", {})
    return any(settings.peft_type == "ALPHATUNING" for settings in configs.values())
