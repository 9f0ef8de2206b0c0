"""From (context, text) pairs to examples, as the LoRA scripts do it.

Training takes every pair by itself, in file order. Evaluation decodes each context once, in order of first
appearance, and scores it against all its texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from alphatune.data.example import Dataset, Example
from alphatune.data.fields import Field
from alphatune.data.source import Source

FORMATTED = {"train": "train_formatted.jsonl", "validation": "valid_formatted.jsonl", "test": "test_formatted.jsonl"}


@dataclass(frozen=True)
class Pair:
    """One context with one of its texts."""

    text: str
    target: str
    subset: str = "all"


def empty_note(split: str) -> str:
    """The note under which dropped empty texts of a split are counted."""
    return f"{split}: empty texts dropped"


def dataset(source: Source, pairs: dict[str, list[Pair]]) -> Dataset:
    """The data set of the pairs of "train", "validation" and "test"; pairs with an empty text are dropped and noted."""
    kept = {}
    for split, all_pairs in pairs.items():
        kept[split] = [p for p in all_pairs if p.target.strip()]
        source.note(empty_note(split), len(all_pairs) - len(kept[split]))
    train = [Example(f"train-{i}", p.text, (p.target,), p.subset) for i, p in enumerate(kept["train"])]
    return source.dataset(train, grouped(kept["validation"], "validation"), grouped(kept["test"], "test"))


def grouped(pairs: list[Pair], split: str) -> list[Example]:
    """One example per distinct context. A context in two subsets counts for the one it was first seen in."""
    targets: dict[str, list[str]] = {}
    subsets: dict[str, str] = {}
    for pair in pairs:
        targets.setdefault(pair.text, []).append(pair.target)
        subsets.setdefault(pair.text, pair.subset)
    return [Example(f"{split}-{i}", text, tuple(t), subsets[text]) for i, (text, t) in enumerate(targets.items())]


def read_formatted(source: Source) -> dict[str, list[Pair]]:
    """The files that LoRA's `create_datasets.sh` makes: JSON lines with context, completion and, for WebNLG, cate.

    `cate` is true for a seen category. Token files (`train.jsonl`) are not read.

    Raises:
        UserError: a file is damaged.
    """
    pairs: dict[str, list[Pair]] = {}
    for split, name in FORMATTED.items():
        rows = [row for here in source.of(split, [name]) for row in source.jsonl(here)]
        pairs[split] = [Pair(row["context"].text(), row["completion"].text(), _subset(row)) for row in rows]
    return pairs


def _subset(row: Field) -> str:
    if "cate" not in row:
        return "all"
    return "seen" if row["cate"].flag() else "unseen"
