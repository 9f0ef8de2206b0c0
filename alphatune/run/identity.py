"""What a result depends on: the specification of every stage, and from them the name of a run.

Each stage's spec holds its part of the resolved config, the spec of what it builds on, and the version of its code.
A setting that a method does not use is not in any spec, so it cannot make a second run of the same thing.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

from alphatune.config import LOSS, Config, Fields
from alphatune.settings import CALIBRATED, NF4
from alphatune.store import digest, path_part
from alphatune.versions import BFLOAT16, SCALES, SOLVERS, VERSIONS

# Fields added after records existed, with the value that means "as before": such a value is left out of the hash.
ADDED_LATER: dict[str, Any] = {"offset": False, "start": "greedy", "fields": dataclasses.asdict(Fields())}

Spec = dict[str, Any]
GIVEN = ("quant.format", "quant.q", "quant.group_size", "quant.offset")  # what a run must name as a packed model has it


@dataclass(frozen=True)
class Plan:
    """The specs of a run's stages; None where a stage does not happen."""

    backbone: Spec
    quantized: Spec | None  # before adaptation
    adapted: Spec | None
    requantized: Spec | None  # after adaptation
    evaluated: Spec  # validation loss of the final model
    measured: Spec | None  # its loss on the references of the texts that are scored
    decoded: Spec
    scored: Spec
    run_id: str


class Numbers(NamedTuple):
    """Of the code of what only some runs use; 1 where a run uses none that has a later one. In records if above 1."""

    solver_version: int = 1
    scales_version: int = 1


def plan(config: Config, backbone: Spec, files: dict[str, str], numbers: Numbers | None = None) -> Plan:
    """The plan of a run, given what decides its backbone's weights and the hashes of its data files.

    `numbers` are those of its code, if not today's: what a run was called when that was in use.
    """
    solver, scales = numbers_of(config) if numbers is None else numbers
    method = config.method
    data = {"task": _task_spec(config), "files": files, "version": VERSIONS["data"]}
    training_data = {**data, "train_limit": config.data.train_limit, "eval_limit": validation_limit(config)}
    base: Spec = {"backbone": backbone} | ({"head_seed": config.seed} if config.task.kind != "generation" else {})
    if method.quantize == "nf4":
        base["nf4"] = dataclasses.asdict(NF4)
    quantized = _quant_spec(config, base, data, solver) if method.quantize == "before" else None
    start = quantized or base
    adapted: Spec | None = None
    if method.train != "nothing":
        adapted = {
            "base": start,
            "data": training_data,
            "method": _method_spec(config),
            "hparams": _without(dataclasses.asdict(config.hparams), "provenance"),
            "trainer": _without(dataclasses.asdict(config.trainer), "saves"),
            "seed": config.seed,
            "version": VERSIONS["adapt"],
        }
        if scales > 1:
            adapted["scales_version"] = scales
        if config.trainer.precision == "bfloat16" and config.task.kind == "generation":
            adapted["precision_version"] = BFLOAT16
    requantized: Spec | None = None
    if method.quantize == "frozen":
        requantized = _quant_spec(config, base, data, solver)
    elif method.quantize in ("adapted", "merged"):
        requantized = _quant_spec(config, {"adapted": adapted}, data, solver)
    model = {"start": start, "adapted": adapted, "requantized": requantized}
    test_data = {**data, "eval_limit": config.data.eval_limit, "split": config.task.evaluate_on}
    evaluated = {"model": model, "data": training_data, "version": VERSIONS["evaluate"]}
    decoded: Spec = {"model": model, "data": test_data, "version": VERSIONS["decode"]}
    if config.task.kind == "generation":
        decoded["decode"] = _without(dataclasses.asdict(config.decode), "batch_size")
    scored = {
        "decoded": decoded, "metrics": config.task.scores, "subsets": list(config.task.subsets),
        "version": VERSIONS["score"],
    }  # fmt: skip
    whole: Spec = {"scored": scored, "evaluated": evaluated, "seed": config.seed}
    measured: Spec | None = None
    if LOSS in config.task.metrics:
        measured = {
            "model": model, "data": test_data, "subsets": bool(config.task.subsets), "version": VERSIONS["evaluate"]
        }  # fmt: skip
        whole["measured"] = measured
    name = f"{short_name(config)}-{digest(whole)[:10]}"
    return Plan(base, quantized, adapted, requantized, evaluated, measured, decoded, scored, name)


def validation_limit(config: Config) -> int | None:
    """How many validation examples the loss is taken over; None: all."""
    return config.data.validation_limit or config.data.eval_limit


def short_name(config: Config) -> str:
    """The readable part of a run's name: task/model/method/q3-g64-seed0.

    Raises:
        UserError: a name cannot be a folder's.
    """
    quant = ""
    if config.method.codes:
        quant = f"q{config.quant.q}-" + (f"g{config.quant.group_size}-" if config.quant.group_size else "")
    names = [("task.name", config.task.name), ("model.name", config.model.name), ("method.name", config.method.name)]
    folders = "/".join(path_part(name, key) for key, name in names)
    return f"{folders}/{quant}seed{config.seed}"


