"""Numbers as text."""

from __future__ import annotations


def count(number: float) -> str:
    """A number of parameters: 354.8M, 0.22M, 9216."""
    if number < 10_000:
        return f"{number:.0f}"
    digits = 1 if number >= 1e7 else 2 if number >= 1e5 else 3
    return f"{number / 1e6:.{digits}f}M"


def number(mean: float, ci95: float | None, digits: int) -> str:
    """A mean with the half width of its interval, e.g. "53.1 ± 0.4"; the mean alone where no interval is known.

    A half width of 0 is shown: seeds that agree exactly say more than one seed does.
    """
    text = f"{mean:.{digits}f}"
    return text if ci95 is None else f"{text} ± {ci95:.{digits}f}"
