"""One run on several processes, as torchrun starts them: who leads, who follows, which part of the work is whose.

Process 0 leads: it does all of a run as if it were alone, and alone makes artefacts. The others wait for its word at
the meeting point of torchrun's, without a limit of time, and take part in training, validation and decoding. In
training, each process computes the loss of its share of the same global batch, weighted so that the mean over processes
is the mean over the batch; batches that are validated or decoded are those of one process, and dealt out whole.
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

TRAIN, VALIDATE, MEASURE, DECODE, DONE = "train", "validate", "measure", "decode", "done"  # words of the leader
WEIGHT = "share_weight"  # of a batch: what the mean loss of a share counts
_EVER = timedelta(days=365)


def rank() -> int:
    """This process's number, 0 for the one that leads or is alone."""
    return process()[0]


def size() -> int:
    """How many processes there are."""
    return process()[1]


class Words:
    """What the leader says, in order; everyone hears every word once. After a word, all may tell one another."""

    def __init__(self) -> None:
        self.count = self.rounds = 0

    def say(self, word: str) -> None:
        """Say it to the others; without others nothing happens."""
        if size() > 1:
            _meeting_point().set(str(self.count), word)
            self._next()

    def hear(self) -> str:
        """The next word, waited for as long as the leader is there."""
        key = str(self.count)
        _meeting_point().wait([key], _EVER)
        self._next()
        return str(_meeting_point().get(key).decode())

    def agreed(self, find: Callable[[], str]) -> str:
        """What the leader finds, on every process."""
        if rank() > 0:
            return self.hear()
        found = find()
        self.say(found)
        return found

    def gathered(self, mine: str) -> list[str]:
        """What every process tells, by its number; waited for as long as they are there."""
        if size() == 1:
            return [mine]
        keys = [f"{self.count}/{self.rounds}/{number}" for number in range(size())]
        self.rounds += 1
        _meeting_point().set(keys[rank()], mine)
        _meeting_point().wait(keys, _EVER)
        return [_meeting_point().get(key).decode() for key in keys]

    def _next(self) -> None:
        self.count, self.rounds = self.count + 1, 0


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


class Root(nn.Module):
    """A model in whose forward any function of it runs: what parallel training wraps must be called as a whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], batch: dict[str, Tensor], *more: Any) -> Tensor:
        """`function(model, batch, *more)`, weighted where the batch is a share."""
        weight = batch.pop(WEIGHT, None)
        found = function(self.model, batch, *more)
        return found if weight is None else found * weight


def parallel(model: nn.Module) -> nn.Module:
    """A `Root` of `model` whose gradients are averaged over the processes.

    Codes and other buffers are not sent at each step. Every step uses the same parameters, maybe not all.
    """
    return DistributedDataParallel(Root(model), broadcast_buffers=False, static_graph=True)


def reseed(step: int, seed: int) -> None:
    """What a follower drops out at a step follows from its number and the step: a resumed training repeats it."""
    if rank() > 0:
        torch.manual_seed(seed + (step * size() + rank()) * 1_000_003)


def is_parallel(model: Any) -> bool:
    """Whether this is what `parallel` made."""
    return isinstance(model, Root | DistributedDataParallel)
