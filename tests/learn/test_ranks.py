"""Shares of a batch: the mean over processes of their weighted losses is the mean loss of the whole batch."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from alphatune.learn import batches, ranks
from alphatune.learn.batches import IGNORED, Item

COLLATE = partial(batches.collate, pad_token=0)


class _Known(nn.Module):
    """A "model" whose loss at a position is looked up by its token: the right mean can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(50.0).square())


def _language(model: Any, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    labels = batch["labels"][:, 1:]
    return model.table[labels[labels != IGNORED]].mean()


def _classes(model: Any, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    return model.table[batch["labels"].long()].mean()


def _items(count: int, kind: str) -> list[Item]:
    draw = random.Random(count)
    found = []
    for _ in range(count):
        ids = [draw.randrange(1, 50) for _ in range(draw.randrange(3, 12))]
        if kind == "language":
            found.append(Item(ids, [IGNORED, IGNORED, *ids[2:]]))
        else:
            label = draw.randrange(50)
            found.append(Item(ids, label if kind == "classes" else label / 1))
    return found


@pytest.mark.parametrize("kind", ["language", "classes", "numbers"])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shares_add_up_to_the_batch(kind: str, count: int, processes: int) -> None:
    items = _items(count, kind)
    labels = [x for i in items for x in (i.labels[2:] if isinstance(i.labels, list) else [int(i.labels)])]
    mean = sum(label**2 for label in labels) / len(labels)
    gradient = torch.zeros(50)
    for label in labels:
        gradient[label] += 1 / len(labels)
    model = _Known()
    wrapped, loss_of = ranks.Root(model), _language if kind == "language" else _classes
    losses = []
    for number in range(processes):
        batch = ranks._share(items, collate=COLLATE, number=number, of=processes)
        loss = wrapped(loss_of, batch, 0.0) / processes
        loss.backward()
        losses.append(loss.item())
    assert sum(losses) == pytest.approx(mean, rel=1e-6)
    assert torch.allclose(model.table.grad, gradient, atol=1e-6)  # type: ignore[arg-type]


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ranks.rank(), ranks.size()) == (0, 1)
    assert ranks.shared(COLLATE) is COLLATE
    ranks.words.say("anything")  # nobody is there to hear it, and nothing is waited for
    assert ranks.words.agreed(lambda: "found") == "found" and ranks.words.count == 0
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.size()) == (1, 2)
    shares = [ranks.shared(COLLATE)(_items(4, "classes"))["input_ids"].shape[0]]
    assert shares == [2]


def test_followers_drop_out_other_units_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    drawn = []
    for step in (1, 2, 1):
        ranks.reseed(step, seed=3)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
