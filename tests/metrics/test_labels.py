"""GLUE's metrics, against their definitions computed by hand."""

from __future__ import annotations

import math

import pytest

from alphatune.errors import UserError
from alphatune.metrics import Scores, score_labels

LABELS = [1, 1, 1, 0, 0, 0, 0, 1]
PREDICTIONS = [1, 0, 1, 0, 1, 0, 0, 1]  # 3 true and 1 false positive, 1 missed, 3 true negatives


def value(scores: Scores, metric: str) -> float:
    return scores.values["all"][metric].value


def test_counts() -> None:
    scores = score_labels(["accuracy", "f1", "matthews"], PREDICTIONS, LABELS)
    assert value(scores, "accuracy") == 75.0
    assert value(scores, "f1") == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 1))
    assert value(scores, "matthews") == pytest.approx(100 * (3 * 3 - 1 * 1) / math.sqrt(4 * 4 * 4 * 4))
    assert "scikit-learn" in scores.values["all"]["f1"].signature


def test_correlations() -> None:
    scores = score_labels(["pearson", "spearman"], [0.0, 1.0, 2.0, 5.0], [0.0, 1.0, 2.0, 3.0])
    assert value(scores, "spearman") == pytest.approx(100.0)
    assert value(scores, "pearson") == pytest.approx(100 * 8 / math.sqrt(14 * 5))


def test_a_correlation_with_a_constant_is_absent_with_the_reason() -> None:
    scores = score_labels(["pearson"], [2.0, 2.0], [0.0, 1.0])
    assert scores.values == {"all": {}}
    assert scores.absent == {"pearson": "pearson is not defined: all predictions are equal"}


def test_a_constant_prediction_has_no_matthews_correlation_and_no_f1() -> None:
    scores = score_labels(["matthews", "f1"], [0, 0, 0], [0, 1, 1])
    assert value(scores, "matthews") == 0.0
    assert value(scores, "f1") == 0.0


def test_labels_may_be_names_where_only_equality_counts() -> None:
    scores = score_labels(["accuracy"], ["entailment", "neutral"], ["entailment", "entailment"])
    assert value(scores, "accuracy") == 50.0


def test_subsets() -> None:
    scores = score_labels(["accuracy"], [1, 1, 0], [1, 0, 0], subsets=["matched", "mismatched", "matched"])
    assert {name: row["accuracy"].value for name, row in scores.values.items()} == {
        "all": pytest.approx(200 / 3),
        "matched": 100.0,
        "mismatched": 0.0,
    }


@pytest.mark.parametrize(
    ("metrics", "predictions", "labels", "message"),
    [
        (["acuracy"], [1], [1], "unknown metric acuracy: must be one of: accuracy, f1"),
        (["accuracy"], [1], [1, 0], "1 predictions but 2 labels"),
        (["accuracy"], [], [], "nothing to score"),
        (["f1"], [2], [1], "f1 is of the classes 0 and 1, not 2"),
    ],
)
def test_mistakes_are_told(metrics, predictions, labels, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        score_labels(metrics, predictions, labels)
