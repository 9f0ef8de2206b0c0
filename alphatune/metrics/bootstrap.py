"""How far the difference of two systems would move with other inputs: paired bootstrap resampling (Koehn 2004).

Inputs are drawn with replacement, the same for both systems, and each draw is scored as a whole. What seeds of training
would change is another question, which this does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alphatune.errors import UserError
from alphatune.metrics import TEXT_METRICS, groups_of
from alphatune.metrics.corpus import Corpus

COMPARABLE = [metric.name for metric in TEXT_METRICS.values() if metric.summed]


@dataclass(frozen=True)
class Difference:
    """First less second on the inputs as they are, and the middle 95 % of it over the draws."""

    value: float
    low: float
    high: float


def paired(
    metrics: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    subsets: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
    jobs: int = 1,
) -> dict[str, dict[str, Difference]]:
    """Group ("all", then the subsets) -> metric -> difference of two systems on the same inputs.

    Args:
        metrics: names of `COMPARABLE`: others would have to be worked out anew for every draw.
        first, second: one text per input.
        references: one or more texts per input.
        subsets: the subset of each input; inputs are drawn within it.
        draws: how many; at least 100, below which the ends of an interval say nothing.
        seed: of the draws.
        jobs: worker processes of TER.

    Raises:
        UserError: another metric, another number of texts than of inputs, or too few draws.
    """
    for name in metrics:
        if name not in COMPARABLE:
            raise UserError(f"{name}: no sum over inputs, so no draws of them; choose from {', '.join(COMPARABLE)}")
    check_draws(draws)
    names, groups = groups_of(len(references), subsets)
    generator = np.random.default_rng(seed)
    drawn = [each for rows in groups for each in (rows, *generator.choice(rows, (draws, len(rows))).tolist())]
    corpora = [Corpus.of(texts, references, jobs) for texts in (first, second)]
    found: dict[str, dict[str, Difference]] = {name: {} for name in names}
    for metric in metrics:
        one, other = (TEXT_METRICS[metric].compute(corpus, drawn) for corpus in corpora)
        for name, part in zip(names, np.split(np.subtract(one, other), len(names)), strict=True):
            low, high = np.percentile(part[1:], [2.5, 97.5])
            found[name][metric] = Difference(float(part[0]), float(low), float(high))
    return found


def check_draws(draws: int) -> None:
    """Refuse too few draws for an interval.

    Raises:
        UserError: fewer than 100.
    """
    if draws < 100:
        raise UserError(f"{draws} draws: at least 100, or the ends of an interval say nothing")
