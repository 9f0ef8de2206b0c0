"""ROUGE: what its tokeniser cannot see is told; what it can see is not."""

from __future__ import annotations

import logging

import pytest

from alphatune.metrics import score
from alphatune.metrics.rouge import dropped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Amanda baked cookies and will bring some tomorrow.", False),
        ("Café Ångström, naïve façade", False),
        ("Call 555 0100!", False),
        ("12 : 30", False),
        ("", False),
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d", True),  # Chinese
        ("\u0645\u0631\u062d\u0628\u0627", True),  # Arabic
        ("\u0928\u092e\u0938\u094d\u0924\u0947", True),  # Hindi
        ("\u041f\u0440\u0438\u0432\u0435\u0442, NASA", True),  # Russian with a Latin name
    ],
)
def test_which_texts_lose_most_of_their_letters(text: str, expected: bool) -> None:
    assert dropped(text) is expected


def test_a_script_that_is_dropped_is_told_once_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    text = "\u4eca\u5929\u5929\u6c14\u5f88\u597d"
    with caplog.at_level(logging.WARNING):
        scores = score(["rouge1", "rouge2", "rougeL"], [text, "a cat"], [[text], ["a cat"]]).values["all"]
    assert scores["rouge1"].value == 50.0  # equal texts, but nothing of the first is seen
    (record,) = caplog.records
    assert "1 of 2 references are in a script that the tokeniser of rouge_score drops" in record.message
    assert "\n" not in record.message


def test_english_is_scored_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    score(["rouge1", "rougeL"], ["a naïve cat sat"], [["the naïve cat sat there"]])
    assert not caplog.records
