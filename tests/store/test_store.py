"""The store: whole artefacts or none, damage noticed, one maker at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from alphatune.store import MANIFEST, Store, cache, digest, write_atomically
from alphatune.store.artifacts import ReadOnly


def _make(folder: Path) -> None:
    (folder / "out.txt").write_text("result")


def test_made_once_then_reused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.get("stage", {"a": 1}, _make)
    assert not first.reused and (first.path / "out.txt").read_text() == "result"
    second = store.get("stage", {"a": 1}, lambda folder: pytest.fail("made again"))
    assert second.reused and second.path == first.path
    assert json.loads((first.path / MANIFEST).read_text())["spec"] == {"a": 1}


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_the_folder_may_read_its_files(tmp_path: Path, mask: int, mode: int) -> None:
    def make(folder: Path) -> None:
        (folder / "adapter").mkdir()
        save_file({"a": torch.zeros(2)}, folder / "adapter" / "a.safetensors")  # written for its owner alone

    before = os.umask(mask)
    try:
        made = Store(tmp_path).get("stage", {"mask": mask}, make)
    finally:
        os.umask(before)
    files = [path for path in made.path.rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {"a.safetensors": mode, MANIFEST: mode}


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        Store(tmp_path).get("stage", {}, fail)
    assert [p.name for p in (tmp_path / "stage").iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_noticed_and_the_artefact_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    path = store.get("stage", {}, _make).path
    file = path / (MANIFEST if damage == "manifest" else "out.txt")
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        file.write_text("rezult")
    else:
        file.write_text("")
    again = store.get("stage", {}, _make)
    assert not again.reused and (again.path / "out.txt").read_text() == "result"


def _slow(folder: Path) -> None:
    time.sleep(0.3)
    (folder / "out.txt").write_text(str(time.monotonic_ns()))


def _get(root: str) -> bool:
    return Store(root).get("stage", {"x": 2}, _slow).reused


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        reused = pool.map(_get, [str(tmp_path)] * 3)
    assert sorted(reused) == [False, True, True]


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))))
def test_the_key_does_not_depend_on_the_order_of_keys(spec: dict) -> None:
    assert digest(spec) == digest(dict(reversed(spec.items())))


def test_nan_has_no_key() -> None:
    with pytest.raises(ValueError):
        digest({"lr": float("nan")})


def test_atomic_write_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "x.json", "one")
    write_atomically(tmp_path / "a" / "x.json", "two")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.json"]
    assert (tmp_path / "a" / "x.json").read_text() == "two"


def test_a_whole_artefact_that_lacks_what_may_be_had_now_is_made_again(tmp_path: Path) -> None:
    store, made = Store(tmp_path), []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "n").write_text(str(len(made)))

    store.get("s", {"a": 1}, make)
    assert store.get("s", {"a": 1}, make, lambda folder: None).reused
    again = store.get("s", {"a": 1}, make, lambda folder: "a part")
    assert not again.reused and (again.path / "n").read_text() == "2"
    assert ReadOnly(tmp_path).get("s", {"a": 1}, lack=lambda folder: "a part").reused


def test_a_cache_that_is_full_keeps_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
    cache.keep(tmp_path / "c" / "index", b"bytes")
    assert not list((tmp_path / "c").iterdir())
    monkeypatch.undo()
    cache.keep(tmp_path / "c" / "index", b"bytes")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["index"]
