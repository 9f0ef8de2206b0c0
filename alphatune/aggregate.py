"""Records to numbers: the mean over seeds, its 95 % t-interval, and what became of a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy import stats

from alphatune.experiment import Claim
from alphatune.values import of_record

Records = dict[int, dict[str, Any]]  # seed -> record


@dataclass(frozen=True)
class Mean:
    """Mean of n runs with the half width of its 95 % t-interval (None for one run)."""

    mean: float
    ci95: float | None
    n: int


@dataclass(frozen=True)
class Verdict:
    """What the records say of a claim."""

    claim: Claim
    outcome: str  # "came out", "did not come out", "undecided"
    difference: Mean | None  # left - right over the seeds that both have


def mean(values: list[float]) -> Mean | None:
    """Mean and 95 % t-interval; None without values."""
    if not values:
        return None
    n, average = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Mean(average, None, 1)
    if len(set(values)) == 1:
        return Mean(values[0], 0.0, n)  # exactly: the mean of equal floats may be off by a rounding
    variance = math.fsum((v - average) ** 2 for v in values) / (n - 1)
    return Mean(average, float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n), n)


def column(records: Records, key: str) -> Mean | None:
    """A cell: the mean over the seeds that have a value."""
    values = [of_record(r, key) for r in records.values()]
    return mean([v for v in values if v is not None])


def judge(claim: Claim, left: Records, right: Records) -> Verdict:
    """Decide a claim on the seeds that both rows have; fewer than two seeds decide nothing."""
    pairs = [
        (of_record(left[s], claim.metric), of_record(right[s], claim.metric))
        for s in sorted(left.keys() & right.keys())
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    difference = mean(differences)
    if difference is None or difference.n < 2:
        return Verdict(claim, "undecided", difference)
    if claim.kind == "close":
        holds = abs(difference.mean) <= claim.margin
    else:
        holds = difference.mean >= claim.margin and min(differences) > 0
    return Verdict(claim, "came out" if holds else "did not come out", difference)
