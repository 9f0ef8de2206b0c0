"""What the runs of a table would take on a GPU that is named: an estimate from the models' sizes, not a measurement.

The formula and what it assumes stand in docs/costs.md; every number that it uses stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alphatune.config import Config
from alphatune.run import record
from alphatune.tables.cells import Cell
from alphatune.tables.stages import distinct, examples_seen, hours, inputs


@dataclass(frozen=True)
class Accelerator:
    """A GPU by its maker's data sheet: operations and bytes a second."""

    name: str
    float32: float  # dense, without tensor cores: how torch multiplies float32 matrices unless told otherwise
    bfloat16: float  # dense, tensor cores
    bandwidth: float


ACCELERATORS = {
    "a100": Accelerator("A100 80GB", 19.5e12, 312e12, 2.0e12),
    "h100": Accelerator("H100 SXM", 67e12, 989e12, 3.35e12),
    "v100": Accelerator("V100 32GB", 15.7e12, 15.7e12, 0.9e12),  # it has no bfloat16
}
DEFAULT = ACCELERATORS["a100"]
UTILISATION = 0.4  # of the peak, in training and in decoding
LAYER_SECONDS = 0.6e-3  # to start the kernels of one layer's forward pass, however small it is
PACKING_SECONDS = 1.0e-6  # per weight and alternating PTQ, which runs on the CPU
CELL_SECONDS = 60.0  # imports, loading, scoring
FLOAT = 4  # bytes
TOKENS = {  # context and target of the mean example; the first part of the task's name
    "toy": (30, 25), "webnlg": (50, 32), "dart": (50, 32), "e2e": (37, 30), "samsum": (135, 30), "glue": (45, 0),
    "mnli": (40, 0),
}  # fmt: skip
_VOCABULARY = {"gpt2": 50257, "opt": 50272, "bert": 30522}


@dataclass(frozen=True)
class Estimate:
    """Seconds on one GPU."""

    seconds: float
    unknown: tuple[str, ...] = ()  # models whose shape no file says

    @property
    def text(self) -> str:
        """E.g. "about 12 h"."""
        lost = f", without {', '.join(self.unknown)}" if self.unknown else ""
        return f"about {hours(self.seconds)}{lost}"


@dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a transformer."""

    layers: int
    width: int
    inner: int  # of the feed-forward part
    vocabulary: int

    @property
    def weights(self) -> int:
        """In the linear layers of the blocks."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)

    @property
    def multiplied(self) -> int:
        """Weights that one token is multiplied with, the head included."""
        return self.weights + self.vocabulary * self.width


def shape(config: Config) -> Shape | None:
    """The shape that `conf/model` writes down; None where it does not."""
    if config.model.name_or_path == "tiny":
        tiny = config.model.tiny
        return Shape(tiny.layers, tiny.width, 4 * tiny.width, tiny.vocabulary)
    written = config.model.architecture
    width = written.get("n_embd") or written.get("hidden_size")
    layers = written.get("n_layer") or written.get("num_hidden_layers")
    if not width or not layers:
        return None
    inner = written.get("ffn_dim") or written.get("intermediate_size") or 4 * width
    vocabulary = written.get("vocab_size") or _VOCABULARY.get(str(written.get("model_type")), 50257)
    return Shape(int(layers), int(width), int(inner), int(vocabulary))


def estimate(cells: Iterable[Cell], gpu: Accelerator = DEFAULT, made: bool = False) -> Estimate:
    """What the cells take on one `gpu`, stages that they share counted once.

    Args:
        cells: of a table.
        gpu: the device.
        made: count the stages that the store has already, too.
    """
    cells = list(cells)
    seconds, unknown = CELL_SECONDS * len({cell.run for cell in cells}), dict[str, None]()
    for (stage, _), cell in distinct(cells, made).items():
        found = stage_seconds(stage, cell.config, gpu)
        if found is None:
            unknown[cell.config.model.name] = None
        seconds += found or 0.0
    return Estimate(seconds, tuple(unknown))


def stage_seconds(stage: str, config: Config, gpu: Accelerator) -> float | None:
    """Seconds of one stage; None where the model's shape is not known."""
    model = shape(config)
    if model is None:
        return None
    public = record.public_config(config)
    if stage == "quantize":
        return PACKING_SECONDS * model.weights
    if stage == "adapt":
        return _training(model, public, config.task.name, gpu)
    if stage == "decode":
        return _decoding(model, public, config, gpu)
    return 0.0


def _tokens(task: str) -> tuple[int, int]:
    return TOKENS.get(task.replace("-", "/").split("/")[0].split("_")[0], (64, 32))


def _speed(config: dict[str, Any], gpu: Accelerator) -> float:
    return UTILISATION * (gpu.bfloat16 if config["trainer"]["precision"] == "bfloat16" else gpu.float32)


def _training(model: Shape, config: dict[str, Any], task: str, gpu: Accelerator) -> float:
    """6 N operations a token where all weights train, 4 N where they are frozen, and never less than kernels take."""
    seen = examples_seen(config)
    passes = 6 if config["method"]["train"] == "weights" else 4
    arithmetic = passes * model.multiplied * seen * sum(_tokens(task)) / _speed(config, gpu)
    starting = 3 * LAYER_SECONDS * model.layers * seen / config["hparams"]["batch_size"]
    return max(arithmetic, starting)


def _decoding(model: Shape, public: dict[str, Any], config: Config, gpu: Accelerator) -> float:
    """One forward pass a token for all beams of a batch: its operations, the weights' bytes, or its kernels' start."""
    context, target = _tokens(config.task.name)
    batches = -(-inputs(public) // config.decode.batch_size)
    reading = 2 * model.multiplied * inputs(public) * (context + target * (config.task.kind != "generation"))
    seconds = reading / _speed(public, gpu) + batches * LAYER_SECONDS * model.layers
    if config.task.kind != "generation":
        return seconds
    rows = config.decode.beam * min(config.decode.batch_size, inputs(public))
    step = max(
        2 * model.multiplied * rows / _speed(public, gpu),
        FLOAT * model.multiplied / gpu.bandwidth,
        LAYER_SECONDS * model.layers,
    )
    return seconds + batches * config.decode.max_new_tokens * step
