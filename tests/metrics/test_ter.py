"""TER: our search is pyter's, and neither blocks nor the references beside it change a digit."""

from __future__ import annotations

import random

import pyter
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alphatune.metrics import score, ter
from alphatune.metrics.corpus import Texts

few_words = st.lists(st.sampled_from("abcd"), max_size=9)
some_words = st.lists(st.sampled_from("abcdefgh"), max_size=16)
references = st.one_of(few_words, some_words).filter(bool)


@settings(max_examples=500, deadline=None)
@given(hypothesis=st.one_of(few_words, some_words), reference=references)
@example(hypothesis=[], reference=["a"])
@example(hypothesis=["a", "b"], reference=["b", "c", "a"])  # the run is moved past the end
@example(hypothesis=list("abcabc"), reference=list("cbacba"))
def test_equals_pyter(hypothesis: list[str], reference: list[str]) -> None:
    assert ter.ter(hypothesis, reference) == pyter.ter(hypothesis, reference)


@settings(max_examples=100, deadline=None)
@given(reference=st.lists(st.integers(0, 30).map(str), min_size=1, max_size=25), seed=st.integers())
def test_equals_pyter_on_reordered_texts(reference: list[str], seed: int) -> None:
    chance = random.Random(seed)
    cut = chance.randrange(len(reference) + 1)
    hypothesis = [word for word in reference[cut:] + reference[:cut] if chance.random() > 0.2]
    assert ter.ter(hypothesis, reference) == pyter.ter(hypothesis, reference)


def test_equals_pyter_on_references_longer_than_a_machine_word() -> None:
    chance = random.Random(0)
    reference = [str(chance.randrange(40)) for _ in range(90)]
    hypothesis = reference[30:60] + reference[:30] + reference[70:]
    assert ter.ter(hypothesis, reference) == pyter.ter(hypothesis, reference)


@settings(deadline=None)
@given(words=references)
def test_a_text_against_itself_is_zero(words: list[str]) -> None:
    assert ter.ter(words, words) == 0.0


def test_an_empty_reference_scores_one_as_in_the_webnlg_scorer() -> None:
    assert ter.ter(["a"], []) == 1.0
    assert ter.ter([], []) == 1.0


def test_the_best_reference_counts_and_inputs_are_averaged() -> None:
    scores = score(["ter"], ["a b c d", "a b"], [["x y", "a b c d"], ["a c"]], jobs=1)
    assert scores.values["all"]["ter"].value == 0.25


def test_pairs_side_by_side_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    lengths = [0, 1, 6, 6, 6, 14]
    texts = [" ".join(chance.choices("abcdefg", k=chance.choice(lengths))) for _ in range(240)]
    inputs = Texts(texts[:60], [texts[k : k + chance.randint(1, 3)] for k in range(60, 240, 3)])
    plain = [
        min(pyter.ter(hyp.split(), ref.split()) if ref else 1.0 for ref in refs)
        for hyp, refs in zip(inputs.hypotheses, inputs.references, strict=True)
    ]
    assert ter.closest(inputs) == plain
    monkeypatch.setattr(ter, "INPUTS", 7)
    monkeypatch.setattr(ter, "MOVES", 5)
    assert ter.closest(inputs) == plain
