"""`alphatune quantize`: a dense checkpoint in, a packed one with its tokenizer and a card out."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import alphatune
from alphatune.errors import UserError
from alphatune.hf import checkpoints, quantizer
from alphatune.settings import CALIBRATED, BCQConfig, Quantization, UniformConfig
from alphatune.tools import outputs

_LONGEST = 512  # tokens of a calibration text
_HEAD = "note: the classification head is new and random: train it with an adapter (task_type=SEQ_CLS)"


def run(args: argparse.Namespace) -> int:
    """Quantise what the command line names.

    Raises:
        UserError: an argument, a file or a setting that is not allowed.
    """
    config = _config(args)  # mistakes first, waiting later
    texts = _texts(args.calibration, config)
    outputs.check_out(args.out, args.overwrite)
    source = checkpoints.local(args.model, args.revision)
    if checkpoints.quant_method(checkpoints.settings(source)) is not None:
        raise UserError(f"{args.model} is quantised already; quantise the dense model")
    outputs.check_out(args.out, args.overwrite, [source])
    model = checkpoints.load(source, args.task, "float32")
    if args.task == "classification" and "ForSequenceClassification" not in str(
        checkpoints.read_json(source / "config.json").get("architectures")
    ):
        print(_HEAD, file=sys.stderr)
    dense = 4 * sum(p.numel() for p in model.parameters())
    calibration = _batches(texts, source, model) if texts else None
    with warnings.catch_warnings(record=True) as told:
        quantizer.quantize_model(model, config, progress=True, calibration=calibration)
    for warning in told:
        print(f"note: {warning.message}", file=sys.stderr)
    model.to(getattr(torch, args.dtype))  # after the errors are measured; scales stay float32
    with outputs.new_folder(args.out, args.overwrite, [source]) as folder, checkpoints.quiet():
        model.save_pretrained(folder)
        checkpoints.settings(folder)  # what was written is a whole model
        if not checkpoints.copy_tokenizer(source, folder):
            print(f"note: {args.model} has no tokenizer files to copy", file=sys.stderr)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        lines = _summary(model, config, dense, size)
        (folder / "README.md").write_text(_card(args, type(model).__name__, lines), encoding="utf-8")
    print("\n".join([f"{args.out}", *(f"  {line}" for line in lines)]))
    return 0


def _config(args: argparse.Namespace) -> Quantization:
    modules = None if args.modules is None else [n for n in (m.strip() for m in args.modules.split(",")) if n]
    if modules == []:
        raise UserError("--modules names none")
    if args.format == "uniform":
        if args.solver is not None or args.start is not None or args.offset:
            raise UserError("--solver, --start and --offset belong to --format bcq")
        return UniformConfig(args.bits, args.group_size, modules)
    named = {name: value for name in ("solver", "start") if (value := getattr(args, name)) is not None}
    return BCQConfig(args.bits, args.group_size, modules=modules, offset=args.offset, **named)


def _texts(path: Path | None, config: Quantization) -> list[str]:
    """The calibration texts, one a line."""
    needs = isinstance(config, BCQConfig) and config.solver in CALIBRATED
    if path is None:
        if needs:
            raise UserError(f"--solver {config.solver}: needs --calibration FILE.txt")  # type: ignore[union-attr]
        return []
    if not needs:
        raise UserError(f"--calibration: only the solvers {', '.join(CALIBRATED)} use it")
    try:
        texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"--calibration {path}: cannot be read: {checkpoints.first_line(error)}") from error
    if not texts:
        raise UserError(f"--calibration {path}: holds no text")
    return texts


def _batches(texts: list[str], source: Path, model: Any) -> list[dict[str, Tensor]]:
    """One batch for each text: no padding, so none can count."""
    tokenizer = checkpoints.load_tokenizer(source)
    longest = min(_LONGEST, getattr(model.config, "max_position_embeddings", None) or _LONGEST)
    found = [tokenizer(text).input_ids[:longest] for text in texts]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if (highest := max((max(ids) for ids in found if ids), default=0)) >= vocabulary:
        raise UserError(
            f"the tokenizer gives token {highest}, but the model has {vocabulary}: it is that of another model"
        )
    return [{"input_ids": torch.tensor([ids])} for ids in found if ids]


def _summary(model: Any, config: Quantization, dense: int, size: int) -> list[str]:
    reports = model.hf_quantizer.reports
    groups = sorted({r.group_size for r in reports})
    how, scale = "uniform codes", "one step and one zero point"
    if isinstance(config, BCQConfig):
        how, scale = f"binary codes ({config.solver})", "one scale per plane"
    lines = [
        f"{len(reports)} layers, {config.bits}-bit {how}, {scale} for every "
        f"{' or '.join(f'{g:,}' for g in groups)} weights",
        f"{size / 1e6:.2f} MB, {dense / 1e6:.2f} MB in FP32: {dense / size:.2f} times smaller",
        f"mean relative error of a layer's weights: {sum(r.relative_error for r in reports) / len(reports):.4f}",
    ]
    outputs = [r.output_error for r in reports if r.output_error is not None]
    if outputs:
        lines.append(f"mean relative error of a layer's output: {sum(outputs) / len(outputs):.4f}")
    return lines


def _card(args: argparse.Namespace, name: str, lines: list[str]) -> str:
    """README.md of the folder. A local model has no id that others could follow, and a path says too much."""
    is_hub = not Path(args.model).expanduser().is_dir()
    of = args.model if is_hub else Path(args.model).resolve().name
    origin = f"{of}{f' at revision {args.revision}' if args.revision else ''}"
    front = ["---", "library_name: transformers", *([f"base_model: {of}"] if is_hub else []),
             f"tags: [alphatune, {args.format}, {args.bits}-bit]", "---", ""]  # fmt: skip
    return "\n".join([
        *front, f"# {of}, {args.bits} bits", "",
        f"The linear layers inside the transformer blocks of {origin}, quantised after training by alphatune "
        f"{alphatune.__version__}. Everything else is {args.dtype}. The licence is that of {of}.", "",
        *(f"- {line}" for line in lines), "",
        "```python", "import alphatune", "alphatune.register()  # teaches transformers and peft about packed layers",
        f"from transformers import {name}", "", f'model = {name}.from_pretrained("PATH")', "```", "",
    ])  # fmt: skip
