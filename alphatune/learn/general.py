"""The loss of a language model on general text, which says what adaptation to a task cost elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from alphatune.errors import UserError


@torch.no_grad()
def loss(model: nn.Module, tokenizer: Any, texts: list[str]) -> float:
    """Mean nats per token of `texts`, each read alone; a paragraph's first token is only read.

    Raises:
        UserError: the texts are too short to measure anything.
    """
    wrapped: Any = model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for ids in _tokens(tokenizer, texts, getattr(wrapped.config, "max_position_embeddings", None)):
        logits = wrapped(input_ids=ids.to(device)).logits[0, :-1].float()
        total += float(nn.functional.cross_entropy(logits, ids[0, 1:].to(device), reduction="sum"))
        count += ids.shape[1] - 1
    if not count:
        raise UserError("the text has no paragraph of two tokens or more")
    if not math.isfinite(total):
        raise UserError("the model's loss is not finite: it is damaged")
    return total / count


def _tokens(tokenizer: Any, texts: list[str], limit: int | None) -> Iterator[torch.Tensor]:
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:limit]])
        if ids.shape[1] > 1:
            yield ids
