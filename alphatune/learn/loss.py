"""The training loss: token cross-entropy over the target, computed only where there are labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alphatune.learn.batches import IGNORED


def token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [n, vocabulary] and labels [n] at the n positions of the batch that have a label.

    The decoder runs on everything, but only the hidden states that predict a label go through the LM head: the head
    is a large part of a small model's work, and most positions are context or padding.
    """
    inner: Any = getattr(model, "get_base_model", lambda: model)()  # the transformers model inside a peft one
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    hidden = inner.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)[0]
    logits = inner.get_output_embeddings()(hidden[:, :-1][wanted])
    return _cap(logits, inner.config), labels[wanted]


def language_loss(model: nn.Module, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats over the label tokens of the batch."""
    logits, labels = token_losses(model, batch)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def classification_loss(model: nn.Module, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over classes, or mean squared error for float labels (STS-B)."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits.float(), batch["labels"]
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels.float())
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def _cap(logits: Tensor, config: Any) -> Tensor:
    """Gemma's and others' last step on logits, which their forward applies after the LM head."""
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
