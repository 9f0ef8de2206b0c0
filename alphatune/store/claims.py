"""Who makes what, across the hosts that share a folder: a small file with the maker's name and a beating count.

Locks of a network file system may not reach other hosts, and clocks of hosts differ. So a claim is a file that only one
can create, and a waiter judges it by its own clock: a count that stands still for a minute belongs to the dead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

BEAT = 5.0  # seconds between two counts of a living maker
PATIENCE = 60.0  # seconds without a new count after which a maker on another host is taken for dead
SETTLE = 2.0  # seconds until what two wrote at once can be read by both
_LOOK = 1.0
log = logging.getLogger("alphatune")


@contextlib.contextmanager
def claim(path: Path, what: str) -> Iterator[None]:
    """Within the block `path` names this process, and no process of another host that does the same is in its block.

    Among the processes of one host the caller lets in one at a time: what this host left there is of the dead.

    Args:
        what: is made meanwhile, for those who wait.
    """
    mine = f"{os.getpid()} {socket.gethostname()} {uuid.uuid4().hex[:8]}"
    _take(path, mine, what)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(OSError):
            if _owner(_read(path)) == _owner(mine):
                path.unlink()


def holder(path: Path) -> str:
    """Who claims, in words."""
    words = _read(path).split()
    return f"process {words[0]} on {words[1]}" if len(words) > 1 else "another process"


def elsewhere(path: Path) -> bool:
    """Whether the claim is one of another host, alive or not."""
    words = _read(path).split()
    return len(words) > 1 and words[1] != socket.gethostname()


def _take(path: Path, mine: str, what: str) -> None:
    seen, since, told = "", time.monotonic(), False
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(f"{mine} 0")
            return
        except FileExistsError:
            found = _read(path)
        except OSError:  # a full or read-only disk is told by the work itself
            return
        if not path.exists():
            continue
        if found and not elsewhere(path):
            _write(path, mine)  # left by a process of this host that was killed
            return
        if found != seen:
            seen, since = found, time.monotonic()
        if time.monotonic() - since > (PATIENCE if found else SETTLE):
            log.info("%s gives no sign of life; taking over %s", holder(path), what)
            _write(path, mine)
            time.sleep(SETTLE)
            if _owner(_read(path)) == _owner(mine):  # else another waiter took over as well, and was later
                return
        elif not told and time.monotonic() - since > _LOOK:
            log.info("waiting for %s, which makes %s", holder(path), what)
            told = True
        time.sleep(min(_LOOK, PATIENCE / 4))


def _beat(path: Path, mine: str, over: threading.Event) -> None:
    count = 0
    while not over.wait(BEAT):
        found = _read(path)
        if _owner(found) != _owner(mine) and (found or not os.path.exists(path)):  # else it could not be read just now
            return  # this process was held up so long that another took over
        count += 1
        _write(path, f"{mine} {count}")


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text if text.count(" ") > 2 else f"{text} 0", encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _owner(text: str) -> list[str]:
    return text.split()[:3]
