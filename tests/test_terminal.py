"""What stops a command is told in a line, and its exit status says which kind it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alphatune.errors import UserError
from alphatune.terminal import status_of


def raising(error: BaseException) -> int:
    raise error


def test_statuses_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: 0) == 0 and status_of(lambda: 1) == 1
    assert status_of(lambda: raising(UserError("q=9: must be 1 to 8"))) == 2
    assert capsys.readouterr().err == "error: q=9: must be 1 to 8\n"
    assert status_of(lambda: raising(KeyboardInterrupt()), "interrupted: all is kept") == 130
    assert capsys.readouterr().err == "interrupted: all is kept\n"


def test_an_error_that_is_nobodys_mistake_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        status_of(lambda: 1 // 0)


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = (
        "import sys; from alphatune.terminal import status_of\n"
        "sys.exit(status_of(lambda: [print('line' * 100) for _ in range(10_000)] and 0))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux only")
@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_of_a_command_wait_asleep_unless_told_otherwise(given: dict[str, str], used: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    code = "from alphatune.__main__ import main; main(['--version']); import torch"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **given, "OMP_DISPLAY_ENV": "TRUE"}, capture_output=True, text=True
    )  # what the library itself says when torch loads it
    assert f"OMP_WAIT_POLICY = '{used}'" in done.stderr
