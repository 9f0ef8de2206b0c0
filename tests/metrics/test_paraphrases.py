"""METEOR's table of paraphrases is cut to entries that the jar could find, in their order."""

from __future__ import annotations

import gzip
import itertools
import random
import re
from pathlib import Path

import pytest

from alphatune.metrics.outside import paraphrases
from alphatune.metrics.outside.paraphrases import Runs, cut


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path / "cache"))
    paraphrases._index.cache_clear()
    return tmp_path / "cache"


def _table(path: Path, sides: list[tuple[str, str]]) -> Path:
    path.write_bytes(gzip.compress("".join(f"0.1\n{a}\n{b}\n" for a, b in sides).encode()))
    return path


def _entries(path: Path) -> list[tuple[str, str]]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return list(zip(lines[1::3], lines[2::3], strict=True))


def test_every_entry_whose_sides_are_in_the_texts_stays_in_its_place(tmp_path: Path) -> None:
    chance = random.Random(0)
    words = [*"abcdefgh", "don't", "u.s.", "café", ",", "n-1"]
    sides = [(" ".join(chance.choices(words, k=chance.randint(1, 3))),
              " ".join(chance.choices(words, k=chance.randint(1, 3)))) for _ in range(3000)]  # fmt: skip
    table = _table(tmp_path / "table.gz", sides)
    texts = ["A b, c don't", "U.S. a e f", "the n-1 Café b"]
    assert cut(table, Runs(texts), tmp_path / "cut.gz")
    kept = _entries(tmp_path / "cut.gz")

    def found(side: str) -> bool:  # as the jar sees texts, with or without blanks around signs
        forms = [f" {form} " for text in texts for form in (text.lower(), re.sub(r"([,'-])", r" \1 ", text.lower()))]
        return any(f" {side} " in " ".join(form.split()).join("  ") for form in forms)

    needed = [pair for pair in sides if all(map(found, pair))]
    assert needed and len(kept) < len(sides) / 4
    rest = iter(kept)
    assert all(pair in rest for pair in needed)  # in this order
    order = iter(sides)
    assert all(pair in order for pair in kept)


def test_the_index_is_kept_and_made_again_where_it_is_damaged(tmp_path: Path, cache: Path) -> None:
    table = _table(tmp_path / "table.gz", [("a b", "c"), ("d", "a")])
    for content in (None, b"no index", None):
        for index in cache.rglob("paraphrases-*"):
            if content:
                index.write_bytes(content)
        paraphrases._index.cache_clear()
        assert cut(table, Runs(["a b c"]), tmp_path / "cut.gz")
        assert _entries(tmp_path / "cut.gz") == [("a b", "c")]
    assert len(list(cache.rglob("paraphrases-*"))) == 1


@pytest.mark.parametrize("content", [b"", b"0\na\n", b"0\na\n\n", b"0\na  b\nc\n", b"0\na\nb"])
def test_another_file_is_left_to_the_jar(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.gz").write_bytes(gzip.compress(content))
    assert not cut(tmp_path / "table.gz", Runs(["a"]), tmp_path / "cut.gz")
    assert not cut(tmp_path / "none.gz", Runs(["a"]), tmp_path / "cut.gz")


def test_texts_without_words_leave_an_empty_table(tmp_path: Path) -> None:
    table = _table(tmp_path / "table.gz", [("a b", "c")])
    assert cut(table, Runs([]), tmp_path / "cut.gz")
    assert _entries(tmp_path / "cut.gz") == []


def test_runs_know_which_follow_one_another() -> None:
    assert Runs(["a b"]) <= Runs(["A, b c"])
    assert not Runs(["b a"]) <= Runs(["a b"])
    both = Runs(["a b"]) | Runs(["b a"])
    assert Runs(["b a"]) <= both and both.pairs == set(itertools.permutations("ab"))
