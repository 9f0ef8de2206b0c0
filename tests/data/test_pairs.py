"""Grouping contexts for evaluation loses no text and changes no order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alphatune.data.pairs import Pair, dataset, grouped
from alphatune.data.source import Source

PAIRS = st.lists(st.builds(Pair, st.sampled_from("abc"), st.text(max_size=3), st.sampled_from(["seen", "unseen"])))


@given(PAIRS)
def test_grouping_keeps_every_text_in_order(pairs):
    examples = grouped(pairs, "test")
    assert [e.text for e in examples] == list(dict.fromkeys(p.text for p in pairs))
    for example in examples:
        assert list(example.targets) == [p.target for p in pairs if p.text == example.text]
        assert example.subset == next(p.subset for p in pairs if p.text == example.text)


@given(PAIRS)
def test_empty_texts_are_dropped_and_counted(pairs):
    from pathlib import Path

    full = [p for p in pairs if p.target.strip()]
    found = dataset(Source(Path()), {"train": pairs, "validation": [], "test": pairs})
    assert [(e.text, e.targets) for e in found.train] == [(p.text, (p.target,)) for p in full]
    assert sum(len(e.targets) for e in found.test) == len(full)
    assert found.notes.get("train: empty texts dropped", 0) == len(pairs) - len(full)