def unused(config: Config, overrides: list[str]) -> list[str]:
    """Warnings for settings given on the command line that this run does not use."""
    method, warnings = config.method, []
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if key.startswith("quant") and not method.codes:
            does = "has codes of its own" if method.quantize == "nf4" else "does not quantise"
            warnings.append(f"{override}: method={method.name} {does}; the setting has no effect")
        elif key.startswith("quant") and method.quantize == "given" and key not in ("quant", *GIVEN):
            warnings.append(f"{override}: method.quantize=given takes the model's codes; the setting has no effect")
        elif key in ("quant.calibration", "quant.damping", "quant.rounds") and not calibrated(config):
            solver = f"quant.solver={config.quant.solver}" if config.quant.format == "bcq" else "quant.format=uniform"
            warnings.append(f"{override}: {solver} does not calibrate; the setting has no effect")
        elif key.startswith("quant.") and method.quantize != "given" and key[6:] not in _quant_used(config):
            solver = "quant.format=uniform" if config.quant.format != "bcq" else f"quant.solver={config.quant.solver}"
            warnings.append(f"{override}: {solver} does not use it; the setting has no effect")
        elif key.startswith(("hparams", "trainer")) and method.train == "nothing":
            warnings.append(f"{override}: method={method.name} trains nothing; the setting has no effect")
        elif key.startswith("method.lora") and method.train != "lora":
            warnings.append(f"{override}: method={method.name} has no LoRA; the setting has no effect")
        elif key.startswith("decode") and config.task.kind != "generation":
            warnings.append(f"{override}: task={config.task.name} is not generated text; the setting has no effect")
    return warnings


def calibrated(config: Config) -> bool:
    """Whether the run's codes depend on training texts."""
    return config.method.quantize != "given" and config.quant.format == "bcq" and config.quant.solver in CALIBRATED


def numbers_of(config: Config) -> Numbers:
    """Today's numbers of the code that a run uses."""
    method = config.method
    solves = method.codes and method.quantize != "given" and config.quant.format == "bcq"
    solver = SOLVERS.get(config.quant.solver, 1) if solves else 1
    which = "first" if config.quant.q == 1 else method.trainable  # of one plane's scales the first are all
    return Numbers(solver, SCALES.get(which, 1) if method.train == "scales" else 1)


def numbers_of_record(made: dict[str, Any]) -> Numbers:
    """The numbers of the code that made a recorded run."""
    return Numbers(*(made.get(name, 1) for name in Numbers._fields))


def today_and_earlier(config: Config) -> list[Numbers]:
    """Today's numbers of the code that a run uses, and after them all earlier ones."""
    return [Numbers(*each) for each in itertools.product(*(range(number, 0, -1) for number in numbers_of(config)))]


def calibration_examples(config: Config) -> int:
    """How many examples are calibrated on: no more than the run may train on."""
    return min(config.quant.calibration, config.data.train_limit or config.quant.calibration)


def _quant_used(config: Config) -> dict[str, Any]:
    """The settings of `quant` on which codes depend under this solver; what else they depend on is not among them."""
    quant = dataclasses.asdict(config.quant)
    solver = quant["solver"]
    if quant["format"] == "uniform":
        quant = _without(quant, "solver", "iterations", "offset", "start")
    elif solver in ("greedy", "optimal"):
        quant = _without(quant, "iterations")
    if not calibrated(config):
        quant = _without(quant, "damping")
    if not calibrated(config) or solver == "weighted":
        quant = _without(quant, "rounds")
    return quant


def _quant_spec(config: Config, base: Spec, data: Spec, number: int) -> Spec:
    # a head is not quantised: the codes of a classifier's backbone do not depend on the head's seed
    spec: Spec = {"base": _without(base, "head_seed"), "quant": _without(_quant_used(config), "calibration")}
    if calibrated(config):
        spec["calibration"] = {**data, "examples": calibration_examples(config)}
    if number > 1:
        spec["solver_version"] = number
    return {**spec, "version": VERSIONS["quantize"]}


def _method_spec(config: Config) -> Spec:
    """What trains. When the weights are quantised is said by the specs around it, so PTQ rows share adaptations."""
    method = config.method
    spec: Spec = {"train": method.train}
    if method.train == "lora":
        spec["lora"] = dataclasses.asdict(method.lora)
        if method.lora.start == "zero":  # as it was when there was no other
            del spec["lora"]["start"]
        if config.task.kind != "generation":
            spec["start"] = 2  # the adapters' first values once depended on the head, drawn just before
    if method.train == "scales":
        spec["trainable"] = method.trainable
    return spec


def _task_spec(config: Config) -> Spec:
    task = dataclasses.asdict(config.task)
    return _without(task, "metrics", "subsets", "counts", "licence", "evaluate_on")


def _without(values: Spec, *names: str) -> Spec:
    return {k: v for k, v in values.items() if k not in names and not (k in ADDED_LATER and v == ADDED_LATER[k])}
