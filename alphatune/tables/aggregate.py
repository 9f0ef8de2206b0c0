"""Records to numbers: the mean over seeds, its 95 % t-interval, and what became of a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy import special

from alphatune.tables.experiment import Column, Statement
from alphatune.tables.values import name_of, of_record

Records = dict[int, dict[str, Any]]  # seed -> record
REPRODUCED, NOT, UNDECIDED, NOT_RUN = "reproduced", "not reproduced", "undecided", "not run"


@dataclass(frozen=True)
class Mean:
    """Mean of n runs with the half width of its 95 % t-interval (None for one run)."""

    mean: float
    ci95: float | None
    n: int

    @property
    def signed(self) -> str:
        """As a difference, e.g. "-2.1 ± 0.6": two significant digits of the half width, for both numbers."""
        if not self.ci95:
            return f"{self.mean:+.3g}" + ("" if self.ci95 is None else " ± 0")
        digits = max(0, 1 - math.floor(math.log10(self.ci95)))
        return f"{round(self.mean, digits) + 0.0:+.{digits}f} ± {self.ci95:.{digits}f}"


@dataclass(frozen=True)
class Verdict:
    """What the records say of a table's own statement."""

    claim: Statement
    outcome: str  # REPRODUCED, NOT, UNDECIDED or NOT_RUN
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
    return Mean(average, float(special.stdtrit(n - 1, 0.975)) * math.sqrt(variance / n), n)


def column(records: Records, key: str) -> Mean | None:
    """A cell: the mean over the seeds that have a value."""
    values = [of_record(r, key) for r in records.values()]
    return mean([v for v in values if v is not None])


def decide(difference: Mean | None, kind: str, margin: float) -> str:
    """The verdict that the 95 % t-interval of paired differences allows.

    "above": reproduced if the whole interval lies above `margin`, not reproduced if none of it does. "close":
    reproduced if the whole interval lies within -`margin` to `margin`, not reproduced if it lies outside. Everything
    else is undecided, and so is the difference of one seed, or what is close to nothing; without a difference nothing
    was run.
    """
    if difference is None:
        return NOT_RUN
    if difference.ci95 is None or (kind == "close" and margin == 0):
        return UNDECIDED
    low, high = difference.mean - difference.ci95, difference.mean + difference.ci95
    if kind == "above":
        return REPRODUCED if low > margin else NOT if high <= margin else UNDECIDED
    if low >= -margin and high <= margin:
        return REPRODUCED
    return NOT if low > margin or high < -margin else UNDECIDED


def difference(left: Records, right: Records, key: str, scale: float = 1.0) -> Mean | None:
    """Mean of left - right over the seeds for which both have the value."""
    pairs = [(of_record(left[s], key), of_record(right[s], key)) for s in sorted(left.keys() & right.keys())]
    return mean([(a - b) * scale for a, b in pairs if a is not None and b is not None])


def judge(claim: Statement, column: Column, left: Records, right: Records) -> Verdict:
    """Decide a table's own statement on the seeds that both rows have, in the unit of its column."""
    found = difference(left, right, name_of(column), column.scale)
    return Verdict(claim, decide(found, claim.kind, claim.margin), found)
