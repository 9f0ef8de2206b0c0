"""METEOR's table of paraphrases, cut to what given texts can use: its jar needs seconds to read all five million.

The jar applies an entry only where it finds all words of both sides, so entries with a word that no text has change
nothing, and those that stay keep their order. Its normaliser moves blanks and punctuation but no letter or digit, so a
word can come from the texts only if all its runs of these do.

An index of the table is made once, in the user's cache folder: the different words, and the numbers of the words of all
entries.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import safetensors.numpy

from alphatune.store import cache

_RUNS = re.compile(r"[a-z0-9]+")
_ENTRY = 3  # lines: a probability, which the jar skips, and the two sides
_BLOCK = 1 << 24  # bytes
VERSION = 2  # of the index's form


class Runs:
    """The runs of ASCII letters and digits in some texts, and which of them follow one another."""

    def __init__(self, texts: Iterable[str]) -> None:
        found = [_RUNS.findall(text.lower()) for text in texts]
        self.alone = frozenset(run for runs in found for run in runs)
        self.pairs = frozenset(pair for runs in found for pair in itertools.pairwise(runs))

    def __le__(self, other: Runs) -> bool:
        return self.alone <= other.alone and self.pairs <= other.pairs

    def __or__(self, other: Runs) -> Runs:
        both = Runs([])
        both.alone, both.pairs = self.alone | other.alone, self.pairs | other.pairs
        return both


def cut(table: Path, known: Runs, to: Path) -> bool:
    """Write the entries of `table` that texts with the runs `known` can use to `to`.

    Returns whether it was done: not where there is no table, or one of another form.
    """
    try:
        index = _index(table)
    except (OSError, EOFError, ValueError):
        return False
    words = index["words"].tobytes().decode().split("\n")
    numbers, ends = _usable(words, index["numbers"], index["starts"].astype(np.int64), known)
    numbers[ends[0::2] - 1] += len(words)
    numbers[ends[1::2] - 1] += 2 * len(words)
    written = [*(f"{word} " for word in words), *(f"{word}\n" for word in words), *(f"{word}\n0\n" for word in words)]
    text = "0\n" + "".join(map(written.__getitem__, numbers.tolist()))
    to.write_bytes(gzip.compress(text.removesuffix("0\n").encode(), 1))
    return True


def _usable(words: list[str], numbers: np.ndarray, starts: np.ndarray, known: Runs) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the words of the entries that may be in the texts, and where each side ends."""
    parts = [_RUNS.findall(word) if word.isascii() else [] for word in words]
    # what is not ASCII counts as there: Java's lower case need not be Python's
    there = np.array([known.alone.issuperset(runs) for runs in parts])
    sides = np.logical_and.reduceat(there[numbers], starts[:-1]).reshape(-1, 2)
    numbers, ends = _take(numbers, starts, np.logical_and(sides[:, 0], sides[:, 1]))
    names = {run: place for place, run in enumerate(known.alone)}
    first, last = (np.array([names.get(runs[k], -1) if runs else -1 for runs in parts])[numbers] for k in (0, -1))
    pairs = np.array([names[a] * len(names) + names[b] for a, b in known.pairs], dtype=np.int64)
    follows = (last[:-1] < 0) | (first[1:] < 0) | np.isin(last[:-1] * len(names) + first[1:], pairs)
    follows = np.append(follows, True)
    follows[ends - 1] = True
    starts = np.append(0, ends)
    sides = np.logical_and.reduceat(follows, starts[:-1]).reshape(-1, 2) if len(ends) else sides[:0]
    return _take(numbers, starts, np.logical_and(sides[:, 0], sides[:, 1]))


def _take(numbers: np.ndarray, starts: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the chosen entries, and where each side ends."""
    firsts, lengths = starts[:-1].reshape(-1, 2)[entries].ravel(), np.diff(starts).reshape(-1, 2)[entries].ravel()
    ends = lengths.cumsum()
    return numbers[np.arange(lengths.sum()) + (firsts - ends + lengths).repeat(lengths)].astype(np.int64), ends


@functools.lru_cache(maxsize=1)
def _index(table: Path) -> dict[str, np.ndarray]:
    """The words, joined by line ends; the numbers of the words of each entry's sides; where each side starts."""
    with table.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        content = file.read().hex()  # gzip's checksum and length
    path = cache.folder("meteor") / f"paraphrases-{VERSION}-{content}"
    try:
        digest, _, packed = path.read_bytes().partition(b"\n")
        if hashlib.sha256(packed).hexdigest().encode() == digest:
            return safetensors.numpy.load(packed)
    except OSError:
        pass  # not there yet
    made = _read(table)
    packed = safetensors.numpy.save(made)
    cache.keep(path, hashlib.sha256(packed).hexdigest().encode() + b"\n" + packed)
    return made


def _read(table: Path) -> dict[str, np.ndarray]:
    """The arrays of an index.

    Raises:
        ValueError: it is no such table.
    """
    found: defaultdict[bytes, int] = defaultdict(lambda: len(found))
    end = found[b"\n"]
    parts = []
    rest = b""
    with gzip.open(table) as file:
        while block := file.read(_BLOCK):
            lines = (rest + block).split(b"\n")
            whole = (len(lines) - 1) // _ENTRY * _ENTRY
            rest = b"\n".join(lines[whole:])
            del lines[whole:], lines[::_ENTRY]
            tokens = b" \n ".join([*lines, b""]).split(b" ")[:-1]
            parts.append(np.array(list(map(found.__getitem__, tokens)), dtype=np.uint32))
    if rest:
        raise ValueError("the last entry is not complete")
    if b"" in found:
        raise ValueError("two blanks, or a side without words")
    numbers = np.concatenate(parts)
    ends = np.flatnonzero(numbers == end)
    return {
        "words": np.frombuffer(b"\n".join(list(found)[1:]), dtype=np.uint8),
        "numbers": (numbers[numbers != end] - 1).astype(np.min_scalar_type(len(found))),
        "starts": np.concatenate([[0], ends - np.arange(len(ends))]).astype(np.uint32),
    }
