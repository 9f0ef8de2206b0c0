"""`alphatune store`: what is there and whose it is, and a clean-up that takes nothing that is needed."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from alphatune.run import inventory, record
from alphatune.store import Store, digest
from alphatune.tools import store

CODES = {"quant": {"q": 3}, "version": 1}
TRAINED = {"base": CODES, "seed": 0, "version": 1}
DECODED = {"model": {"start": CODES, "adapted": TRAINED, "requantized": None}, "version": 1}
ORPHAN = {"base": CODES, "seed": 9, "version": 1}
DAY = 86400.0


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a recorded run, an orphan, and what killed makers left, all of it two days old."""
    monkeypatch.setattr(store, "_planned", lambda *given: set())
    place = Store(tmp_path / "store")
    for stage, spec, size in (("quantize", CODES, 3000), ("adapt", TRAINED, 200), ("decode", DECODED, 50),
                              ("adapt", ORPHAN, 700)):  # fmt: skip
        place.get(stage, spec, partial(_fill, size))
    (place.root / "adapt" / f".{digest(TRAINED)}.0badc0de").mkdir()
    (place.root / "adapt" / f"{digest(TRAINED)}.partial").mkdir()
    (place.root / "decode" / f"{digest(ORPHAN)}.partial").mkdir()
    made = {"schema": record.SCHEMA, "run_id": "toy/tiny/alphatuning/q3-seed0-0123456789",
            "stages": {"adapt (made)": digest(TRAINED), "decode": digest(DECODED)}}  # fmt: skip
    record.write(tmp_path / "records" / "one.json", made)
    _age(place.root, 2 * DAY)
    return tmp_path


def _fill(size: int, folder: Path) -> None:
    (folder / "data").write_bytes(b"x" * size)


def _age(root: Path, seconds: float) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (time.time() - seconds,) * 2)


def _call(folder: Path, *more: str) -> int:
    return store.main([*more, "--store", str(folder / "store"), "--records", str(folder / "records")])


def _folders(folder: Path) -> set[str]:
    return {str(p.relative_to(folder / "store")) for p in (folder / "store").glob("*/*") if p.is_dir()}


def test_without_the_records_nothing_is_taken_for_needless(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _folders(filled)
    assert store.main(["gc", "--yes", "--store", str(filled / "store"), "--records", str(filled / "typo")]) == 2
    assert "typo: no record there; --records FOLDER names the runtime.records of your runs" in capsys.readouterr().err
    assert _folders(filled) == before
    other = {"schema": record.SCHEMA, "run_id": "toy/tiny/alphatuning/q3-seed9-0123456789",
             "stages": {"adapt (made)": digest(ORPHAN)}}  # fmt: skip
    record.write(filled / "more" / "two.json", other)
    assert _call(filled, "gc", "--yes", "--records", str(filled / "more")) == 0  # beside its own
    assert f"adapt/{digest(ORPHAN)}" in _folders(filled)


def test_what_a_run_renames_meanwhile_is_left_out(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = inventory._size

    def gone(folder: Path) -> int:
        if folder.name == digest(TRAINED):
            raise FileNotFoundError(folder)
        return real(folder)

    monkeypatch.setattr(inventory, "_size", gone)
    found = inventory.take(filled / "store", [filled / "records"]).items
    assert {item.stage for item in found} == {"quantize", "adapt", "decode"}
    assert (digest(TRAINED), inventory.WHOLE) not in {(item.key, item.kind) for item in found}


def test_ls_says_what_is_there_from_which_run_and_how_large(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(filled, "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert digest(CODES) in lines[0] and "kB" in lines[0] and "2 d" in lines[0]  # the largest first
    trained = next(line for line in lines if f"{digest(TRAINED)}  toy/" in line)
    assert trained.endswith("toy/tiny/alphatuning/q3-seed0-0123456789")
    assert next(line for line in lines if digest(ORPHAN) in line and "adapt" in line).endswith("no record")
    assert any(line.endswith("left by a killed process") for line in lines)
    assert lines[-1].startswith("7 folders, ")


def test_gc_plans_first_and_then_removes_only_what_nothing_needs(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _folders(filled)
    assert _call(filled, "gc") == 0
    planned = capsys.readouterr().out
    assert "would remove 4 of 7 folders" in planned and "--yes" in planned and _folders(filled) == before
    assert _call(filled, "gc", "--yes") == 0
    # the codes are named by no record; the adapted scales that one names were made from them
    assert _folders(filled) == {f"quantize/{digest(CODES)}", f"adapt/{digest(TRAINED)}", f"decode/{digest(DECODED)}"}
    assert "removed 4 of 7 folders" in capsys.readouterr().out
    assert _call(filled, "gc", "--yes") == 0
    assert "removed 0 of 3 folders, 0 B" in capsys.readouterr().out


def test_what_a_table_still_wants_or_is_new_stays(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_planned", lambda *given: {("adapt", digest(ORPHAN)), ("decode", digest(ORPHAN))})
    assert _call(filled, "gc", "--yes") == 0
    assert f"adapt/{digest(ORPHAN)}" in _folders(filled) and f"decode/{digest(ORPHAN)}.partial" in _folders(filled)
    monkeypatch.setattr(store, "_planned", lambda *given: set())
    assert _call(filled, "gc", "--yes", "--older", "72") == 0
    assert f"adapt/{digest(ORPHAN)}" in _folders(filled)
    assert _call(filled, "gc", "--yes", "--older", "1") == 0
    assert f"adapt/{digest(ORPHAN)}" not in _folders(filled)


def test_while_a_process_works_what_it_may_need_stays(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    making = digest({"seed": 5})
    (filled / "store" / "adapt" / f".{making}.00000000").mkdir()
    with FileLock(filled / "store" / "adapt" / f"{making}.lock"):
        assert _call(filled, "gc", "--yes") == 0
    kept = _folders(filled)
    assert f"adapt/.{making}.00000000" in kept and f"adapt/{digest(ORPHAN)}" in kept
    assert f"adapt/.{digest(TRAINED)}.0badc0de" not in kept  # its maker is gone
    assert f"a process makes adapt {making}" in capsys.readouterr().out


def test_mistakes_are_one_line(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.main(["ls", "--store", str(tmp_path / "nowhere")]) == 2
    assert _call(filled, "ls", "--yes") == 2
    assert _call(filled, "gc", "--older", "-1") == 2
    (filled / "records" / "torn.json").write_text("{")
    assert _call(filled, "gc", "--yes") == 2  # what this record needs is not known
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and all(line.startswith("error: ") for line in told) and "torn.json" in told[3]
    assert len(_folders(filled)) == 7


def test_tables_without_a_record_keep_their_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys are those under which the run itself would look."""
    from alphatune.tables import experiment
    from alphatune.tables.cells import Planner
    from alphatune.tables.stages import stages

    monkeypatch.setattr(experiment, "names", lambda: ["demo"])
    places = [tmp_path / "none"]
    keys = store._planned([], places)
    overrides = [f"runtime.records={tmp_path / 'none'}"]
    cell = Planner(experiment.load("demo"), overrides, run=True).cells().final[0]
    assert cell.plan is not None and set(stages(cell)) <= keys
