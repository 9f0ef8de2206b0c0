"""The training loss: token cross-entropy over the target, computed only where there are labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alphatune.errors import UserError
from alphatune.learn.batches import IGNORED

_CHECKED = 8  # tokens looked at


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
    return _finished(logits, inner.config), labels[wanted]


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


def _finished(logits: Tensor, config: Any) -> Tensor:
    """The last steps of Gemma, Granite, Cohere and others on logits, which their forward takes after the LM head."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.no_grad()
def check_logits(model: nn.Module, tokens: list[int]) -> None:
    """Refuse a model whose forward does something to its logits that `token_losses` does not know.

    Raises:
        UserError: the two disagree on the first few of `tokens`.
    """
    inner: Any = getattr(model, "get_base_model", lambda: model)()
    ids = torch.tensor([tokens[:_CHECKED]], device=next(model.parameters()).device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    training = model.training
    model.eval()
    ours, theirs = token_losses(model, {**batch, "labels": ids})[0].float(), inner(**batch).logits[0, :-1].float()
    model.train(training)
    if float((ours - theirs).norm()) > 0.05 * float(theirs.norm()):  # far above what half precision rounds
        raise UserError(
            f"{type(inner).__name__}: changes logits after its LM head in a way that training does not know"
        )
