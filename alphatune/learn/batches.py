"""Examples to padded tensors: tokenise, mask, truncate, bucket by length.

Sequence layout of generation tasks (as the LoRA files have it): BPE(context) + [sep] + BPE(" " + target) + [end],
where sep and end are both the tokenizer's end token (50256 for GPT-2). The loss covers target and end only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

from alphatune.config import Task
from alphatune.data.example import Example

IGNORED = -100  # label of a position without loss


@dataclass(frozen=True)
class Item:
    """One tokenised training or evaluation sequence; `labels` is a list for generation, a number for classification."""

    input_ids: list[int]
    labels: list[int] | int | float
    token_type_ids: list[int] | None = None


@dataclass
class Counts:
    """What tokenising had to cut; goes into the record."""

    truncated_contexts: int = 0
    truncated_targets: int = 0


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that separates context from target and ends a target."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token")
    return int(tokenizer.eos_token_id)


def context_ids(text: str, tokenizer: PreTrainedTokenizerBase, task: Task, counts: Counts) -> list[int]:
    """A generation task's prompt: the context, cut from its left to `task.max_context` tokens, and the separator."""
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > task.max_context:
        counts.truncated_contexts += 1
        ids = ids[-task.max_context :]
    return [*ids, end_token(tokenizer)]


def training_items(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, task: Task, counts: Counts
) -> list[Item]:
    """One item per (context, target) pair, or per sentence pair of a classification task."""
    if task.kind == "classification":
        return [classification_item(e, tokenizer, task, counts) for e in examples]
    items = []
    for example in examples:
        context = context_ids(example.text, tokenizer, task, counts)
        for target in example.targets:
            ids = list(tokenizer(" " + target, add_special_tokens=False)["input_ids"])
            if len(ids) > task.max_target:
                counts.truncated_targets += 1
                ids = ids[: task.max_target]
            ids.append(end_token(tokenizer))
            items.append(Item(context + ids, [IGNORED] * len(context) + ids))
    return items


def classification_item(example: Example, tokenizer: PreTrainedTokenizerBase, task: Task, counts: Counts) -> Item:
    """A sentence or sentence pair with its label; the longer sentence is cut first, from the right."""
    encoded = tokenizer(example.text, example.text_pair)
    if len(encoded["input_ids"]) > task.max_context:
        counts.truncated_contexts += 1
        encoded = tokenizer(example.text, example.text_pair, truncation=True, max_length=task.max_context)
    label = example.label if example.label is not None else IGNORED
    return Item(list(encoded["input_ids"]), label, encoded.get("token_type_ids"))


def collate(items: Sequence[Item], pad_token: int) -> dict[str, Tensor]:
    """Right-padded tensors: input_ids and attention_mask [B, T], labels [B, T] or [B]."""
    length = max(len(item.input_ids) for item in items)

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])

    batch = {
        "input_ids": padded([i.input_ids for i in items], pad_token),
        "attention_mask": padded([[1] * len(i.input_ids) for i in items], 0),
    }
    if isinstance(items[0].labels, list):
        batch["labels"] = padded([i.labels for i in items], IGNORED)  # type: ignore[misc]
    else:
        batch["labels"] = torch.tensor([i.labels for i in items])
    if all(i.token_type_ids is not None for i in items):
        batch["token_type_ids"] = padded([i.token_type_ids for i in items], 0)  # type: ignore[misc]
    return batch


class BucketedBatches(Sampler[list[int]]):
    """Index batches of a whole training run, epoch after epoch.

    Each epoch is a seeded shuffle, cut into windows of many batches, each window sorted by length: batches hold
    sequences of like length, in random order. One flat sequence for all epochs makes resuming a matter of skipping.
    """

    WINDOW = 50  # batches sorted together

    def __init__(self, lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> None:
        self.lengths, self.batch_size, self.steps, self.seed = lengths, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        done, epoch = 0, 0
        while done < self.steps:
            for batch in self._epoch(epoch)[: self.steps - done]:
                yield batch
                done += 1
            epoch += 1

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed}/{epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        window = self.batch_size * self.WINDOW
        batches = []
        for start in range(0, len(order), window):
            chunk = sorted(order[start : start + window], key=lambda i: self.lengths[i])
            batches += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        rng.shuffle(batches)
        return batches


def steps_of(items: int, batch_size: int, epochs: float) -> int:
    """Optimiser steps of `epochs` passes: epochs * ceil(N / batch), at least one."""
    return max(1, round(epochs * math.ceil(items / batch_size)))


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Any]:
    """The batch on `device`."""
    return {name: value.to(device) for name, value in batch.items()}
