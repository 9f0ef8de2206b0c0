"""The disk: full, read-only, taken away. One line names the folder and what to do, and nothing is blocked later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL

from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.learn import predict, resume, train
from alphatune.run import room
from alphatune.run.execute import execute, main
from alphatune.store import trouble

sys.path.insert(0, str(Path(__file__).parent))
from runs import left_over


@pytest.fixture
def own(quick: list[str], shared_store: Path, tmp_path: Path) -> list[str]:
    """`quick` with a store of the test's own that holds the backbone."""
    if (shared_store / "backbone").is_dir():
        shutil.copytree(shared_store / "backbone", tmp_path / "store" / "backbone")
    return [*(o for o in quick if "runtime.artifacts" not in o), f"runtime.artifacts={tmp_path / 'store'}", "seed=21",
            "method=lora", "hparams.epochs=4", "trainer.evals=4", "trainer.saves=3"]  # fmt: skip


def _full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_in_rust(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("where", "name", "fails"),
    [(train, "save_file", _full_in_rust), (resume.store, "seal", _full), (predict.Partial, "adding", _full)],
)
def test_a_disk_that_fills_up_is_one_line_and_with_room_again_the_run_ends(
    where: Any, name: str, fails: Any, own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, fails)
        assert main(own) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and errors[0].startswith(
        f"error: {tmp_path / 'store'}: cannot be written: the disk is full ("
    )
    assert "make room, or give another folder; what is finished is kept" in errors[0]
    assert not [name for name in left_over(tmp_path) if ".partial" not in name]
    execute(config_of(own))
    assert left_over(tmp_path) == []


def test_a_store_removed_while_the_run_writes_is_one_line(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = train.save_trained

    def removes(model: Any, path: Path) -> None:
        if "checkpoint" not in str(path):
            shutil.rmtree(tmp_path / "store")
        real(model, path)

    monkeypatch.setattr(train, "save_trained", removes)
    assert main(own) == 2
    assert "was removed while it was written to: run the same command again" in capsys.readouterr().err


def test_too_little_room_is_told_before_anything_is_made(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "room", lambda folder: 1_500_000)
    assert execute(config_of(own)).is_file()  # a small LoRA fits
    with pytest.raises(UserError, match=r"this run writes about .* MB, and 1\.5 MB are free: make room, give another"):
        execute(config_of([*own, "method=full_ft"]))
    assert len(list((tmp_path / "store" / "adapt").glob("*/manifest.json"))) == 1


def test_the_room_asked_for_is_enough_and_not_far_too_much(own: list[str], tmp_path: Path) -> None:
    """What full fine-tuning writes at most, watched at every checkpoint, against the estimate."""
    from alphatune.data.load import load
    from alphatune.run.outcome import outcome
    from alphatune.run.pipeline import Run

    config = config_of([*own, "method=full_ft", "seed=22"])
    run = Run(config, load(config.task, config.data))
    before, most = _bytes(tmp_path / "store"), 0
    real = resume.store.seal

    def watching(folder: Path, spec: Any) -> None:
        nonlocal most
        real(folder, spec)
        most = max(most, _bytes(tmp_path / "store") - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume.store, "seal", watching)
        patch.setattr(trouble, "room", lambda folder: 0)
        (told,) = room.problems(config, run.plan, run.store.root, len(run.test_examples))
        estimate = 1e6 * float(told.split("about ")[1].split(" MB")[0])
        outcome(run)
    assert most and most <= estimate <= 3 * most + 2e6, (most, estimate)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_real_disk_of_two_megabytes(
    small_disk: Path,
    shared_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Refused by the estimate; where that is fooled, one line as the disk fills; with room again it continues."""
    given = [*SMALL, "method=full_ft", "hparams.epochs=4", "trainer.evals=4", "trainer.saves=3", "data.train_limit=24",
             "data.eval_limit=4", "decode.beam=2", "decode.max_new_tokens=6", f"runtime.records={tmp_path / 'records'}",
             f"runtime.artifacts={small_disk / 'store'}"]  # fmt: skip
    config = config_of(given)
    from alphatune.learn import models
    from alphatune.store import Store

    models.source_of(config, Store(small_disk / "store"))
    assert main(given) == 2
    assert "this run writes about" in capsys.readouterr().err
    (small_disk / "filler").write_bytes(bytes(trouble.room(small_disk) - 350_000))
    monkeypatch.setattr(room, "problems", lambda *args: [])
    assert main(given) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "the disk is full" in errors[0], errors
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert main(given) == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main([*given, "seed=1"]) == 2
    assert "Read-only file system; give another folder" in capsys.readouterr().err
