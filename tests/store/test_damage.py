"""Artefacts that are damaged, foreign, or left half-made are found and made again; who waits is told for whom."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alphatune.errors import UserError
from alphatune.store import MANIFEST, Store, digest, path_part, unwritable, write_atomically
from alphatune.store import files as files_of_store


def _make(folder: Path) -> None:
    (folder / "a.txt").write_text("one")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("two")


def _other(folder: Path) -> None:
    (folder / "a.txt").write_text("eno")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("owt")


def _damage(kind: str, folder: Path, other: Path) -> None:
    file, manifest = folder / "sub" / "a.txt", folder / MANIFEST
    content = json.loads(manifest.read_text())
    if kind == "emptied":
        file.write_bytes(b"")
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif kind == "flipped":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    elif kind == "removed":
        file.unlink()
    elif kind == "swapped within":
        os.replace(folder / "a.txt", file)
        (folder / "a.txt").write_text("two")
    elif kind == "swapped with another's":
        shutil.copy(other / "sub" / "a.txt", file)
    elif kind == "another's folder":
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    elif kind == "no files listed":
        manifest.write_text(json.dumps(content | {"files": {}}))
    elif kind == "a file added":
        (folder / "more.txt").write_text("")
    elif kind == "another spec":
        manifest.write_text(json.dumps(content | {"spec": {"n": 2}}))
    elif kind == "manifest a list":
        manifest.write_text("[]")
    elif kind == "manifest nested":
        manifest.write_text("[" * 100_000)
    elif kind == "manifest not text":
        manifest.write_bytes(b"\xff\xfe\x00")


KINDS = ["emptied", "cut", "flipped", "removed", "swapped within", "swapped with another's", "another's folder",
         "no files listed", "a file added", "another spec", "manifest a list", "manifest nested",
         "manifest not text"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_seen_and_the_artefact_made_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    folder, other = store.get("stage", {"n": 1}, _make).path, store.get("stage", {"n": 2}, _other).path
    _damage(kind, folder, other)
    again = store.get("stage", {"n": 1}, _make)
    assert not again.reused and f"{digest({'n': 1})} is damaged" in caplog.text
    assert (folder / "a.txt").read_text() == "one" and (folder / "sub" / "a.txt").read_text() == "two"
    assert store.get("stage", {"n": 1}, _make).reused


def test_manifests_that_list_hashes_alone_are_read(tmp_path: Path) -> None:
    """Those written before sizes were listed, too."""
    store = Store(tmp_path)
    folder = store.get("stage", {}, _make).path
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: listed["sha256"] for name, listed in manifest["files"].items()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert store.get("stage", {}, _make).reused


def _hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*")]


def test_what_killed_makers_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    key = digest({})
    for name in (f".{key}.0123abcd", f".{key}.ffffffff"):
        (tmp_path / "stage" / name / "sub").mkdir(parents=True)
        (tmp_path / "stage" / name / "half").write_text("half")
    Store(tmp_path).get("stage", {}, _make)
    assert _hidden(tmp_path) == []


def _ended_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_killed_writers_left_is_removed_by_the_next_write_and_that_of_living_ones_is_not(tmp_path: Path) -> None:
    path, host = tmp_path / "x.json", files_of_store.beside(tmp_path / "x").name.split(".")[2].split("-")[0]
    (tmp_path / f".x.json.{host}-{_ended_process()}-0123abcd").write_text("{")
    (tmp_path / f".x.json.{host}-{os.getpid()}-0123abcd").write_text("{")
    (tmp_path / ".x.json.elsewhere-1-0123abcd").write_text("{")
    old = tmp_path / ".x.json.elsewhere-2-0123abcd"
    old.write_text("{")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    (tmp_path / ".x.json.swp").write_text("an editor's")
    write_atomically(path, "{}")
    assert sorted(_hidden(tmp_path)) == sorted(
        [f".x.json.{host}-{os.getpid()}-0123abcd", ".x.json.elsewhere-1-0123abcd", ".x.json.swp"]
    )
    assert path.read_text() == "{}"


def test_who_waits_is_told_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = (
        "import sys, time; from pathlib import Path; from alphatune.store import Store\n"
        "def make(folder):\n"
        "    print('begun', flush=True); time.sleep(2.5); (folder / 'a.txt').write_text('theirs')\n"
        f"Store({str(tmp_path)!r}).get('adapt', {{}}, make)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "begun\n"
    with caplog.at_level(logging.INFO, logger="alphatune"):
        found = Store(tmp_path).get("adapt", {}, lambda folder: pytest.fail("made twice"))
    other.wait()
    assert found.reused and (found.path / "a.txt").read_text() == "theirs"
    assert f"waiting for process {other.pid} on " in caplog.text
    assert f"which makes adapt {digest({})}" in caplog.text


def test_threads_of_one_process_wait_for_one_another_too(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(1)
        time.sleep(0.1)

    threads = [threading.Thread(target=Store(tmp_path).get, args=("stage", {}, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def _raises(number: int, words: bool = False):  # type: ignore[no-untyped-def]
    def make(folder: Path) -> None:
        if words:  # as libraries in Rust say it
            raise RuntimeError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
        raise OSError(number, os.strerror(number), str(folder / "x"))

    return make


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(28, "the disk is full"), (122, "the disk is full"), (30, "the disk is read-only"), (13, "another user")],
)
def test_trouble_with_the_disk_is_one_line_with_the_folder(
    number: int, reason: str, words: bool, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        Store(tmp_path).get("stage", {}, _raises(number, words))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}: cannot be written: ") and reason in text and "\n" not in text
    assert "give another" in text and "the same command continues" in text
    assert _hidden(tmp_path) == []
    assert not Store(tmp_path).get("stage", {}, _make).reused  # and with room again it goes on


def test_a_folder_removed_meanwhile_is_one_line(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        shutil.rmtree(tmp_path / "store")
        (folder / "x").write_text("")

    with pytest.raises(UserError, match="was removed while it was written to: run the same command again"):
        Store(tmp_path / "store").get("stage", {}, make)
    assert not Store(tmp_path / "store").get("stage", {}, _make).reused


def test_other_failures_of_the_work_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        Path("/nowhere/weights").read_bytes()

    with pytest.raises(FileNotFoundError):
        Store(tmp_path).get("stage", {}, make)


@pytest.mark.skipif(os.geteuid() == 0, reason="the system's rights do not bind root")
def test_a_folder_of_another_user_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store" / "stage").mkdir(parents=True, mode=0o555)
    with pytest.raises(UserError, match="another user"):
        Store(tmp_path / "store").get("stage", {}, _make)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../x", "../../../x", ".hidden", "a\0b", "a\\b", "a:b", "a\nb",
                                  "x" * 121, "a*b"])  # fmt: skip
def test_names_that_are_no_part_of_a_path_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^model\.name=.*cannot name a folder"):
        path_part(name, "model.name")


@pytest.mark.parametrize(
    ("name", "part"),
    [("glue/rte", "glue-rte"), ("mini-gpt2", "mini-gpt2"), ("/etc", "-etc"), ("Modèle 2.0", "Modèle 2.0")],
)
def test_a_name_is_one_part_of_a_path(name: str, part: str, tmp_path: Path) -> None:
    assert path_part(name, "model.name") == part and (tmp_path / part).parent == tmp_path


def test_trying_a_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f".alphatune.host-{_ended_process()}-0123abcd").mkdir()
    assert unwritable(tmp_path / "new" / "er") is None
    assert [p.name for p in tmp_path.iterdir()] == [p.name for p in tmp_path.glob(".alphatune.host-*")]
