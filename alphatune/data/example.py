"""One input with everything that may be said about it, whatever the task."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """One input of a task.

    Generation tasks fill `targets`: a training example yields one (text, target) pair per target, an evaluation
    example is decoded once and scored against all its targets. Classification tasks fill `label`.
    """

    id: str
    text: str  # the context exactly as the model reads it, before tokenisation
    targets: tuple[str, ...] = ()  # references; empty for classification
    subset: str = "all"  # the group a score is broken down by, e.g. "seen" / "unseen"
    text_pair: str | None = None  # the second sentence of a sentence-pair task
    label: int | float | None = None  # class index, or the score of a regression task


@dataclass(frozen=True)
class Dataset:
    """The three splits of a task and where they came from."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    files: dict[str, str] = field(default_factory=dict)  # file name -> sha256 of its bytes
    notes: dict[str, int] = field(default_factory=dict)  # what reading found, e.g. {"empty targets dropped": 5}
    labels: list[str] = field(default_factory=list)  # the classes of a user's own task, in index order

    def split(self, name: str) -> list[Example]:
        """The examples of split `name` ("train", "validation" or "test")."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def limited(examples: list[Example], limit: int | None) -> list[Example]:
    """The first `limit` of a fixed shuffle, in their own order; without a limit, all."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = set(random.Random(0).sample(range(len(examples)), limit))
    return [e for i, e in enumerate(examples) if i in chosen]
