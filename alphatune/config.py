"""What a run is: the typed schema of `conf/` and the checks that refuse a bad value before any work.

This file knows names and allowed values, not what they do. Values live in the YAML files of `conf/`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from alphatune import ranges
from alphatune.ranges import between, one_of, same
from alphatune.settings import FORMATS, BCQConfig, Quantization, UniformConfig

LOSS = "loss"  # the one metric of the model and not of what it predicts


@dataclass
class Fields:
    """What a user's own files call their fields; those that the kind of the task does not have stay as they are."""

    input: str = "input"  # generation: the text that the model reads
    target: str = "target"  # generation: what it is to write; a text, or a list of texts in JSONL
    references: str = ""  # generation: a list of texts in JSONL, or columns by a pattern, ref*; empty: the target
    sentence1: str = "sentence1"  # classification and regression
    sentence2: str = ""  # of tasks on pairs of sentences; empty: there is none
    label: str = "label"  # a class by name or index; a number in regression
    subset: str = ""  # the group that a row is scored with, besides all; empty: there are none


@dataclass
class Task:
    """A data set, how it is read, and how it is scored."""

    name: str = "toy"
    kind: str = one_of("generation", "classification", "regression")  # classification without labels is regression too
    reader: str = "toy"  # module of alphatune.data that reads it
    variant: str = ""  # which part of a reader's format, e.g. the GLUE task
    evaluate_on: str = one_of("test", "validation")
    metrics: list[str] = field(default_factory=list)  # names known to alphatune.metrics, and loss
    subsets: list[str] = field(default_factory=list)  # groups scored apart, besides "all"
    labels: list[str] = field(default_factory=list)  # class names, in index order; empty for regression
    fields: Fields = field(default_factory=Fields)  # of the user's own files
    max_context: int = between(8, 4096, 448)  # tokens kept of the context, from its right end
    max_target: int = between(1, 2048, 64)  # tokens kept of a training target
    counts: dict[str, int] = field(default_factory=dict)  # expected number of examples per split
    licence: str = ""

    @property
    def scores(self) -> list[str]:
        """The metrics of predictions: what makes a run predict."""
        return [name for name in self.metrics if name != LOSS]


@dataclass
class Data:
    """Where task files are looked for and how much of them is used."""

    dir: str | None = None  # folder with the user's files; None: $ALPHATUNE_DATA, then the cache, then a download
    train: str | None = None  # task=own: the file of each split, .jsonl, .csv or .tsv
    valid: str | None = None
    test: str | None = None
    offline: bool = False  # never try the network
    train_limit: int | None = between(1, 10**9, None, null="all")  # first n training examples after a seeded shuffle
    eval_limit: int | None = between(1, 10**9, None, null="all")  # first n evaluation examples
    validation_limit: int | None = between(1, 10**9, None, null="as data.eval_limit")  # first n examples of the curve
    allow_count_mismatch: bool = False  # accept files whose example counts differ from `task.counts`


@dataclass
class Tiny:
    """The small GPT-2: its weights are in the package; with other values it is pre-trained on the toy world's text."""

    layers: int = between(1, 48, 5)
    width: int = between(8, 4096, 128)
    heads: int = between(1, 64, 4)
    vocabulary: int = between(258, 65536, 512)
    positions: int = between(64, 4096, 256)
    steps: int = between(1, 10**6, 700)
    batch_size: int = between(1, 4096, 32)


@dataclass
class Model:
    """A backbone: which weights, and their shape where it is known without them."""

    name_or_path: str = "tiny"  # hub id, local folder, or "tiny" for the model built here
    name: str = ""  # what records and tables call it; empty: the last part of name_or_path
    revision: str | None = None  # pinned commit of a hub checkpoint
    architecture: dict[str, Any] = field(default_factory=dict)  # transformers config values, for sizes without weights
    tiny: Tiny = field(default_factory=Tiny)


@dataclass
class Lora:
    """Low-rank adapters (peft). The paper's baseline follows Hu et al. 2022: rank 4 on query and value."""

    r: int = between(1, 1024, 4)
    alpha: float = between(0.0, 4096.0, 32.0)
    dropout: float = between(0.0, 0.9, 0.0)
    targets: str = one_of("query_value", "linear")
    # B A before training: zero (Hu et al. 2022), or the best of its rank for what quantising took (LoftQ's start)
    start: str = one_of("zero", "residual")


@dataclass
class Method:
    """When to quantise and what to train: a method is these values and nothing else."""

    name: str = "alphatuning"
    label: str = ""  # the name printed in tables
    # when our codes are found; given: the backbone is a packed checkpoint; nf4: bitsandbytes' codes, made at loading
    quantize: str = one_of("never", "nf4", "given", "before", "adapted", "frozen", "merged")
    train: str = one_of("nothing", "weights", "lora", "scales")
    trainable: str = one_of("first", "all", "gain")  # which scales, when scales train
    lora: Lora = field(default_factory=Lora)

    @property
    def codes(self) -> bool:
        """Whether the model has our own codes at some point, so that the group `quant` says something."""
        return self.quantize not in ("never", "nf4")

    @property
    def coded(self) -> bool:
        """Whether adaptation starts from our own codes."""
        return self.quantize in ("given", "before")


