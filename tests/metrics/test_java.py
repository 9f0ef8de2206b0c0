"""Java programs that do not answer, fail, or are asked twice; fakes stand in for the jars."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphatune.errors import UserError
from alphatune.metrics import meteor, score
from alphatune.metrics.corpus import Texts
from alphatune.metrics.outside import java
from alphatune.metrics.outside.unavailable import Unavailable

TEXTS = Texts(["a b", "c"], [["a b"], ["d", "e"]])

# The jar's protocol: one answer to SCORE, one per input and one for all to EVAL.
JAR = """\
#!/usr/bin/env python3
import sys
with open("starts", "a") as file:
    file.write("started\\n")
for line in sys.stdin:
    words = line.split(" ||| ")
    for answer in ["1 2 3"] if words[0] == "SCORE" else ["0.5"] * (len(words) - 1) + ["0.25"]:
        print(answer, flush=True)
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No jar is running before or after a test."""
    monkeypatch.chdir(tmp_path)
    meteor.stop()
    yield
    meteor.stop()


def fake(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script be the `java` of this test."""
    path = Path("java").resolve()
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setattr(java, "runtime", lambda: str(path))
    monkeypatch.setattr(java, "jar", lambda relative: path.parent / relative)


def test_one_process_serves_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, JAR)
    assert meteor.meteor(TEXTS, [[0, 1], [1]]) == [0.25, 0.25]
    assert meteor.meteor(TEXTS, [[0]]) == [0.25]
    assert Path("starts").read_text() == "started\n"


@pytest.mark.parametrize("metric", ["meteor", "cider"])
def test_a_java_that_does_not_answer_is_ended_with_its_children(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the shell's child holds the pipes open, as a wrapper around the real program would
    fake(monkeypatch, "#!/bin/sh\nsleep 600 &\necho $! > child\nwait\n")
    monkeypatch.setenv(java.LIMIT, "1")
    scores = score([metric], ["a b"], [["a b"]])
    assert scores.values == {"all": {}}
    assert f"in 1 s; ${java.LIMIT} sets how long to wait" in scores.absent[metric]
    child = int(Path("child").read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child is still running")


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'no tables' >&2\nexit 1\n", "the METEOR jar failed: no tables"),
        ("#!/bin/sh\nread line\n", "the METEOR jar failed: it ended before the last answer"),
        ("#!/bin/sh\nread line\necho 'Error: bad input'\ncat > /dev/null\n", "the METEOR jar failed: Error: bad input"),
        ("no program\n", "the METEOR jar failed: Exec format error"),
    ],
)
def test_after_a_failure_the_next_call_starts_anew(monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    fake(monkeypatch, script)
    with pytest.raises(Unavailable, match=reason):
        meteor.meteor(TEXTS, [[0, 1]])
    fake(monkeypatch, JAR)
    assert meteor.meteor(TEXTS, [[0, 1]]) == [0.25]


def test_the_tokenizer_that_fails_or_prints_too_little_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for script, reason in [
        ("#!/bin/sh\nexit 3\n", "the PTB tokenizer failed: exit status 3"),
        ("#!/bin/sh\nprintf 'a\\n'\n", "the PTB tokenizer failed: 2 lines for 3 texts"),
    ]:
        fake(monkeypatch, script)
        scores = score(["rouge_l_e2e"], ["a", "b", "c"], [["a"], ["b"], ["c"]])
        assert scores.absent == {"rouge_l_e2e": reason}


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1e300"])
def test_the_limit_must_be_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(java.LIMIT, text)
    with pytest.raises(UserError, match=f"{java.LIMIT}={text}: must be a positive number of seconds"):
        java.limit()
