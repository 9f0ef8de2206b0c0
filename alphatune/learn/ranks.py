"""One training on several processes, as torchrun starts them: who leads, who follows, which part of a batch is whose.

Process 0 leads: it does all of a run but the training as if it were alone, and alone writes. The others wait for its
word at the meeting point of torchrun's, without a limit of time, and take part in trainings only. Each process computes
the loss of its share of the same global batch, weighted so that the mean over processes is the mean over the batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import PrefixStore, rendezvous
from torch.nn.parallel import DistributedDataParallel

from alphatune.learn.batches import IGNORED, Item
from alphatune.terminal import process

TRAIN, DONE = "train", "done"  # words of the leader
WEIGHT = "share_weight"  # of a batch: what the mean loss of a share counts
_EVER = timedelta(days=365)


def rank() -> int:
    """This process's number, 0 for the one that leads or is alone."""
    return process()[0]


def size() -> int:
    """How many processes there are."""
    return process()[1]


class Words:
    """What the leader says, in order; everyone hears every word once."""

    def __init__(self) -> None:
        self.count = 0

    def say(self, word: str) -> None:
        """Say it to the others; without others nothing happens."""
        if size() > 1:
            _meeting_point().set(str(self.count), word)
            self.count += 1

    def hear(self) -> str:
        """The next word, waited for as long as the leader is there."""
        key = str(self.count)
        _meeting_point().wait([key], _EVER)
        self.count += 1
        return str(_meeting_point().get(key).decode())

    def agreed(self, find: Callable[[], str]) -> str:
        """What the leader finds, on every process."""
        if rank() > 0:
            return self.hear()
        found = find()
        self.say(found)
        return found


words = Words()


@cache
def _meeting_point() -> PrefixStore:
    store = next(iter(rendezvous("env://")))[0]
    return PrefixStore("alphatune", store)


def take_device() -> None:
    """Let "cuda" mean this process's own GPU."""
    if size() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def shared(collate: Callable[[Sequence[Item]], dict[str, Tensor]]) -> Callable[[Sequence[Item]], dict[str, Tensor]]:
    """`collate` of this process's share of a global batch; of the whole batch where there is one process."""
    return collate if size() == 1 else partial(_share, collate=collate, number=rank(), of=size())


def _share(items: Sequence[Item], collate: Callable[..., dict[str, Tensor]], number: int, of: int) -> dict[str, Tensor]:
    """Every `of`-th item from `number` on, and what their mean loss weighs: of * units of the share / units of all."""
    mine = items[number::of]
    weight = of * sum(map(_units, mine)) / sum(map(_units, items))
    return {**collate(mine or items[:1]), WEIGHT: torch.tensor(weight)}  # fewer items than processes: one that counts 0


def _units(item: Item) -> int:
    """What a mean loss is over: label tokens, or examples."""
    return sum(label != IGNORED for label in item.labels[1:]) if isinstance(item.labels, list) else 1


class _Loss(nn.Module):
    """A model whose forward is its loss: what parallel training wraps must be called as a whole."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: dict[str, Tensor], smoothing: float) -> Tensor:
        weight = batch.pop(WEIGHT, None)
        found = self.loss(self.model, batch, smoothing)
        return found if weight is None else found * weight


def parallel(model: nn.Module, loss: Callable[..., Tensor]) -> nn.Module:
    """The loss of `model` with gradients averaged over the processes.

    Codes and other buffers are not sent at each step. Every step uses the same parameters, maybe not all.
    """
    return DistributedDataParallel(_Loss(model, loss), broadcast_buffers=False, static_graph=True)


def reseed(step: int, seed: int) -> None:
    """What a follower drops out at a step follows from its number and the step: a resumed training repeats it."""
    if rank() > 0:
        torch.manual_seed(seed + (step * size() + rank()) * 1_000_003)


def is_parallel(model: Any) -> bool:
    """Whether this is what `parallel` made."""
    return isinstance(model, DistributedDataParallel)
