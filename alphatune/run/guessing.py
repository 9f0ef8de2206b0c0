"""A quantised model that is worse than guessing: said at once, with what to try, before anybody waits for its training.

Guessing means every token of the vocabulary alike: ln V nats a token. Classification is left out: before adaptation its
head is new and random, so the loss is about ln(classes) however good the codes are.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from alphatune.config import Config, Quant
from alphatune.learn import models

log = logging.getLogger("alphatune")
TEXTS = 8  # validation texts looked at before training: less work than one step on as many


@dataclass(frozen=True)
class Start:
    """What quantisation left of a model, before any adaptation of the quantised weights."""

    loss: float  # validation loss, nats a token
    guessing: float  # ln V
    texts: int  # validation texts that the loss is a mean over


def measured(config: Config) -> bool:
    """Whether a run's quantised model is compared with guessing: one that has codes and scales of ours."""
    return config.method.quantize not in ("never", "nf4") and config.task.kind == "generation"


def start(loss: float, config: Config, texts: int) -> Start:
    """`loss` beside that of guessing among the tokens that the run's model knows; said if it is worse."""
    skeleton = models.skeleton(config.model, config.task.kind, len(config.task.labels))
    return tell(Start(loss, math.log(skeleton.config.vocab_size), texts), config)  # type: ignore[union-attr, arg-type]


def tell(found: Start, config: Config) -> Start:
    """Log the warning, if there is one to give; returns what it was given."""
    line = warning(found, config.quant, config.method.quantize == "given")
    if line:
        log.warning("%s", line)
    return found


def warning(found: Start, quant: Quant, given: bool = False) -> str | None:
    """The line for a model that is worse than guessing; None for a better one. `given`: its backbone came packed."""
    if found.loss <= found.guessing:
        return None
    texts = "1 validation text" if found.texts == 1 else f"{found.texts} validation texts"
    return (
        f"quantised, this model is worse than guessing: {found.loss:.2f} nats a token on {texts}, where all tokens "
        f"alike (ln V) give {found.guessing:.2f}; try {_advice(quant, given)}"
    )


def _advice(quant: Quant, given: bool) -> str:
    solver, group, bits = "quant.solver=gptq quant.offset=true", "quant.group_size={}", "quant.q={}"
    if given:  # these settings choose nothing in such a run: they name what `alphatune quantize` chose
        solver, group, bits = "--solver gptq --offset", "--group-size {}", "--bits {}"
    tries = []
    if quant.format == "bcq" and not (quant.solver == "gptq" and quant.offset and not given):
        tries.append(solver)
    small = isinstance(quant.group_size, int) and quant.group_size <= 64
    tries.append(group.format(max(1, int(quant.group_size or 0) // 2) if small else 64))
    if quant.q < 8:
        tries.append(bits.format(quant.q + 1))
    said = tries[0] if len(tries) == 1 else f"{', '.join(tries[:-1])} or {tries[-1]}"
    return f"a backbone from `alphatune quantize` with {said}" if given else said
