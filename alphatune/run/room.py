"""How many bytes a run will write to its store, so that a full disk is told before the training and not after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alphatune.config import Config
from alphatune.learn import models
from alphatune.run.identity import Plan
from alphatune.run.sizes import FLOAT, Sizes, sizes
from alphatune.store import MANIFEST, digest, trouble

_OVERHEAD = 1 << 20  # manifests, reports, curves, the record
_MOMENTS = 2  # tensors that Adam keeps for each trained one
_PER_INPUT = 4 << 10  # of a prediction, while it is decoded and when it is kept


def problems(config: Config, plan: Plan, root: Path, inputs: int) -> Iterator[str]:
    """The one that there may be: less free room than the stages that are still to be made need, in a sentence.

    Args:
        root: of the store.
        inputs: how many texts are decoded.
    """
    found = sizes(models.skeleton(config.model, config.task.kind, len(config.task.labels)), config)
    needed, free = _needed(config, plan, root, inputs, found), trouble.room(root)
    if needed > free:
        fewer = ", or trainer.saves=0 (no checkpoints)" if plan.adapted and config.trainer.saves else ""
        yield (
            f"runtime.artifacts={root}: this run writes about {trouble.bytes_in_words(needed)}, and "
            f"{trouble.bytes_in_words(free)} are free: make room, give another folder{fewer}"
        )


def _needed(config: Config, plan: Plan, root: Path, inputs: int, found: Sizes) -> int:
    needed = _OVERHEAD
    if plan.adapted is not None and not _there(root, "adapt", plan.adapted):
        trained = FLOAT * _trained(config, found)
        needed += trained
        if config.trainer.saves:  # a new checkpoint is whole before the one before it goes
            needed += 2 * trained * (1 + _MOMENTS)
    codes = plan.requantized or plan.quantized
    if codes is not None and not _there(root, "quantize", codes):
        needed += config.quant.q * found.linear_weights // 8 + FLOAT * (config.quant.q + 1) * found.groups
    if config.task.scores and not _there(root, "decode", plan.decoded):
        needed += 2 * _PER_INPUT * inputs
    return needed


def _trained(config: Config, found: Sizes) -> int:
    """Parameters that train, also where they are quantised afterwards."""
    if found.trainable_parameters is not None:
        return found.trainable_parameters
    return found.parameters if config.method.train == "weights" else found.checkpoint_bytes // FLOAT


def _there(root: Path, stage: str, spec: dict[str, object]) -> bool:
    return (root / stage / digest(spec) / MANIFEST).is_file()
