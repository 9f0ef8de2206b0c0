"""How a command speaks to a terminal: log lines, messages for mistakes, exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable

from alphatune.errors import UserError


class _Stderr(logging.Handler):
    """Bare messages to what standard error is at the time, not to what it was when logging was set up."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def log_to_terminal() -> None:
    """Send the project's log lines, bare, to standard error; what libraries plan to change is no news to a user."""
    warnings.simplefilter("ignore", FutureWarning)
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
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return 141
