"""BLEU: invariants, and what the recipes do to a text and to missing references."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from alphatune.metrics import score
from alphatune.metrics.corpus import normalise

vocabulary = st.sampled_from(["a", "b", "c", "d", "e", "(", ")", ",", ".", "3.5", "Ein", "É"])
words = st.lists(vocabulary, min_size=4, max_size=12).map(" ".join)
texts = st.lists(words, min_size=1, max_size=6)
pairs = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=2, max_size=6)


def value(metric: str, hypotheses: list[str], references: list[list[str]]) -> float:
    return score([metric], hypotheses, references).values["all"][metric].value


@pytest.mark.parametrize("metric", ["bleu", "bleu_dart", "bleu_e2e"])
@settings(max_examples=50, deadline=None)
@given(hypotheses=texts)
def test_a_text_against_itself_is_100(metric: str, hypotheses: list[str]) -> None:
    assert value(metric, hypotheses, [[text] for text in hypotheses]) == pytest.approx(100.0)


@pytest.mark.parametrize("metric", ["bleu", "bleu_dart", "bleu_e2e"])
@settings(max_examples=50, deadline=None)
@given(pairs=pairs, seed=st.integers())
def test_the_order_of_inputs_does_not_matter(metric: str, pairs: list[tuple[str, list[str]]], seed: int) -> None:
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    first, second = (value(metric, [h for h, _ in p], [r for _, r in p]) for p in (pairs, shuffled))
    assert first == pytest.approx(second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs 3.50£!", "it costs 3 . 50 £ !"),
        ("  A_b\tc\u00a0d\n", "a_b c d"),
        ("Ünal's (née X)", "ünal ' s ( née x )"),
        ("", ""),
    ],
)
def test_normalise_lowers_and_splits_at_non_word_characters(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_webnlg_bleu_knows_no_case_but_is_computed_on_normalised_texts() -> None:
    assert value("bleu", ["A CAT sat on the Mat."], [["a cat sat on the mat ."]]) == pytest.approx(100.0)


def test_webnlg_bleu_looks_at_six_references() -> None:
    others = [f"nothing of that kind {n}" for n in range(6)]
    text = "one two three four five"
    assert value("bleu", [text], [[*others, text]]) == 0.0
    assert value("bleu", [text], [[*others[:5], text]]) == pytest.approx(100.0)


def test_repeating_a_reference_for_a_missing_one_changes_nothing() -> None:
    hypotheses = ["a cat sat on the mat today", "the dog barked at the mat"]
    references = [["a cat sat on a mat", "on the mat sat a cat"], ["the dog barked at it"]]
    padded = [references[0], references[1] * 2]
    assert value("bleu", hypotheses, references) == value("bleu", hypotheses, padded)


@pytest.mark.parametrize("metric", ["bleu", "bleu_dart", "bleu_e2e"])
def test_empty_hypotheses_score_zero(metric: str) -> None:
    assert value(metric, ["", ""], [["a b c d"], ["e f g h"]]) == 0.0


@pytest.mark.parametrize("metric", ["length", "length_e2e"])
def test_lengths_are_those_that_the_brevity_penalty_compares(metric: str) -> None:
    # words that match wherever they stand leave nothing in BLEU but the penalty
    references = [["a b c d e f g h", "a b c d e"], ["k l m n o p q r s t"]]
    texts = ["a b c d e f", "k l m n o"]  # the closest references have 5 and 10 words
    assert value(metric, texts, references) == pytest.approx(11 / 15)
    assert value("bleu_e2e", texts, references) == pytest.approx(100 * math.exp(1 - 15 / 11))


def test_lengths_are_those_of_sacrebleu() -> None:
    texts, references = ["It costs 3.50, no?", "Yes"], [["It is 3.50.", "It costs little"], ["No, not at all"]]
    theirs = BLEU(lowercase=True).corpus_score(texts, [[references[0][0], references[1][0]], [references[0][1], None]])
    assert value("length_e2e", texts, references) == pytest.approx(theirs.sys_len / theirs.ref_len)
