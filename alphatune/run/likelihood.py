"""The loss of a finished model on the references of the texts that it is scored on: the metric `loss`.

Scores of decoded texts rank, after little training, how long the texts are. How likely a model holds the references to
be does not depend on that, costs a fraction of beam search, and is had for each subset: the validation split of WebNLG
has no unseen categories, its test split has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from alphatune.config import LOSS, Config
from alphatune.data.example import Example
from alphatune.learn import batches, train
from alphatune.metrics import ALL

Values = dict[str, dict[str, dict[str, Any]]]  # as scores are kept: group -> metric -> value and signature


def measure(
    model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, counts: batches.Counts
) -> Values:
    """Mean loss over the target tokens (or examples) of all of `examples` and of each subset, without label smoothing.

    An input counts with each of its references. Every process of a run calls this and takes its part of the batches.
    `counts` receives what was cut.
    """
    collate = partial(batches.collate, pad_token=int(tokenizer.pad_token_id))
    groups = dict.fromkeys(e.subset for e in examples) if config.task.subsets else {ALL: None}
    losses, total, tokens = dict[str, float](), 0.0, 0
    for group in groups:
        chosen = [e for e in examples if not config.task.subsets or e.subset == group]
        items = batches.training_items(chosen, tokenizer, config.task, counts)
        count = sum(map(_counted, items))
        losses[group] = train.validation_loss(model.eval(), items, config, collate, shared=True)
        total, tokens = total + losses[group] * count, tokens + count
    losses = {ALL: 0.0} | losses | {ALL: total / max(1, tokens)}  # first, and of all even where a subset is called so
    return {group: {LOSS: {"value": value, "signature": _unit(config)}} for group, value in losses.items()}


def _unit(config: Config) -> str:
    if config.task.kind == "classification":
        return "nats per example|smoothing:none" if config.task.labels else "squared error per example"
    return f"nats per token|targets:first {config.task.max_target}|smoothing:none"


def _counted(item: batches.Item) -> int:
    return sum(label != batches.IGNORED for label in item.labels) if isinstance(item.labels, list) else 1
