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

    def part(self, number: int) -> Partial:
        """The file that process `number` of a run adds to, beside this one."""
        return Partial(self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}"), self.ids)

    def read(self) -> Done:
        """The predictions that are there; lines that are not whole are removed, and parts taken in.

        Nobody else may be adding.
        """
        parts = sorted(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"))
        found: Done = {}
        kept, count = [], 0
        for path in [self.path, *parts]:
            lines = _lines(path)
            count += len(lines)
            for line in lines:
                entry = self._entry(line)
                if entry is not None:
                    found[entry.pop("index")] = entry
                    kept.append(line.decode() + "\n")
        if len(kept) < count:
            log.warning("decode: %d of %d predictions so far are used; the others are damaged", len(kept), count)
        text = "".join(kept)
        if parts or (self.path.exists() and text.encode() != self.path.read_bytes()):
            write_atomically(self.path, text)
        for part in parts:
            part.unlink()
        return found

    def seen(self) -> set[int]:
        """Indices of the predictions that are there, while others may be adding."""
        entries = map(self._entry, _lines(self.path))
        return {entry["index"] for entry in entries if entry is not None}

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


def _lines(path: Path) -> list[bytes]:
    """The lines of a file that have an end; after the last end there is nothing, or a torn line."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []
