"""Checkpoint folders for the command line: found, checked, loaded with one-line errors."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer, set_seed
from transformers.utils import logging

from alphatune.errors import UserError
from alphatune.hf import hub, kinds, whole
from alphatune.settings import FORMATS

TASKS = {"causal-lm": "AutoModelForCausalLM", "classification": "AutoModelForSequenceClassification"}
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NEEDED: dict[str | None, str] = {"causal-lm": f"; needed is a {kinds.CAUSAL}",
           "classification": "; needed is a classifier, or a body that takes a new head"}  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZER = ("tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
              "chat_template.*")  # fmt: skip
_HEADS = ("score.", "classifier.", "qa_outputs.")
FAILURES = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError,
            ZeroDivisionError, StrictDataclassError)  # of a foreign file  # fmt: skip


def local(name: str, revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the hub's files in the cache, fetched if need be.

    Raises:
        UserError: there is no such folder, or neither cache nor hub has the model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"--revision {revision}: belongs to hub ids, but {name} is a folder")
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file: give the folder of the checkpoint")
    if is_path(name):
        raise UserError(f"there is no folder {name}")
    reason = hub.missing(name, revision)
    if reason is not None:
        raise UserError(reason)

    offline = not hub.reachable(hub.HOST)  # the cache has it then; the hub's client would wait and try again
    try:
        found = snapshot_download(
            name, revision=revision, local_files_only=offline, ignore_patterns=["*/*"],
            allow_patterns=["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"],
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be fetched: {first_line(error)}") from error
    return Path(found)


def is_path(name: str) -> bool:
    """Whether a name can only be that of a folder, not a hub id."""
    return hub.is_path(name) or name.count("/") > 1 or name == hub.EMBEDDED


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is missing, or something else is in it.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} has no {path.name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # text that is not UTF-8, too
        raise UserError(f"{path}: not JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object of settings")
    return content


def settings(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint whose weights are safetensors files and whose quantisation is known here.

    Raises:
        UserError: it is no such checkpoint.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        # with both in one folder, transformers would load the base that the adapter names, not the model beside it
        held = "holds an adapter beside a model" if (folder / "config.json").is_file() else "is an adapter, not a model"
        raise UserError(
            f"{folder} {held}: merge it first, model.merge_and_unload(), or give the base, and a folder with the "
            "adapter alone as --adapter where a command takes one"
        )
    config = read_json(folder / "config.json")
    weight_files(folder)
    method = quant_method(config)
    known = [settings.quant_method for settings in FORMATS.values()]
    if method not in (None, *known):
        raise UserError(f"{folder}: quantised by {method}; known here are {', '.join(known)} and plain checkpoints")
    return config


def quant_method(config: dict[str, Any]) -> str | None:
    """What quantised a checkpoint, by its config.json; None if nothing did."""
    quantization = config.get("quantization_config")
    if quantization is None:
        return None
    return str(quantization.get("quant_method")) if isinstance(quantization, dict) else str(quantization)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; of a sharded one those that its index names, present or not.

    Raises:
        UserError: there are none.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise UserError(f"{index}: has no weight_map")
        if outside := next((n for n in map(str, names.values()) if Path(n).name != n), None):
            raise UserError(f"{index}: names {outside}, which is no file of this folder")
        return [folder / name for name in sorted({str(n) for n in names.values()})]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
        if pickles:
            raise UserError(
                f"{folder} holds its weights in {pickles[0]}: pickle files can run code and are not read; "
                "convert them to safetensors"
            )
        raise UserError(f"{folder} holds no *.safetensors weights")
    return found


def load(folder: Path, task: str | None = None, dtype: str = "auto") -> Any:
    """The model in a folder, packed or dense, in evaluation mode on the CPU.

    Args:
        task: "causal-lm" or "classification"; None: the class that config.json names.
        dtype: of what is not packed; "auto": as it is stored.

    Raises:
        UserError: the files are damaged, incomplete, or of a model that transformers does not know.
    """
    config = settings(folder)
    kind = kinds.kind_of(config)
    if task == "causal-lm" and kind not in (None, kinds.CAUSAL):
        raise UserError(f"{folder} holds {kinds.architecture(config)} ({kind}); needed is a {kinds.CAUSAL}")

    set_seed(0)  # a classification head may be new
    try:
        with quiet():
            model, found = _model_class(config, task).from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, local_files_only=True
            )
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except (*FAILURES, SafetensorError) as error:
        reason = first_line(error)
        if "ignore_mismatched_sizes" in reason:  # transformers' advice, which would load random weights
            reason = "its weights have other shapes than config.json implies, which belongs to another model"
        raise UserError(f"{folder}: cannot be loaded: {reason}") from error
    missing = [str(key) for key in found["missing_keys"]]
    if task == "classification":
        missing = [key for key in missing if not key.startswith(_HEADS)]
    try:
        whole.check(model, missing, found["unexpected_keys"], _NEEDED.get(task, ""))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return model.eval()


def skeleton(folder: Path) -> Any:
    """The dense model that config.json describes, on the meta device: names, shapes and classes without weights.

    Raises:
        UserError: transformers does not know it.
    """
    config = read_json(folder / "config.json")
    try:
        with quiet(), torch.device("meta"):
            shape = AutoConfig.from_pretrained(folder, local_files_only=True)
            found = _model_class(config, None)
            return (getattr(found, "from_config", None) or found)(shape)
    except FAILURES as error:
        raise UserError(f"{folder}: config.json describes no model: {first_line(error)}") from error


def load_adapters(model: Any, folders: Sequence[Path]) -> tuple[Any, list[str]]:
    """`model` with adapters around it, none of which is merged, and their names: those of their folders, made unique.

    Raises:
        UserError: a folder holds no adapter, or one of another base.
    """
    names: list[str] = []
    # an adapter called like a part of a module's name: peft would leave tensors of the others out when it saves
    taken = {part for name, _ in model.named_modules() for part in name.split(".")}
    kinds = {folder: _adapter_type(folder) for folder in folders}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{folder} ({kind})" for folder, kind in kinds.items())
        raise UserError(f"adapters of one call must be of one type, not {told}: use one call for each type")
    for folder in folders:
        stem = folder.resolve().name.replace(".", "_")  # a module's name has no dots
        name = stem = f"adapter-{stem}" if stem in taken or hasattr(nn.ParameterDict, stem) else stem
        while name in names:
            name = f"{stem}-{names.count(name) + sum(n.startswith(f'{stem}-') for n in names) + 1}"
        try:
            with quiet():
                if names:
                    model.load_adapter(str(folder), name)
                else:
                    model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:  # a setting of another kind than peft writes
            raise UserError(f"{folder / ADAPTER_CONFIG}: holds a damaged setting: {first_line(error)}") from error
        except (*FAILURES, SafetensorError) as error:
            raise UserError(f"{folder}: this adapter cannot be loaded: {first_line(error)}") from error
        _check_adapter(model, name, folder)
        names.append(name)
    return model.eval(), names


def _adapter_type(folder: Path) -> str:
    """What kind of adapter a folder holds, by its settings; its weights are there."""
    kind = read_json(folder / ADAPTER_CONFIG).get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UserError(f"{folder / ADAPTER_CONFIG}: peft_type={kind} is none that peft knows")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}")
    return kind


def _check_adapter(model: Any, name: str, folder: Path) -> None:
    """Compare an adapter's file with what peft made of it: peft leaves what is missing at its initial values."""
    wanted = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as opened:
        held = set(opened.keys())
        other = sorted(n for n in held if "alphatuning_scale" in n and opened.get_slice(n).get_dtype() != "F32")
    if other:
        raise UserError(f"{folder}: {other[0]} is not float32 ({len(other)} in all): the adapter is damaged")
    if lacking := sorted(wanted - held):
        raise UserError(f"{folder}: the adapter's file lacks {lacking[0]} ({len(lacking)} in all): it is incomplete")
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(model.peft_config[name].peft_type)
    if unused := sorted(key for key in held - wanted if prefix and prefix in key):
        raise UserError(
            f"{folder}: the model has no place for {unused[0]} ({len(unused)} in all): the adapter is of another base, "
            f"or its {ADAPTER_CONFIG} was edited"
        )


def load_tokenizer(source: Path) -> Any:
    """The tokenizer in a checkpoint's folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not any(file for kind in ("*token*", "vocab*", "*.model") for file in source.glob(kind)):
        raise UserError(f"{source} has no tokenizer: copy its tokenizer files there")
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:  # the Rust tokenizers raise bare exceptions
        raise UserError(f"{source}: the tokenizer cannot be loaded: {first_line(error)}") from error


def copy_tokenizer(source: Path, target: Path) -> bool:
    """Copy the tokenizer's files as they are; False if there are none."""
    files = sorted({file for pattern in TOKENIZER for file in source.glob(pattern) if file.is_file()})
    for file in files:
        shutil.copyfile(file, target / file.name)
    return bool(files)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, transformers and peft do not print: what matters is told by this package."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _model_class(config: dict[str, Any], task: str | None) -> Any:
    """transformers' class for a task; without one, the class that the checkpoint was saved from."""
    if task is not None:
        return getattr(transformers, TASKS[task])
    name = kinds.architecture(config)
    found = getattr(transformers, name, None) if name is not None else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    return transformers.AutoModelForCausalLM
