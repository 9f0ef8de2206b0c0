"""How far a long piece of work is: a bar on a terminal, a line every 20 seconds everywhere else."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

SECONDS = 20.0  # between lines; the first one comes after as long
log = logging.getLogger("alphatune")


class Progress:
    """Counts `unit`s of work done, of `total` where that is known. Use it in a with statement.

    Without a terminal (a pipe, a log file, a batch job) a thread of its own speaks, so that a single long unit does not
    make it silent.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "", show: bool = True, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done, self.begun_at = what, total, unit, done, done
        self.details = ""
        terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._speaks = show and not terminal
        if show and terminal:
            shape = None if total or unit else "{desc} ..."  # nothing is counted
            self._bar = tqdm(desc=what, total=total, unit=unit, initial=done, leave=total is not None, bar_format=shape)
        self._ended = threading.Event()

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._speaks:
            threading.Thread(target=self._speak, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def show(self, details: Mapping[str, str]) -> None:
        """Values that stand beside the count, e.g. the latest loss."""
        self.details = ", ".join(f"{name} {value}" for name, value in details.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self.details)

    def line(self, elapsed: float) -> str:
        """What is done, what is left, and when it may end, `elapsed` seconds after the start."""
        unit = f" {self.unit}s" if self.unit else ""
        if self.total is None:
            count = f"{self.done}{unit} done, " if self.done else ""
            return f"{self.what}: {count}{elapsed:.0f} s so far"
        new = self.done - self.begun_at
        left = f", about {elapsed / new * (self.total - self.done):.0f} s left" if new else ""
        details = f" ({self.details})" if self.details else ""
        return f"{self.what}: {self.done} of {self.total}{unit}, {elapsed:.0f} s so far{left}{details}"

    def _speak(self) -> None:
        while not self._ended.wait(SECONDS):
            log.info("%s", self.line(time.monotonic() - self._started))
