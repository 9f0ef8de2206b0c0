"""What a metric is: a name, a way to score groups of inputs of a corpus, and a signature that says how it was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alphatune.metrics.corpus import Corpus, Texts

Groups = Sequence[Sequence[int]]
"""Positions of the inputs of each group that gets a score of its own."""


@dataclass(frozen=True)
class Metric:
    """One metric on texts.

    `compute` gives one value per group; what is slow per input is done once for all groups. `signature` names the
    recipe, the tool and its version. Both may raise `alphatune.metrics.outside.unavailable.Unavailable`, and neither
    imports its tool before it is called.
    """

    name: str
    compute: Callable[[Corpus, Groups], list[float]]
    signature: Callable[[], str]
    caveat: Callable[[Corpus], str] = lambda corpus: ""  # one line that must be known about such texts' scores
    external: bool = False  # waits for a Java program: these run one after another, beside the rest
    summed: bool = False  # a group's value follows from sums over its inputs, so that thousands of groups cost little


def means(values: Sequence[float], groups: Groups) -> list[float]:
    """The mean of the per-input `values` over each group."""
    return [float(sum(values[row] for row in rows) / len(rows)) for rows in groups]


def take(texts: Texts, rows: Sequence[int]) -> Texts:
    """The texts of some inputs."""
    return Texts([texts.hypotheses[row] for row in rows], [texts.references[row] for row in rows])
