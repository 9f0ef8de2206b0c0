"""Differences of two systems over draws of the inputs, against sacrebleu's own paired bootstrap."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from alphatune.errors import UserError
from alphatune.metrics import bootstrap, score

WORDS = ["the", "a", "pub", "cafe", "near", "river", "cheap", "food", "serves", "city", "in"]


def _systems(inputs: int) -> tuple[list[str], list[str], list[list[str]]]:
    draw = random.Random(1)
    references = [[" ".join(draw.choices(WORDS, k=draw.randint(6, 12))) for _ in range(2)] for _ in range(inputs)]

    def damaged(share: float) -> list[str]:
        words = [[draw.choice(WORDS) if draw.random() < share else w for w in refs[0].split()] for refs in references]
        return [" ".join(each) for each in words]

    return damaged(0.2), damaged(0.35), references


def test_the_interval_is_that_of_sacrebleus_draws() -> None:
    first, second, references = _systems(80)
    found = bootstrap.paired(["bleu_e2e"], first, second, references, draws=2000)["all"]["bleu_e2e"]
    scores = [score(["bleu_e2e"], texts, references).values["all"]["bleu_e2e"].value for texts in (first, second)]
    assert found.value == scores[0] - scores[1]
    streams = [list(stream) for stream in zip(*references, strict=True)]
    bleu = BLEU(smooth_method="none", tokenize="13a", lowercase=True, references=streams)
    draws = np.random.default_rng(5).choice(80, size=(2000, 80))
    statistics = [np.array(bleu._extract_corpus_statistics(texts, None)) for texts in (first, second)]
    values = [[bleu._compute_score_from_stats(s[rows].sum(0).tolist()).score for rows in draws] for s in statistics]
    low, high = np.percentile(np.subtract(*values), [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.6) and found.high == pytest.approx(high, abs=0.6)  # other draws
    tested = PairedTest(
        [("b", second), ("a", first)], {"BLEU": bleu}, references=None, test_type="bs", n_samples=2000
    )()
    assert (tested[1]["BLEU"][1].p_value < 0.05) == (found.low > 0)


def test_a_system_differs_from_itself_by_nothing_and_turned_round_by_the_opposite() -> None:
    first, second, references = _systems(30)
    metrics = ["bleu", "ter", "rougeL"]
    for difference in bootstrap.paired(metrics, first, first, references, draws=100)["all"].values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    one = bootstrap.paired(metrics, first, second, references, draws=200, seed=3)["all"]
    other = bootstrap.paired(metrics, second, first, references, draws=200, seed=3)["all"]
    for name in metrics:
        assert one[name].value == -other[name].value
        assert one[name].low == pytest.approx(-other[name].high)


def test_inputs_are_drawn_within_their_subset() -> None:
    first, second, references = _systems(20)
    second[10:] = first[10:]
    subsets = ["x"] * 10 + ["y"] * 10
    found = bootstrap.paired(["bleu"], first, second, references, subsets=subsets, draws=100)
    assert (found["y"]["bleu"].low, found["y"]["bleu"].high) == (0, 0)
    assert found["x"]["bleu"].low < found["x"]["bleu"].value < found["x"]["bleu"].high


def test_what_cannot_be_drawn_is_refused() -> None:
    first, second, references = _systems(5)
    with pytest.raises(UserError, match="nist: no sum over inputs, so no draws of them; choose from bleu, "):
        bootstrap.paired(["nist"], first, second, references)
    with pytest.raises(UserError, match="99 draws: at least 100"):
        bootstrap.paired(["bleu"], first, second, references, draws=99)
    with pytest.raises(UserError, match="4 hypotheses but 5 inputs"):
        bootstrap.paired(["bleu"], first, second[:4], references)
