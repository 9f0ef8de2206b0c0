"""What the examples share: a small random GPT-2 that reads bytes, or the model in the folder that is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

WEATHER = ["rain in the north, sun in the south", "fog in the west, snow in the east", "sun in the north, rain"]
KITCHEN = ["two eggs, a cup of milk, salt", "one onion, two carrots, salt", "a cup of rice, one onion, oil"]


def load() -> tuple[Any, Callable[[list[str]], Tensor]]:
    """A dense causal language model, and what turns texts into a batch of token ids of one length."""
    torch.manual_seed(0)
    if len(sys.argv) > 1:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
        return model, lambda texts: _stack([tokenizer(text).input_ids for text in texts])
    config = GPT2Config(vocab_size=256, n_embd=64, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config), lambda texts: _stack([list(text.encode()) for text in texts])


def train(model: Any, ids: Tensor, steps: int = 30) -> tuple[float, float]:
    """The loss before and after some steps of AdamW on whatever of `model` is trainable."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses[0], losses[-1]


def _stack(rows: list[list[int]]) -> Tensor:
    return torch.tensor([row[: min(map(len, rows))] for row in rows])
