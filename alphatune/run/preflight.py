"""Before a run starts: everything that would stop it or spoil its result later, found in one pass and told at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from alphatune import metrics
from alphatune.config import LOSS, Config
from alphatune.data import own
from alphatune.data.example import Example
from alphatune.errors import UserError
from alphatune.learn import ranks
from alphatune.metrics.outside import java
from alphatune.metrics.outside.unavailable import Unavailable
from alphatune.packed import nf4
from alphatune.run import identity, record, room
from alphatune.run.pipeline import Run
from alphatune.run.preflight_model import SplitTexts
from alphatune.run.preflight_model import problems as of_model
from alphatune.settings import NF4_NEEDS
from alphatune.store import unwritable

_OTHER = {"test": "validation", "validation": "test"}
_OF_CLASSES, _OF_NUMBERS = ("accuracy", "f1", "matthews"), ("pearson", "spearman")


def check(run: Run) -> list[str]:
    """Refuse a run that cannot end well; what it will leave out is returned as warnings, a line each.

    Nothing is written, trained or downloaded, but for the config and the tokenizer of a hub model that is not here yet.

    Raises:
        UserError: one problem in a line; several as a numbered list.
    """
    found = problems(run)
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        numbered = (f"{i}. {problem}" for i, problem in enumerate(found, 1))
        raise UserError(f"{len(found)} problems, nothing was started:", *numbered)
    return warnings(run)


def problems(run: Run) -> list[str]:
    """What keeps the run from its result: each a sentence that says what is wrong and what to do."""
    config = run.config
    found = [*_method(config), *_splits(run), *_subsets(run), *_metrics(config), *_examples(run), *_places(run)]
    found += [*_device(config), *_shard(config)]
    texts = SplitTexts(run.train_examples, run.validation_examples, run.test_examples if config.task.metrics else [])
    found += of_model(config, texts)
    if not found:
        found += room.problems(config, run.plan, run.store.root, len(run.test_examples))
    return found


def warnings(run: Run) -> list[str]:
    """What the run leaves out, or does slowly."""
    return [*_left_out(run), *_absent(run.config), *_slow(run.config)]


# ---- what is asked for ---------------------------------------------------------------------------------------------


def _method(config: Config) -> Iterator[str]:
    method = config.method
    if method.train == "scales" and not method.coded:
        yield (
            f"method={method.name} trains scales, but with method.quantize={method.quantize} nothing is quantised when "
            "it trains: use method.quantize=before"
        )
    if method.quantize == "given" and method.train == "weights":
        yield "method.quantize=given has codes for weights, which do not train: use method.train=scales or lora"
    if method.quantize == "nf4" and method.train == "weights":
        yield "method.quantize=nf4 freezes the weights: use method.train=lora, or method.quantize=never"
    if method.quantize == "nf4" and not nf4.installed():
        yield f"method={method.name}: {NF4_NEEDS}"
    if method.train == "lora" and method.lora.start == "residual" and method.quantize not in ("before", "nf4"):
        lacks = (
            "the dense weights are not there" if method.quantize == "given" else "nothing is quantised when LoRA starts"
        )
        yield (
            f"method.lora.start=residual is what quantising took from the weights, but with method.quantize="
            f"{method.quantize} {lacks}: use method=bcq_lora or method=qlora"
        )
    if method.quantize in ("frozen", "merged") and method.train != "lora":
        yield (
            f"method.quantize={method.quantize} is of W beside or with LoRA, but method.train={method.train}: use "
            "method.train=lora, or method.quantize=adapted"
        )
    if method.quantize == "adapted" and method.train == "nothing":
        yield "method.quantize=adapted, but method.train=nothing adapts no weights: use method.quantize=before"


def _metrics(config: Config) -> Iterator[str]:
    task = config.task
    labels = task.kind == "classification"
    known = list(metrics.LABEL_METRICS if labels else metrics.TEXT_METRICS)
    others = metrics.TEXT_METRICS if labels else metrics.LABEL_METRICS
    for name in dict.fromkeys(task.scores):
        fit = known
        if name in others:
            reason = f"is of {'texts' if labels else 'labels'}, but task={task.name} is {task.kind}"
        elif name not in known:
            reason = "is unknown"
        elif name in _OF_CLASSES and not task.labels:
            reason, fit = "is of classes, but task.labels is empty, so numbers are predicted", list(_OF_NUMBERS)
        elif name == "f1" and len(task.labels) != 2:
            reason, fit = f"is of two classes, task.labels has {len(task.labels)}", ["accuracy", "matthews"]
        else:
            continue
        yield f"task.metrics: {name} {reason}: choose from {', '.join([*fit, LOSS])}"


def _shard(config: Config) -> Iterator[str]:
    if not config.runtime.shard:
        return
    if ranks.size() == 1:
        yield "runtime.shard=true cuts a model up among processes, but there is one: torchrun --nproc-per-node N ..."
    if config.method.train != "weights":
        yield (
            f"runtime.shard=true: method={config.method.name} trains no weights, so gradients and moments are small: "
            "leave it out, or use method=full_ft"
        )
    elif config.hparams.optimizer != "adamw":
        yield f"runtime.shard=true: hparams.optimizer={config.hparams.optimizer} needs whole rows: use adamw"


def _device(config: Config) -> Iterator[str]:
    if config.runtime.device == "cuda" and not torch.cuda.is_available():
        yield "runtime.device=cuda: torch sees no GPU here; use auto or cpu"


# ---- data ----------------------------------------------------------------------------------------------------------


def _splits(run: Run) -> Iterator[str]:
    config, task = run.config, run.config.task
    calibrates = config.method.codes and identity.calibrated(config)
    trains = config.method.train != "nothing"
    if trains and not run.train_examples:
        yield f"{_none(run, 'train', 'train_limit')}, but method={config.method.name} trains: {_add_to(run, 'train')}"
    elif calibrates and not run.dataset.train:
        yield (
            f"{_none(run, 'train', 'train_limit')}, but quant.solver={config.quant.solver} calibrates on them: "
            f"{_add_to(run, 'train')}, or use quant.solver=alternating"
        )
    if task.metrics and not run.test_examples:
        split = task.evaluate_on
        instead = f"task.evaluate_on={_OTHER[split]}, " if run.dataset.split(_OTHER[split]) else ""
        yield (
            f"{_none(run, split, 'eval_limit')} to score with {', '.join(task.metrics)}: {_add_to(run, split)}, or set "
            f"{instead}task.metrics=[]"
        )


def _none(run: Run, split: str, limit: str) -> str:
    """That a split is empty, and why."""
    why = f"files read: {', '.join(run.dataset.files) or 'none'}"
    if run.dataset.split(split):
        why = f"data.{limit}={getattr(run.config.data, limit)}"
    return f"task={run.config.task.name} has no {split} examples ({why})"


def _add_to(run: Run, split: str) -> str:
    if run.config.task.reader == own.READER:
        return f"give data.{own.SPLITS[split]}=FILE"
    return f"give the file of the {split} split"


def _subsets(run: Run) -> Iterator[str]:
    data = run.dataset
    held = {e.subset for examples in (data.train, data.validation, data.test) for e in examples} - {metrics.ALL}
    lost = [name for name in run.config.task.subsets if name not in held | {metrics.ALL}]
    if lost and run.config.task.metrics:
        choice = f"must be among {', '.join(sorted(held))}" if held else "the data has no subsets: set task.subsets=[]"
        yield f"task.subsets: no example is of {', '.join(lost)}; {choice}"


def _examples(run: Run) -> Iterator[str]:
    """Examples without what they are trained on or scored against."""
    config, task = run.config, run.config.task
    uses = {"train": run.train_examples if config.method.train != "nothing" else [],
            "validation": run.validation_examples} | (
            {task.evaluate_on: run.test_examples} if task.metrics else {})  # fmt: skip
    for split, examples in uses.items():
        if task.kind == "generation":
            empty = [e for e in examples if not e.targets]
            if empty and (split != "train" or len(empty) == len(examples)):
                told = f"{empty[0].id} has no text to compare with ({len(empty)} in all)"
                yield f"{split} split: {told}: {_add_to(run, split)}"
            continue
        hidden = sum(e.label is None for e in examples)
        if hidden:
            other = " or set task.evaluate_on=validation" if split == "test" else ""
            yield f"{split} split: {hidden} of {len(examples)} labels are hidden: give files with labels{other}"
            continue
        wrong = next((e for e in examples if not _fits(e, len(task.labels))), None)
        if wrong is not None:
            wanted = f"0 to {len(task.labels) - 1} (task.labels)" if task.labels else "a number (task.labels is empty)"
            yield f"{split} split: {wrong.id} has the label {wrong.label!r}, which is not {wanted}"


def _fits(example: Example, classes: int) -> bool:
    label = example.label
    if classes:
        return isinstance(label, int) and 0 <= label < classes
    return isinstance(label, float | int) and math.isfinite(label)


# ---- places --------------------------------------------------------------------------------------------------------


def _places(run: Run) -> Iterator[str]:
    """Folders of the record and of the stages that cannot be written to."""
    places = {
        "runtime.records": [record.path_of(run.config.runtime.records, run.plan.run_id).parent],
        "runtime.artifacts": [run.store.root / s for s in ("backbone", "measure", *identity.VERSIONS)],
    }
    for key, folders in places.items():
        reason = next(filter(None, map(unwritable, folders)), None)
        if reason is not None:
            yield f"{key}={Path(getattr(run.config.runtime, key.split('.')[1]))}: {reason}; give another folder"


# ---- warnings ------------------------------------------------------------------------------------------------------


def _left_out(run: Run) -> Iterator[str]:
    task = run.config.task
    if not run.validation_examples:
        lost = "no validation loss" + (" and no curve of it" if run.config.method.train != "nothing" else "")
        yield f"{_none(run, 'validation', 'eval_limit')}: the record has {lost}"
    held = {e.subset for e in run.test_examples} | {metrics.ALL}
    for name in task.subsets if task.metrics else []:
        if name not in held:
            limited = f" with data.eval_limit={len(run.test_examples)}" if _has(run, name) else ""
            yield f"task.subsets: no {task.evaluate_on} example is of {name}{limited}: it is not scored"


def _has(run: Run, subset: str) -> bool:
    return any(e.subset == subset for e in run.dataset.split(run.config.task.evaluate_on))


def _absent(config: Config) -> Iterator[str]:
    """Metrics whose Java program cannot run here; the record says so, too."""
    names = [m for m in dict.fromkeys(config.task.scores) if getattr(metrics.TEXT_METRICS.get(m), "external", False)]
    try:
        if names:
            java.runtime()
            java.package_version()
    except Unavailable as reason:
        yield f"{', '.join(names)} will be absent from the record: {reason}"


def _slow(config: Config) -> Iterator[str]:
    if config.trainer.precision != "bfloat16" or config.method.train == "nothing":
        return

    on_gpu = config.runtime.device != "cpu" and torch.cuda.is_available()
    if not on_gpu and not fast_bfloat16():
        yield (
            "trainer.precision=bfloat16: this CPU has no bfloat16 units and is slower with it; set "
            "trainer.precision=float32"
        )


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware: AVX512-BF16 or AMX on x86, BF16 on ARM."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return True  # an older torch does not say: no warning
    able = torch.cpu.get_capabilities()
    return any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
