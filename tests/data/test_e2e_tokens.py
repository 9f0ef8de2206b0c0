"""The tokenisation of raw E2E texts, on sentences of our own and, where they are, on LoRA's files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.data.e2e_tokens import tokenise

E2E = Path(os.environ.get("ALPHATUNE_SHARED", ROOT.parent / "shared")) / "data" / "e2e"


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ("The Duo isn't cheap, it's £20-25.", "The Duo is n't cheap , it 's £ 20 - 25 ."),
        ("A kid-friendly pub; 5 out of 5!", "A kid - friendly pub ; 5 out of 5 !"),
        ("Prices (over £30.50) apply: you'll see.", "Prices ( over £ 30.50 ) apply : you 'll see ."),
        ("a 3-star place", "a 3-star place"),
        ("well...", "well ..."),
        ("", ""),
    ],
)
def test_by_hand(raw: str, tokens: str) -> None:
    assert tokenise(raw) == tokens


def _untokenised(line: str) -> str:
    line = re.sub(r" (?=(?:[.,;:?!%)]|'s|n't|'re|'ll|'ve|'m|'d)(?: |$))", "", line)
    line = re.sub(r"(?<=[£$(]) ", "", line)
    return re.sub(r"(?<=\w) - (?=\w)", "-", line)


@pytest.mark.skipif(not E2E.is_dir(), reason="no shared data here (ALPHATUNE_SHARED)")
@pytest.mark.parametrize(("name", "share"), [("test", 1.0), ("valid", 0.985), ("train", 0.985)])
def test_lora_s_lines_come_back(name: str, share: float) -> None:
    lines = [line.split("||", 1)[1].strip() for line in (E2E / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
    assert sum(tokenise(_untokenised(line)) == line for line in lines) / len(lines) >= share
