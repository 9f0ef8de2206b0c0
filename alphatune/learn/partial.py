"""Predictions of a decoding that is not finished: what a killed run continues from.

Every line begins with a hash of itself and of the name of its folder, which follows from all that the predictions
depend on. A torn, damaged or foreign line is left out, and its input decoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alphatune.store import write_atomically

Done = dict[int, dict[str, Any]]  # index of the input -> its prediction
Add = Callable[[dict[str, Any]], None]
log = logging.getLogger("alphatune")


class Partial:
    """The file of predictions so far.

    Args:
        path: in the scratch folder of a decoding.
        ids: of the inputs, in order.
    """

    def __init__(self, path: Path, ids: list[str]) -> None:
        self.path, self.ids = path, ids

    def read(self) -> Done:
        """The predictions that are there; lines that are not whole are removed from the file."""
        found: Done = {}
        if not self.path.exists():
            return found
        lines = self.path.read_bytes().split(b"\n")[:-1]  # after the last line's end there is nothing, or a torn line
        kept = []
        for line in lines:
            entry = self._entry(line)
            if entry is not None:
                found[entry.pop("index")] = entry
                kept.append(line.decode() + "\n")
        text = "".join(kept)
        if len(kept) < len(lines):
            log.warning("decode: %d of %d predictions so far are used; the others are damaged", len(kept), len(lines))
        if text.encode() != self.path.read_bytes():
            write_atomically(self.path, text)
        return found

    @contextmanager
    def adding(self) -> Iterator[Add]:
        """Within the block, a function that appends a prediction (with its "index") to the file."""
        with self.path.open("a", encoding="utf-8") as out:

            def add(entry: dict[str, Any]) -> None:
                text = json.dumps(entry, ensure_ascii=False)
                out.write(f"{self._hash(text.encode())} {text}\n")
                out.flush()

            yield add

    def _entry(self, line: bytes) -> dict[str, Any] | None:
        sha256, _, text = line.partition(b" ")
        if sha256.decode(errors="replace") != self._hash(text):
            return None
        entry: dict[str, Any] = json.loads(text)
        index = entry["index"]
        return entry if 0 <= index < len(self.ids) and entry["id"] == self.ids[index] else None

    def _hash(self, text: bytes) -> str:
        return hashlib.sha256(self.path.parent.name.encode() + b" " + text).hexdigest()[:16]
