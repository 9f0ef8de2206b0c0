"""How a command speaks to a terminal: arguments, log lines, messages for mistakes, exit status.

The exit statuses of all commands: 0 done; 1 failed, or a part of the work failed; 2 a mistake of the user, told in one
line; 3 nothing of what was asked for can run here; 130 interrupted; 141 the reader of the output went away; 143 told to
end by SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from alphatune.errors import UserError

FAILED, MISTAKE, NOTHING_TO_RUN, INTERRUPTED, NO_READER, TOLD_TO_END = 1, 2, 3, 130, 141, 143


class Parser(argparse.ArgumentParser):
    """Arguments whose mistakes are told in one line, and whose description and examples are printed as written."""

    def __init__(self, prog: str, description: str, examples: str = "", **more: Any) -> None:
        epilog = f"examples:\n{textwrap.indent(textwrap.dedent(examples).strip(), '  ')}" if examples else None
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=formatter, **more)

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong with the arguments.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (see {self.prog} --help)")


class Ended(KeyboardInterrupt):
    """SIGTERM, for commands that have something to end besides themselves."""


def end_in_order() -> None:
    """From now on SIGTERM unwinds this process as an interrupt does, so that it can end what it has started."""

    def end(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ending once is enough
        raise Ended

    signal.signal(signal.SIGTERM, end)


class _Stderr(logging.Handler):
    """Bare messages to what standard error is at the time, not to what it was when logging was set up."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def log_to_terminal() -> None:
    """Send the project's log lines, bare, to standard error; what libraries plan to change is no news to a user."""
    for kind in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", kind)
    log = logging.getLogger("alphatune")
    log.handlers[:] = [_Stderr()]
    log.setLevel(logging.INFO)
    log.propagate = False


def status_of(command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """The exit status of a command; what stops it is told in a line, without a traceback.

    Returns:
        What `command` returns; 2 after a user's mistake; 130 when interrupted; 141 when the reader of its output
        went away, as in `alphatune inspect DIR | head`.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except UserError as error:
        if process()[0] == 0:  # once, not once a process
            print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt as told:
        print(interrupted, file=sys.stderr)
        return TOLD_TO_END if isinstance(told, Ended) else INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return NO_READER


def process() -> tuple[int, int]:
    """This process's number and how many there are, where torchrun started several; (0, 1) without it."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1
