"""Backbone and tokenizer: where they come from, checked before anything heavy is imported or waited for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alphatune
from alphatune.config import Config, Model, Tiny
from alphatune.errors import UserError
from alphatune.hf import hub
from alphatune.learn import embedded, seeding
from alphatune.store import Store, file_sha256
from alphatune.versions import VERSIONS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

TINY = hub.EMBEDDED


def missing(model: Model, offline: bool = False) -> str | None:
    """What keeps this backbone from loading, in one sentence, or None; waits for one connection attempt at most."""
    return None if model.name_or_path == TINY else hub.missing(model.name_or_path, model.revision, offline)


def unpinned(model: Model) -> bool:
    """Whether the weights come from the hub at whatever commit is the newest."""
    return model.name_or_path != TINY and model.revision is None and not Path(model.name_or_path).is_dir()


def identity(model: Model) -> dict[str, Any]:
    """What decides the backbone's weights: hashes of its files, the recipe of a tiny one, or hub id and revision."""
    if _is_embedded(model):
        return {"weights_sha256": embedded.hashes()}
    if model.name_or_path == TINY:
        return {"tiny": asdict(model.tiny), "version": VERSIONS["backbone"]}
    folder = Path(model.name_or_path)
    if folder.is_dir():
        return {"weights_sha256": folder_sha256(folder)}
    return {"hub": model.name_or_path, "revision": model.revision}


def load(config: Config, store: Store) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The backbone, float32, in eval mode on the CPU, with its tokenizer.

    A classification task gets a freshly initialised head, seeded by `config.seed`.

    Raises:
        UserError: the files are not there or are not what they should be.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        set_seed,
    )  # fmt: skip

    from alphatune.hf import whole

    alphatune.register()  # the backbone may be packed
    model = config.model
    source = source_of(config, store)
    options: dict[str, Any] = {"revision": model.revision} if not Path(source).is_dir() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        settings = AutoConfig.from_pretrained(source, **options)
        _set_dropout(settings, config.hparams.dropout)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        loading = {**options, "config": settings, "dtype": torch.float32, "use_safetensors": True,
                   "output_loading_info": True}  # fmt: skip
        if config.task.kind == "classification":
            settings.num_labels = max(1, len(config.task.labels))
            settings.pad_token_id = tokenizer.pad_token_id
            set_seed(config.seed)
            network, found = AutoModelForSequenceClassification.from_pretrained(source, **loading)
        else:
            network, found = AutoModelForCausalLM.from_pretrained(source, **loading)  # type: ignore[misc]
        missing = (key for key in found["missing_keys"] if re.search(r"\.\d+\.", f".{key}"))  # of a block, no head
        whole.check(network, missing, found["unexpected_keys"])
    except UserError as error:
        raise UserError(f"model.name_or_path={model.name_or_path}: {error}") from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.name_or_path={model.name_or_path}: cannot be loaded: {reason}") from error
    return network.eval(), tokenizer


def source_of(config: Config, store: Store) -> str:
    """Folder or hub id to load from; a tiny model of another recipe than the embedded one is pre-trained once."""
    model = config.model
    if _is_embedded(model):
        return str(embedded.verified())
    if model.name_or_path != TINY:
        return model.name_or_path

    def make(folder: Path) -> None:
        from alphatune.learn import tiny

        with seeding.untouched():
            tiny.pretrain(model.tiny, folder, config.runtime.progress)

    return str(store.get("backbone", identity(model), make).path)


def weights_sha256(config: Config, store: Store) -> dict[str, str]:
    """sha256 of the backbone's weight files, by file name."""
    folder = Path(source_of(config, store))
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        model = config.model
        found = try_to_load_from_cache(model.name_or_path, "config.json", revision=model.revision)
        folder = Path(str(found)).parent
    return {
        f.name: _sha256(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.safetensors"))
    }


def skeleton(model: Model, task_kind: str = "generation", labels: int = 0) -> nn.Module:
    """The network on the meta device: shapes without weights.

    They come from the tiny recipe, from `model.architecture` where it is written down, or from the checkpoint's config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    settings = shape(model)
    with torch.device("meta"):
        if task_kind != "generation":
            settings.num_labels = max(1, labels)
            return AutoModelForSequenceClassification.from_config(settings)
        return AutoModelForCausalLM.from_config(settings)


def shape(model: Model) -> Any:
    """transformers' config of the backbone, from where `skeleton` says."""
    from transformers import AutoConfig

    if model.name_or_path == TINY:
        from alphatune.learn import tiny

        return tiny.gpt2_config(model.tiny)
    if model.architecture and not Path(model.name_or_path).is_dir():
        values = dict(model.architecture)
        return AutoConfig.for_model(values.pop("model_type"), **values)
    return AutoConfig.from_pretrained(model.name_or_path, revision=model.revision)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    return file_sha256(Path(path))


def folder_sha256(folder: Path) -> dict[str, str]:
    """sha256 of the files of a checkpoint folder that decide its behaviour, by file name."""
    return _hashes(f for kind in ("safetensors", "json", "txt", "model") for f in folder.glob(f"*.{kind}"))


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    return {f.name: _sha256(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files)}


def _is_embedded(model: Model) -> bool:
    return model.name_or_path == TINY and model.tiny == Tiny()


def _set_dropout(settings: Any, value: float) -> None:
    """Every dropout of the backbone to `value`, whatever its architecture calls it."""
    for name in vars(settings):
        is_dropout = name.endswith(("_pdrop", "_dropout", "_dropout_prob")) or name == "dropout"
        if is_dropout and isinstance(getattr(settings, name), float | int):
            setattr(settings, name, value)
