"""`alphatune package`: a run's weights as a folder that can be uploaded, with the model card of its record."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.utils import HFValidationError, validate_repo_id
from omegaconf import OmegaConf

from alphatune.compose.parse import parse
from alphatune.config import Config
from alphatune.data.example import Dataset
from alphatune.errors import UserError
from alphatune.hf import checkpoints, quantizer, scales
from alphatune.learn import methods, models, train
from alphatune.packed.linear import packed_layers
from alphatune.run import record
from alphatune.run.pipeline import ADAPTER, Run
from alphatune.store import ReadOnly
from alphatune.tools import card, inspect, outputs

if TYPE_CHECKING:
    from torch import nn

_LOCAL_BASE = "note: adapter_config.json names the folder {}, which others do not have: before uploading, give a hub id"


_NEEDED: dict[str, type] = {
    "run_id": str, "label": str, "config.method.name": str, "config.method.quantize": str, "config.method.train": str,
    "config.model": dict, "model.identity": dict, "model.weights_sha256": dict, "data.files": dict,
}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write what the command line asks for.

    Raises:
        UserError: the record, the run's weights or the backbone are missing, damaged or do not belong together; the
            output folder is in the way, or is one of those that are read.
    """
    made = record.read(args.record)
    _check_record(made)
    kind = args.kind
    base = _base(made, kind, args.base)
    keep = _read_folders(args, made, base)
    outputs.check_out(args.out, args.overwrite, keep)
    source = run_of(made, args.model, args.artifacts, kind)
    named = Path(base).resolve().name if _is_folder(base) else base  # a path says too much of this machine
    text = card.render(made, args.repository or args.out.resolve().name, kind, named or None)
    with outputs.new_folder(args.out, args.overwrite, keep) as folder, checkpoints.quiet():
        if kind == "adapter":
            _write_adapter(source, folder, base)
        else:
            _write_model(source, folder, kind)
        (folder / "README.md").write_text(text, encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{args.out}: {kind} of {made['run_id']}, {size / 1e6:.2f} MB of weights, with a card")
    if _is_folder(base):
        print(_LOCAL_BASE.format(base), file=sys.stderr)
    return 0


def _check_record(made: dict[str, Any]) -> None:
    """Refuse a record that lacks what names its run; the settings are checked when they are parsed."""
    for path, kind in _NEEDED.items():
        found: Any = made
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, kind):
            raise UserError(f"the record lacks {path}: it is damaged or was edited")


def _read_folders(args: argparse.Namespace, made: dict[str, Any], base: str) -> list[Path]:
    """Folders that the output must not replace; the store must not hold it either.

    Raises:
        UserError: the output lies in the store of artefacts.
    """
    store = Path(args.artifacts)
    if args.out.expanduser().resolve().is_relative_to(store.expanduser().resolve()):
        raise UserError(f"{args.out} lies in the artefacts, which are read: write to another folder")
    backbone = args.model or made["config"]["model"].get("name_or_path")
    return [store, args.record, *(Path(name).expanduser() for name in (backbone, base) if name and _is_folder(name))]


def _is_folder(name: str) -> bool:
    return bool(name) and Path(name).expanduser().is_dir()


def _base(made: dict[str, Any], kind: str, given: str | None) -> str:
    """What an adapter belongs to, "" for other folders; checks that the run has what is asked for."""
    method = made["config"]["method"]
    if kind == "adapter":
        if not card.has_adapter(made):
            raise UserError(f"--as adapter: method={method['name']} leaves none; use --as model")
        packed = method["quantize"] == "before"
        base = given or (None if packed else made["model"]["identity"].get("hub"))
        if base is None:
            hint = ": --as base writes it" if packed else ""
            raise UserError(f"--as adapter: needs --base, the hub id or folder of the model it belongs to{hint}")
        _check_name(str(base))
        return str(base)
    if given is not None:
        raise UserError(f"--base: belongs to --as adapter, not to --as {kind}")
    if kind == "base" and method["quantize"] == "given":
        raise UserError("--as base: the run began with a packed checkpoint, which is the base; use --as adapter")
    if kind == "base" and method["quantize"] != "before":
        raise UserError(f"--as base: method={method['name']} adapts no quantised model; use --as model")
    if kind == "model" and method["quantize"] == "nf4":
        raise UserError("--as model: LoRA beside NF4 codes cannot be merged; use --as adapter")
    if kind == "model" and method["quantize"] in ("given", "before") and method["train"] == "lora":
        raise UserError("--as model: LoRA beside codes cannot be merged; use --as base and --as adapter")
    return ""


