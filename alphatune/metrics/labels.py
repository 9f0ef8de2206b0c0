"""GLUE's scores of predicted labels, by scikit-learn and scipy, times 100."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alphatune.errors import UserError
from alphatune.metrics.outside.unavailable import Unavailable

Label = int | float | str


@dataclass(frozen=True)
class LabelMetric:
    """One metric on labels; `compute` may raise `Unavailable` where the value is not defined."""

    name: str
    compute: Callable[[Sequence[Label], Sequence[Label]], float]
    tool: str = ""  # the package whose version goes into the signature

    def signature(self) -> str:
        """Name, scale, tool and version."""
        import importlib.metadata

        tool = f"|{self.tool}:{importlib.metadata.version(self.tool)}" if self.tool else ""
        return f"{self.name}|x100{tool}"


def accuracy(predictions: Sequence[Label], labels: Sequence[Label]) -> float:
    """The share of equal labels, 0 to 100."""
    equal = sum(prediction == label for prediction, label in zip(predictions, labels, strict=True))
    return 100.0 * equal / len(labels)


def f1(predictions: Sequence[Label], labels: Sequence[Label]) -> float:
    """F1 of the class 1 (MRPC, QQP), 0 to 100; 0 where neither side has it.

    Raises:
        UserError: a label other than 0 and 1.
    """
    from sklearn.metrics import f1_score  # type: ignore[import-untyped]

    for value in (*labels, *predictions):
        if value not in (0, 1):
            raise UserError(f"f1 is of the classes 0 and 1, not {value!r}")
    return 100.0 * float(f1_score(list(map(int, labels)), list(map(int, predictions)), zero_division=0.0))


def matthews(predictions: Sequence[Label], labels: Sequence[Label]) -> float:
    """Matthews correlation (CoLA), -100 to 100; 0 where one side is constant, as scikit-learn has it."""
    from sklearn.metrics import matthews_corrcoef  # type: ignore[import-untyped]

    if len(set(labels)) < 2 or len(set(predictions)) < 2:
        return 0.0  # what scikit-learn returns too, after a warning
    return 100.0 * float(matthews_corrcoef(list(labels), list(predictions)))


def pearson(predictions: Sequence[Label], labels: Sequence[Label]) -> float:
    """Pearson correlation (STS-B), -100 to 100."""
    from scipy.stats import pearsonr  # type: ignore[import-untyped]

    return _defined("pearson", pearsonr(*_varied("pearson", predictions, labels)).statistic)


def spearman(predictions: Sequence[Label], labels: Sequence[Label]) -> float:
    """Spearman rank correlation (STS-B), -100 to 100."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    return _defined("spearman", spearmanr(*_varied("spearman", predictions, labels)).statistic)


def _varied(name: str, predictions: Sequence[Label], labels: Sequence[Label]) -> tuple[list[float], list[float]]:
    sides = [float(value) for value in predictions], [float(value) for value in labels]
    for side, what in zip(sides, ("predictions", "labels"), strict=True):
        if not all(map(math.isfinite, side)):
            raise Unavailable(f"{name} is not defined: nan or inf among the {what}")
        if len(set(side)) < 2:
            raise Unavailable(f"{name} is not defined: all {what} are equal")
    return sides


def _defined(name: str, correlation: float) -> float:
    if not math.isfinite(correlation):  # squares of huge numbers overflow
        raise Unavailable(f"{name} is not defined: the numbers are too large or too close to each other")
    return 100.0 * float(correlation)


METRICS = [
    LabelMetric("accuracy", accuracy),
    LabelMetric("f1", f1, "scikit-learn"),
    LabelMetric("matthews", matthews, "scikit-learn"),
    LabelMetric("pearson", pearson, "scipy"),
    LabelMetric("spearman", spearman, "scipy"),
]
"""The GLUE metrics."""
