"""`alphatune package`: a run's weights as a folder that can be uploaded, with the model card of its record."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alphatune import card, checkpoints, methods, models, packed_file, record, train
from alphatune.artifacts import digest
from alphatune.config import Config, parse
from alphatune.data.example import Dataset
from alphatune.data.load import VERSION as DATA_VERSION
from alphatune.errors import UserError
from alphatune.layers import packed_layers
from alphatune.pipeline import ADAPTER, Run


def run(args: argparse.Namespace) -> int:
    """Write what the command line asks for.

    Raises:
        UserError: the record, the run's weights or the backbone are missing or do not belong together.
    """
    made = record.read(args.record)
    kind = args.kind
    base = _base(made, kind, args.base)
    checkpoints.check_out(args.out, args.overwrite)
    source = _run_of(made, args.model, args.artifacts)
    text = card.render(made, args.repository or args.out.name, kind, base or None)
    with checkpoints.new_folder(args.out, args.overwrite) as folder, checkpoints.quiet():
        if kind == "adapter":
            _write_adapter(source, folder, base)
        else:
            _write_model(source, folder, kind)
        (folder / "README.md").write_text(text, encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{args.out}: {kind} of {made['run_id']}, {size / 1e6:.2f} MB of weights, with a card")
    return 0


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
        return str(base)
    if given is not None:
        raise UserError(f"--base: belongs to --as adapter, not to --as {kind}")
    if kind == "base" and method["quantize"] != "before":
        raise UserError(f"--as base: method={method['name']} adapts no quantised model; use --as model")
    if kind == "model" and method["quantize"] == "before" and method["train"] == "lora":
        raise UserError("--as model: LoRA beside codes cannot be merged; use --as base and --as adapter")
    return ""


def _run_of(made: dict[str, Any], model: str | None, artifacts: str) -> Run:
    """The run of a record, its finished stages in the store; without data, which nothing here needs."""
    config = _config(made, model)
    config.runtime.artifacts, config.runtime.device = artifacts, "cpu"
    if reason := models.missing(config.model):
        local = "hub" not in made["model"]["identity"]
        raise UserError(f"{reason}; --model FOLDER says where they are" if local else reason)
    found = models.identity(config.model)
    if found != made["model"]["identity"]:
        raise UserError(f"{config.model.name_or_path} is not the backbone that the record names: its files differ")
    source = Run(config, Dataset([], [], [], made["data"]["files"]), DATA_VERSION)
    if source.plan.run_id != made["run_id"]:
        raise UserError(f"{made['run_id']}: made by another version, or the record was edited; run it again")
    wanted = {"quantize": source.plan.requantized or source.plan.quantized, "adapt": source.plan.adapted}
    for stage, spec in wanted.items():
        if spec is not None and not (folder := Path(artifacts) / stage / digest(spec)).is_dir():
            raise UserError(
                f"{folder} is gone or elsewhere (--artifacts FOLDER); running it again with runtime.force=true makes it"
            )
    return source


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
    if packed_layers(model):
        from alphatune import hub
        from alphatune.quant_config import BCQConfig, UniformConfig

        settings = packed_file.quantizer(source.config.quant)
        uniform = source.config.quant.format == "uniform"
        hub.mark_packed(model, (UniformConfig if uniform else BCQConfig)(**asdict(settings)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_adapter(source: Run, folder: Path, base: str) -> None:
    trained = source.adapted().path
    if (trained / ADAPTER).is_dir():
        for name in (checkpoints.ADAPTER_CONFIG, checkpoints.ADAPTER_WEIGHTS):
            shutil.copyfile(trained / ADAPTER / name, folder / name)
    else:
        model = source.start()[0]
        train.load_trained(model, trained / train.TRAINED)
        methods.save_lora(model, folder)
    path = folder / checkpoints.ADAPTER_CONFIG
    settings = checkpoints.read_json(path)
    _check_base(settings, base)
    path.write_text(json.dumps(settings | {"base_model_name_or_path": base}, indent=2) + "\n", encoding="utf-8")


def _check_base(settings: dict[str, Any], base: str) -> None:
    """An adapter of scales knows its base by a hash; a base that is at hand is looked at."""
    expected = settings.get("base_fingerprint")
    if expected is None or not Path(base).is_dir():
        return
    from alphatune import inspection

    found = inspection.inspect(Path(base)).fingerprint
    if found != expected:
        raise UserError(f"--base {base}: not the base of this adapter (hash {str(found)[:12]}, not {expected[:12]})")