@dataclass
class Quant:
    """How a weight becomes codes and scales: the fields of `settings.BCQConfig` that a run sets, and the format."""

    format: str = one_of(*FORMATS)
    q: int = same(BCQConfig, "bits")  # bits per weight
    group_size: int | str | None = same(BCQConfig, "group_size")  # weights per scale
    solver: str = same(BCQConfig, "solver")
    iterations: int = same(BCQConfig, "iterations")  # of the alternating solver, and of the calibrated ones' start
    start: str = same(BCQConfig, "start")  # of the same solvers: greedy codes, a uniform grid, or the best of both
    offset: bool = same(BCQConfig, "offset")  # a constant per group beside the planes; uniform codes always have one
    calibration: int = between(1, 10**6, 128)  # training examples that calibrated solvers look at
    rounds: int = same(BCQConfig, "rounds")  # of the solvers hessian and gptq: codes for the scales, scales for codes
    damping: float = same(BCQConfig, "damping")  # of calibrated solvers: added to X'X, a share of its mean diagonal

    def settings(self) -> Quantization:
        """The format's own settings. Raises UserError as they do."""
        if self.format == "uniform":
            return UniformConfig(self.q, self.group_size)
        return BCQConfig(
            self.q, self.group_size, self.solver, self.iterations,
            offset=self.offset, rounds=self.rounds, damping=self.damping, start=self.start,
        )  # fmt: skip


@dataclass
class Hparams:
    """The settings of adaptation that a paper's appendix would list."""

    provenance: str = "method default: no published values for this cell"
    learning_rate: float = between(0.0, 10.0, 1e-3)
    weight_decay: float = between(0.0, 10.0, 0.0)
    epochs: float = between(0.001, 1000.0, 5.0)  # a part of one is at least a step
    batch_size: int = between(1, 65536, 8)
    warmup_steps: int = between(0, 10**9, 0)
    dropout: float = between(0.0, 0.9, 0.0)  # of the backbone
    label_smoothing: float = between(0.0, 0.9, 0.0)
    optimizer: str = one_of("adamw", "adafactor")
    adam_beta1: float = between(0.0, 1.0, 0.9, below=True)
    adam_beta2: float = between(0.0, 1.0, 0.999, below=True)
    adam_epsilon: float = between(0.0, 1.0, 1e-8)
    max_grad_norm: float = between(0.0, 10**9, 0.0, zero="no clipping")


@dataclass
class Trainer:
    """How training is carried out: length, curves, checkpoints, precision."""

    max_steps: int | None = between(1, 10**9, None, null="as many as the epochs take")  # overrides epochs
    evals: int = between(1, 1000, 10)  # points of the validation curve
    saves: int = between(0, 1000, 4, zero="none")  # mid-run checkpoints that a killed run continues from
    precision: str = one_of("float32", "bfloat16")
    gradient_checkpointing: bool = False


@dataclass
class Decode:
    """Beam search. The defaults are the semantics of the LoRA decoder that the paper's NLG tasks use."""

    beam: int = between(1, 1024, 10)
    no_repeat_ngram: int = between(0, 64, 4, zero="off")
    no_repeat_scope: str = one_of("generated", "all")  # "all": prompt and generated tokens
    no_repeat_before_softmax: bool = True  # True: banned tokens' mass goes to the others (LoRA); False: stock generate
    length_penalty: float = between(-10.0, 10.0, 0.8)  # score = sum of log p / length ** length_penalty
    max_new_tokens: int = between(1, 4096, 64)
    candidates: str = one_of("beam", "double")  # continuations looked at per step: K (LoRA) or 2K (stock generate)
    stopping: str = one_of(
        "length", "bound", "exact", "first"
    )  # "length" (LoRA); stock early_stopping False/"never"/True
    stop_text: str = one_of("line", "none")  # cut the text at the first blank line, or only at the end token
    batch_size: int = between(1, 65536, 16)  # prompts at once; cannot change the result


@dataclass
class Logger:
    """Where curves go while a run lasts; the record is written in any case."""

    name: str = one_of("none", "wandb", "tensorboard")
    project: str = "alphatune"
    group: str = ""  # what W&B groups runs by; empty: task/model/method. A table gives its name and row
    mode: str = one_of("online", "offline")


@dataclass
class Runtime:
    """Where and how the work is done. Nothing here can change a result, so nothing here is part of a run's identity."""

    device: str = one_of("auto", "cpu", "cuda")
    threads: int = between(0, 1024, 0, zero="as many as torch takes")  # of the CPU
    artifacts: str = "outputs/artifacts"  # the content-addressed store of stage outputs
    records: str = "results/records"  # one JSON per finished run
    force: bool = False  # run again although the record exists
    progress: bool = True
    shard: bool = False  # cut the weights that train up among the processes of torchrun


@dataclass
class Config:
    """One run."""

    task: Task = field(default_factory=Task)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    method: Method = field(default_factory=Method)
    quant: Quant = field(default_factory=Quant)
    hparams: Hparams = field(default_factory=Hparams)
    trainer: Trainer = field(default_factory=Trainer)
    decode: Decode = field(default_factory=Decode)
    logger: Logger = field(default_factory=Logger)
    runtime: Runtime = field(default_factory=Runtime)
    seed: int = between(0, 2**32 - 1, 0)


def field_of(key: str) -> ranges.Field | None:
    """The schema's field for a key such as "quant.q"; None if `key` names none, or a whole group."""
    schema: Any = Config
    *path, last = key.split(".")
    try:
        for part in path:
            schema = ranges.field(schema, part).default_factory
        found = ranges.field(schema, last)
    except (KeyError, TypeError):
        return None
    return None if dataclasses.is_dataclass(found.default_factory) else found
