"""One maker at a time, and for those who wait, who that is."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from alphatune.store.claims import claim, holder

_SILENT = 1.0  # seconds that a process waits before it says so
log = logging.getLogger("alphatune")


@contextlib.contextmanager
def turn(place: Path, what: str) -> Iterator[None]:
    """Within the block no other process has the turn for `place`, a path beside which two small files are kept.

    A lock, which a killed process loses at once, keeps processes of this host apart; a claim those of others.

    Args:
        what: what is made there, e.g. "adapt 0123456789abcdef", for those who wait.
    """
    from filelock import FileLock, Timeout  # packed models are loaded where only the library's own needs are installed

    lock, maker = FileLock(f"{place}.lock"), Path(f"{place}.maker")
    try:
        lock.acquire(timeout=_SILENT)
    except Timeout:
        log.info("waiting for %s, which makes %s", holder(maker), what)
        lock.acquire()
    try:
        with claim(maker, what):
            yield
    finally:
        lock.release()
