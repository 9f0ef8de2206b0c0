"""NIST: tokens, length penalties and texts without words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.metrics.nist import nist, nist_nltk, nist_perl, tokenize
from alphatune.metrics.outside.unavailable import Unavailable

words = st.lists(st.sampled_from(["a", "b", "c", "d", "0", ".", "3,5", "É"]), max_size=8).map(" ".join)
pairs = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5)
FUNCTIONS = [nist, nist_perl]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rated 3.5 , i.e. 1,200-fold (x-y)!", "Rated 3.5 , i . e . 1,200 - fold ( x-y ) !"),
        ("&quot;a&amp;b&quot; <skipped>£5", '" a & b " £5'),
        ("  ", ""),
    ],
)
def test_tokenize_is_mteval_13a(text: str, expected: str) -> None:
    assert tokenize(text) == expected.split()


@settings(max_examples=50, deadline=None)
@given(text=words)
def test_tokenize_is_sacrebleus_13a(text: str) -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    assert " ".join(tokenize(text)) == Tokenizer13a()(text)


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=50, deadline=None)
@given(pairs=pairs)
def test_the_order_of_inputs_does_not_matter(function, pairs) -> None:  # type: ignore[no-untyped-def]
    first, second = (function([h for h, _ in p], [r for _, r in p]) for p in (pairs, pairs[::-1]))
    assert math.isfinite(first)
    assert first == pytest.approx(second)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_texts_without_a_word_score_zero(function) -> None:  # type: ignore[no-untyped-def]
    assert function(["", ""], [["a b"], ["c"]]) == 0.0


def test_nltks_is_another_number_and_not_defined_for_very_short_texts() -> None:
    pytest.importorskip("nltk")
    hypotheses, references = ["a b c d e f", "b c d e f"], [["a b c d e f g", "a b c"], ["b c d e f a"]]
    assert 0 < nist_nltk(hypotheses, references) != pytest.approx(nist(hypotheses, references))
    with pytest.raises(Unavailable, match="divides by zero"):
        nist_nltk(["a b"], [["a b c d e f"]])


def test_the_two_length_penalties_differ_where_inputs_have_different_numbers_of_references() -> None:
    hypotheses = ["a b c", "d e f g h"]
    references = [["a b c d", "a b c e", "a b c f"], ["d e f g h i j k l m"]]
    assert nist(hypotheses, references) < nist_perl(hypotheses, references)
    equal = [["a b c d"], ["d e f g h i j k l m"]]
    assert nist(hypotheses, equal) == pytest.approx(nist_perl(hypotheses, equal))


def test_case_is_ignored() -> None:
    assert nist(["The Cat sat ."], [["the cat SAT ."]]) == nist(["the cat sat ."], [["the cat sat ."]])
