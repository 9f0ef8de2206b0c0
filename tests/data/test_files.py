"""Where files are looked for, and the one message when they are nowhere."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.config import Data
from alphatune.data.load import find, task_config
from alphatune.data.remote import catalogue, download, files
from alphatune.errors import UserError

E2E = task_config("e2e")


@pytest.fixture(autouse=True)
def _no_places(monkeypatch, tmp_path):
    """No data, no network: every test starts from an empty machine."""
    monkeypatch.delenv("ALPHATUNE_DATA", raising=False)
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def put(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.txt").write_text("name : A||A is open . \n")
    return folder


def fill_cache(monkeypatch, tmp_path: Path) -> Path:
    """A complete cache of a one-file entry that stands in for E2E."""
    folder = put(tmp_path / "cache" / "data" / "e2e")
    remote = catalogue.Remote("test.txt", ("https://nowhere.invalid/x",), download.git_blob(folder / "test.txt"))
    monkeypatch.setattr(files, "entry", lambda task: catalogue.Release(("e2e",), (remote,)))
    return folder


@pytest.mark.parametrize("place", ["", "e2e", "e2e_data"])
def test_a_root_or_the_task_s_own_folder(monkeypatch, tmp_path, place):
    folder = put(tmp_path / "root" / place)
    assert find(E2E, Data(dir=str(tmp_path / "root"))) == folder
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "root"))
    assert find(E2E, Data()) == folder


def test_the_order_is_dir_then_environment_then_cache(monkeypatch, tmp_path):
    cache = fill_cache(monkeypatch, tmp_path)
    assert find(E2E, Data()) == cache
    named = put(tmp_path / "named" / "e2e")
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "named"))
    assert find(E2E, Data()) == named
    chosen = put(tmp_path / "chosen")
    assert find(E2E, Data(dir=str(chosen))) == chosen


def test_the_environment_may_name_another_task_s_folder(monkeypatch, tmp_path):
    cache = fill_cache(monkeypatch, tmp_path)
    other = tmp_path / "samsum"
    other.mkdir()
    (other / "train.json").write_text("[]")
    monkeypatch.setenv("ALPHATUNE_DATA", str(other))
    assert find(E2E, Data()) == cache


def test_a_named_folder_is_not_replaced_silently(monkeypatch, tmp_path):
    fill_cache(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="data.dir=.*gone: no such folder"):
        find(E2E, Data(dir=str(tmp_path / "gone")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="data.dir=.*empty: no files of e2e there or in its e2e; docs/data.md"):
        find(E2E, Data(dir=str(tmp_path / "empty")))


def test_glue_folders(tmp_path):
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    (folder / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    assert find(task_config("glue/rte"), Data(dir=str(tmp_path))) == folder


def test_offline_is_one_message_that_says_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError) as caught:
        find(E2E, Data())
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "task=e2e",
        str(tmp_path / "mine"),
        str(tmp_path / "cache" / "data" / "e2e"),
        "HF_HUB_OFFLINE is set",
        "make data TASK=e2e",
        "$ALPHATUNE_DATA/e2e",
        "task=toy model=tiny",
    ):
        assert part in message
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UserError, match=r"data.offline=true.*make data TASK=glue/cola"):
        find(task_config("glue/cola"), Data(offline=True))


def test_a_damaged_cache_is_named(monkeypatch, tmp_path):
    folder = fill_cache(monkeypatch, tmp_path)
    (folder / "test.txt").write_text("name : A||A is shut . \n")
    with pytest.raises(UserError, match=r"the cache \(.*damaged: test.txt\)"):
        find(E2E, Data())


@pytest.mark.parametrize("hang", ["name lookup", "connection", "refused"])
def test_without_network_the_message_comes_in_seconds(monkeypatch, hang):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)

    def connect(address, timeout=None):
        if hang == "name lookup":  # getaddrinfo knows no time limit
            time.sleep(8)
        elif hang == "connection":
            time.sleep(timeout)
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "create_connection", connect)
    started = time.monotonic()
    with pytest.raises(UserError, match="no connection to raw.githubusercontent.com:443 within 2 s"):
        find(E2E, Data())
    with pytest.raises(UserError, match="no connection to huggingface.co:443"):
        files.resolve(task_config("samsum"), Data(), lambda folder, task: False)
    assert time.monotonic() - started < 5


def test_a_proxy_is_what_has_to_be_reachable(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert files._first_hop("https://huggingface.co/x") == ("proxy.example", 3128)
    assert files._first_hop("https://inside.example") == ("inside.example", 443)


def test_the_reconstruction_cannot_be_downloaded():
    with pytest.raises(UserError, match="task=dart_partial: .*published nowhere.*task=toy model=tiny"):
        find(task_config("dart_partial"), Data())


def test_every_source_is_pinned():
    for name in ("webnlg", "dart", "e2e"):
        for remote in catalogue.entry(task_config(name)).files:
            assert re.fullmatch("[0-9a-f]{40}", remote.git_blob)
            assert remote.sha256 is None or re.fullmatch("[0-9a-f]{64}", remote.sha256)
            assert all(re.match(r"https://raw\.githubusercontent\.com/\w+/\w+/[0-9a-f]{40}/", u) for u in remote.urls)
    for name in ("samsum", "mnli", "glue/qqp"):
        hub = catalogue.entry(task_config(name)).hub
        assert hub is not None and re.fullmatch("[0-9a-f]{40}", hub.revision)


def test_the_task_files_state_what_the_catalogue_pins():
    conf = ROOT / "conf" / "task"
    for path in conf.rglob("*.yaml"):
        text, task = path.read_text(encoding="utf-8"), task_config(path.relative_to(conf).with_suffix("").as_posix())
        if task.reader in ("toy", "own") or task.variant == "reconstructed":
            continue
        entry = catalogue.entry(task)
        assert all(remote.git_blob in text for remote in entry.files)
        assert entry.hub is None or f"{entry.hub.repo}@{entry.hub.revision}" in text
        assert json.dumps(task.counts) != "{}" and task.licence and task.metrics