def _check_name(base: str) -> None:
    """Refuse what is neither a folder that exists nor the form of a hub id."""
    if _is_folder(base):
        return
    if checkpoints.is_path(base):
        raise UserError(f"--base: there is no folder {base}")

    try:
        validate_repo_id(base)
    except HFValidationError as error:
        raise UserError(f"--base {base}: neither a folder nor a hub id such as someone/model") from error


def run_of(made: dict[str, Any], model: str | None, artifacts: str, kind: str) -> Run:
    """The run of a record, its finished stages in the store; without data, which its weights do not need.

    Raises:
        UserError: weights or stages are missing, or do not belong to the record.
    """
    config = _config(made, model)
    config.runtime.artifacts, config.runtime.device = artifacts, "cpu"
    if reason := models.missing(config.model):
        local = model is None and "hub" not in made["model"]["identity"]
        raise UserError(f"{reason}; --model FOLDER says where they are" if local else reason)
    found = models.identity(config.model)
    if found != made["model"]["identity"]:
        raise UserError(f"{config.model.name_or_path} is not the backbone that the record names: its files differ")
    store = ReadOnly(artifacts)
    data = made["data"]
    source = Run(config, Dataset([], [], [], data["files"], labels=data.get("labels", [])), store=store)
    plan = source.plan
    if plan.run_id != made["run_id"]:
        raise UserError(f"{made['run_id']}: made by another version, or the record was edited; run it again")
    wanted = [("quantize", plan.quantized)]
    if kind != "base":
        wanted += [("adapt", plan.adapted), ("quantize", plan.requantized)]
    for stage, spec in wanted:
        if spec is not None:
            store.get(stage, spec)
    _check_weights(config, store, made["model"]["weights_sha256"])
    return source


def _check_weights(config: Config, store: ReadOnly, expected: dict[str, str]) -> None:
    """The backbone's files against the hashes in the record: a hub id, or a recipe, may give others by now."""
    if "hub" in models.identity(config.model):
        checkpoints.local(config.model.name_or_path, config.model.revision)  # into the cache, where they are looked for
    found = models.weights_sha256(config, store)
    for name, sha256 in expected.items():
        if found.get(name) != sha256:
            raise UserError(f"{name} of {config.model.name_or_path} is not that of the run: its sha256 differs")


def _config(made: dict[str, Any], model: str | None) -> Config:
    try:
        config = parse(OmegaConf.create(made["config"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the record's config cannot be read: {error}") from error
    if model is not None:
        config.model.name_or_path = model
    return config


def _write_model(source: Run, folder: Path, kind: str) -> None:
    """The final model, or the quantised one that adaptation started from, with its tokenizer."""
    model: Any
    model, tokenizer = source.final if kind == "model" else source.base()
    if packed_layers(model) and source.config.method.quantize != "given":  # that model says how it was packed
        quantizer.mark_packed(model, source.config.quant.settings())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_adapter(source: Run, folder: Path, base: str) -> None:
    """The trained scales or LoRA, bound to `base`.

    Raises:
        UserError: the base is a folder that holds another model.
    """
    trained = source.adapted().path
    path = folder / checkpoints.ADAPTER_CONFIG
    if (trained / ADAPTER).is_dir():
        for name in (checkpoints.ADAPTER_CONFIG, checkpoints.ADAPTER_WEIGHTS):
            shutil.copyfile(trained / ADAPTER / name, folder / name)
        settings = checkpoints.read_json(path)
        expected = settings.get("base_fingerprint")
    else:
        model = source.start()[0]
        train.load_trained(model, trained / train.TRAINED)
        methods.save_lora(model, folder)
        settings = checkpoints.read_json(path)
        expected = _fingerprint(model)
    if _is_folder(base):
        _check_base(Path(base).expanduser(), expected)
    path.write_text(json.dumps(settings | {"base_model_name_or_path": base}, indent=2) + "\n", encoding="utf-8")


def _fingerprint(model: nn.Module) -> str | None:
    """The hash of the packed layers that an adapter stands beside; None where there are none."""
    return scales.fingerprint(model) if packed_layers(model) else None


def _check_base(folder: Path, expected: str | None) -> None:
    """Refuse a folder that is not the base of an adapter; `expected` is the packed base's hash, None of a dense one."""
    found = inspect.inspect(folder)
    wanted = "plain" if expected is None else "packed"
    if found.kind != wanted:
        kinds = {"plain": "a dense model", "packed": "a packed model", "adapter": "an adapter"}
        raise UserError(f"--base {folder}: holds {kinds[found.kind]}, but the adapter belongs to {kinds[wanted]}")
    if expected is not None and found.fingerprint != expected:
        raise UserError(
            f"--base {folder}: not the base of this adapter (hash {str(found.fingerprint)[:12]}, not {expected[:12]})"
        )
