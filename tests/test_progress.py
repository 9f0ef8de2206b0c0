"""Long work says how far it is: on a terminal as a bar, elsewhere in lines."""

from __future__ import annotations

import logging
import time

import pytest

from alphatune import progress
from alphatune.progress import Progress


def test_a_line_says_what_is_done_what_is_left_and_when_it_ends() -> None:
    shown = Progress("adapt", 200, "step", show=False)
    shown.advance(50)
    shown.show({"train": "0.512", "validation": "0.600"})
    expected = "adapt: 50 of 200 steps, 30 s so far, about 90 s left (train 0.512, validation 0.600)"
    assert shown.line(30.0) == expected


def test_what_was_done_before_a_resume_does_not_make_the_rest_look_fast() -> None:
    shown = Progress("decode", 100, "input", show=False, done=60)
    assert shown.line(5.0) == "decode: 60 of 100 inputs, 5 s so far"
    shown.advance(10)
    assert shown.line(10.0) == "decode: 70 of 100 inputs, 10 s so far, about 30 s left"


def test_work_of_unknown_length() -> None:
    shown = Progress("score", show=False)
    assert shown.line(41.0) == "score: 41 s so far"


def test_without_a_terminal_even_one_long_unit_is_not_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with caplog.at_level(logging.INFO, logger="alphatune"), Progress("quantise", 3, "layer") as shown:
        deadline = time.monotonic() + 5
        while "quantise: 0 of 3 layers" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        shown.advance()
    assert "quantise: 0 of 3 layers" in caplog.text
    said = len(caplog.records)
    time.sleep(0.1)
    assert len(caplog.records) <= said + 1  # one may have been under way


def test_hidden_progress_says_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with caplog.at_level(logging.INFO, logger="alphatune"), Progress("quantise", 3, "layer", show=False):
        time.sleep(0.05)
    assert not caplog.records
