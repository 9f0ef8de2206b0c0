"""The Java runtime and the two jars that come inside pycocoevalcap; nothing is ever downloaded.

A Java program that does not answer is ended, with what it started, after `limit` seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import importlib.util
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from alphatune.errors import UserError
from alphatune.metrics.outside.unavailable import Unavailable

LIMIT = "ALPHATUNE_JAVA_TIMEOUT"  # the environment variable for `limit`
SECONDS = 300.0  # its default; the slowest first answer, METEOR's with its tables read, takes 10 to 60


def runtime() -> str:
    """Path of the `java` program.

    Raises:
        Unavailable: there is none on the PATH.
    """
    java = shutil.which("java")
    if java is None:
        raise Unavailable("no Java runtime: no program `java` on the PATH")
    return java


def jar(relative: str) -> Path:
    """A jar of the installed pycocoevalcap, found without importing the package.

    Raises:
        Unavailable: the package or the file in it is missing.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the package pycocoevalcap is not installed")
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.is_file():
        raise Unavailable(f"pycocoevalcap is installed without {relative}")
    return path


def package_version() -> str:
    """The installed version of pycocoevalcap.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        return importlib.metadata.version("pycocoevalcap")
    except importlib.metadata.PackageNotFoundError as error:
        raise Unavailable("the package pycocoevalcap is not installed") from error


def limit() -> float:
    """Seconds that an answer may take: $ALPHATUNE_JAVA_TIMEOUT, else 300.

    Raises:
        UserError: the variable is not a positive number.
    """
    text = os.environ.get(LIMIT, "")
    try:
        seconds = float(text) if text else SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:  # also refuses nan
        raise UserError(f"{LIMIT}={text}: must be a positive number of seconds")
    return seconds


class Conversation:
    """A running Java program that is sent lines and answers in lines."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        """Start it; `name` is what messages call it.

        Raises:
            Unavailable: it cannot be started.
        """
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the program)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
            )
        except OSError as error:
            self._errors.close()
            raise Unavailable(f"{name} failed: {error.strerror}") from error
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.close)

    def send(self, lines: Sequence[bytes]) -> None:
        """Send lines, beside the reading of answers: the pipes are far smaller than what goes through them."""
        threading.Thread(target=self._write, args=(lines,), daemon=True).start()

    def answer(self) -> str:
        """The next line.

        Raises:
            Unavailable: none came in time, or the program has ended.
        """
        seconds = limit()
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty as error:
            self.close()
            raise Unavailable(f"{self.name} gave no answer in {seconds:g} s; ${LIMIT} sets how long to wait") from error
        if line is None:
            self._errors.seek(0)
            last = last_line(self._errors.read()) or "it ended before the last answer"
            self.close()
            raise Unavailable(f"{self.name} failed: {last}")
        return line.decode(errors="replace").strip()

    def close(self) -> None:
        """End the program and what it started."""
        end(self._process)
        self._errors.close()
        atexit.unregister(self.close)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _write(self, lines: Sequence[bytes]) -> None:
        assert self._process.stdin is not None
        # a program that has died: the reader meets the end of its output and tells
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.writelines(lines)
            self._process.stdin.flush()


def output(command: Sequence[str], name: str) -> bytes:
    """What a Java program prints until it ends.

    Raises:
        Unavailable: it cannot be started, fails, or does not end in time.
    """
    seconds = limit()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"{name} failed: {error.strerror}") from error
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{name} did not end in {seconds:g} s; ${LIMIT} sets how long to wait") from error
        finally:
            end(process)
        printed.seek(0)
        errors.seek(0)
        if status != 0:
            raise Unavailable(f"{name} failed: {last_line(errors.read()) or f'exit status {status}'}")
        return printed.read()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that was started in a session of its own, and all that it started there."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(text: bytes) -> str:
    """The last line of a program's messages, where Java and its jars say what was wrong."""
    return next(reversed(text.decode(errors="replace").strip().splitlines()), "")
