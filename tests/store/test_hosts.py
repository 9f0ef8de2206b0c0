"""Two hosts on one shared folder: processes with different host names whose locks do not reach one another."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pytest

from alphatune.store import Store, claims

_context = multiprocessing.get_context("spawn")
SPEC = {"made": "once"}


class _NoLock:
    """A lock as on a network folder that keeps locks to each host."""

    def __init__(self, path: str) -> None:
        pass

    def acquire(self, timeout: float = 0) -> None:
        pass

    def release(self) -> None:
        pass


def _host(name: str, root: Path, seconds: float) -> None:
    """Make one artefact as a process of another machine would; say when it is being made."""
    import socket

    socket.gethostname = lambda: name  # type: ignore[assignment]
    filelock.FileLock = _NoLock  # type: ignore[assignment,misc]
    claims.BEAT, claims.PATIENCE, claims.SETTLE = 0.05, 1.0, 0.2

    def tell(what: str) -> None:
        with (root / "told").open("a") as told:
            told.write(f"{name} {what}\n")

    def make(folder: Path) -> None:
        tell("begins")
        time.sleep(seconds)
        (folder / "host").write_text(name)
        tell("ends")

    got = Store(root).get("stage", SPEC, make)
    tell("reused" if got.reused else "made")


def _start(name: str, root: Path, seconds: float) -> Any:
    process = _context.Process(target=_host, args=(name, root, seconds))
    process.start()
    return process


def _told(root: Path) -> list[str]:
    path = root / "told"
    return path.read_text().splitlines() if path.exists() else []


def _begun(root: Path) -> None:
    deadline = time.monotonic() + 60
    while _told(root) != ["one begins"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_living_maker_is_waited_for_and_its_work_reused(tmp_path: Path) -> None:
    first = _start("one", tmp_path, 3.0)  # three times the patience: only its counts keep the other waiting
    _begun(tmp_path)
    second = _start("two", tmp_path, 0.0)
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0
    assert sorted(_told(tmp_path)) == ["one begins", "one ends", "one made", "two reused"]
    assert not list(tmp_path.rglob("*.maker"))


def test_the_work_of_a_dead_host_is_taken_over_once(tmp_path: Path) -> None:
    first = _start("one", tmp_path, 60.0)
    _begun(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    (claimed,) = tmp_path.rglob("*.maker")
    os.utime(claimed, (4e9, 4e9))  # clocks are not asked: the dead one's was in the next century
    others = [_start(name, tmp_path, 3.0) for name in ("two", "three")]
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(line.split()[1] for line in _told(tmp_path)[1:]) == ["begins", "ends", "made", "reused"]
    (artefact,) = tmp_path.rglob("host")
    assert artefact.read_text() in ("two", "three")
    assert not list(tmp_path.rglob("*.maker")) and not [p for p in tmp_path.rglob(".*") if p.is_dir()]


def test_what_this_host_left_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.maker"
    monkeypatch.setattr(claims.socket, "gethostname", lambda: "here")
    for left in ("1 here abc 7", "1 here abc", "1 here"):
        place.write_text(left)
        began = time.monotonic()
        with claims.claim(place, "x"):
            assert claims.holder(place) == f"process {os.getpid()} on here" and not claims.elsewhere(place)
        assert time.monotonic() - began < 1 and not place.exists()
    place.write_text("1 there abc 7")
    assert claims.elsewhere(place) and claims.holder(place) == "process 1 on there"


def test_a_block_that_was_taken_over_leaves_the_others_claim(tmp_path: Path) -> None:
    place = tmp_path / "x.maker"
    with claims.claim(place, "x"):
        place.write_text("1 there abc 7")
    assert place.read_text() == "1 there abc 7"


def test_where_no_claim_can_be_written_the_work_tells(tmp_path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), claims.claim(tmp_path / "gone" / "x.maker", "x"):
        (tmp_path / "done").write_text("")
    assert (tmp_path / "done").exists()


def test_a_claim_that_cannot_be_read_just_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    path, over = tmp_path / "claim", threading.Event()
    path.write_text("here 1 2 0")
    real, failures = claims._read, iter([OSError()] * 3)

    def unsteady(read: Path) -> str:
        return "" if next(failures, None) else real(read)

    monkeypatch.setattr(claims, "_read", unsteady)
    beating = threading.Thread(target=claims._beat, args=(path, "here 1 2", over))
    beating.start()
    deadline = time.monotonic() + 30
    while path.read_text().split()[-1:] < ["6"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert beating.is_alive()  # three readings failed, and it went on
    path.unlink()  # whoever took over is done
    beating.join(30)
    assert not beating.is_alive()
    over.set()
