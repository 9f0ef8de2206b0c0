"""One maker at a time, and for those who wait, who that is."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_SILENT = 1.0  # seconds that a process waits before it says so
log = logging.getLogger("alphatune")


@contextlib.contextmanager
def turn(place: Path, what: str) -> Iterator[None]:
    """Within the block no other process has the turn for `place`, a path beside which two small files are kept.

    Args:
        what: what is made there, e.g. "adapt 0123456789abcdef", for those who wait.
    """
    from filelock import FileLock, Timeout  # packed models are loaded where only the library's own needs are installed

    lock, maker = FileLock(f"{place}.lock"), Path(f"{place}.maker")
    try:
        lock.acquire(timeout=_SILENT)
    except Timeout:
        log.info("waiting for %s, which makes %s", _told(maker), what)
        lock.acquire()
    try:
        with contextlib.suppress(OSError):  # a courtesy: a full disk is told by the work itself
            maker.write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            maker.unlink()
        lock.release()


def _told(maker: Path) -> str:
    try:
        process, host = maker.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    return f"process {process} on {host}"
