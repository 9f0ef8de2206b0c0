"""Downloads from a server on this machine: only whole, pinned files ever get their name."""

from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alphatune.config import Data
from alphatune.data import load
from alphatune.data.remote import download
from alphatune.data.remote.catalogue import Hub, Release, Remote
from alphatune.errors import UserError

CONTENT = "name : Café||A text . \n".encode() * 5000
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers /<behaviour>; counts the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        first = self.server.requests.count(self.path) == 1
        status, length, body = 200, len(CONTENT), CONTENT
        if self.path == "/absent":
            status, length, body = 404, 0, b""
        elif self.path == "/busy-once" and first:
            status, length, body = 503, 0, b""
        elif self.path == "/moved":
            status, length, body = 302, 0, b""
        elif self.path == "/cut-once" and first:
            body = CONTENT[:1000]
        elif self.path == "/other":
            length, body = 5, b"other"
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if self.path == "/moved":
            self.send_header("Location", "/good")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def entry(server: Server, *paths: str) -> Release:
    return Release(("e2e",), (Remote("test.txt", tuple(map(server.url, paths)), BLOB),))


def fetch(wanted: Release, folder: Path) -> None:
    download.fetch(wanted, folder, schemes=("http",))


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.endswith(".part")]


def test_a_whole_file_arrives_once_with_the_mode_of_the_umask(server, tmp_path):
    folder = tmp_path / "cache" / "e2e"
    before = os.umask(0o027)
    try:
        fetch(entry(server, "good"), folder)
    finally:
        os.umask(before)
    assert (folder / "test.txt").read_bytes() == CONTENT
    assert (folder / "test.txt").stat().st_mode & 0o777 == 0o640
    assert download.missing(entry(server, "good"), folder) == []
    fetch(entry(server, "good"), folder)
    assert server.requests == ["/good"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("path", ["busy-once", "cut-once"])
def test_a_passing_fault_is_tried_again(server, tmp_path, path):
    fetch(entry(server, path), tmp_path / "e2e")
    assert (tmp_path / "e2e" / "test.txt").read_bytes() == CONTENT
    assert server.requests == [f"/{path}"] * 2


@pytest.mark.parametrize("path", ["absent", "other", "moved"])
def test_the_next_mirror_is_asked(server, tmp_path, path):
    fetch(entry(server, path, "good"), tmp_path / "e2e")
    assert server.requests == [f"/{path}", "/good"]  # no second try where it is pointless


@pytest.mark.parametrize(
    ("path", "told"), [("absent", "HTTP status 404"), ("other", "not the pinned content"), ("moved", "HTTP status 302")]
)
def test_a_failed_download_leaves_nothing(server, tmp_path, path, told):
    with pytest.raises(UserError, match=f"test.txt: no source gave it: .*{told}"):
        fetch(entry(server, path), tmp_path / "e2e")
    assert list((tmp_path / "e2e").iterdir()) == []


def test_too_large_an_answer_is_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="larger than 1000 bytes"):
        fetch(entry(server, "good"), tmp_path / "e2e")


def test_an_unreachable_server_is_tried_three_times(server, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(download, "_download", lambda url, path, progress: calls.append(url) or ("down", False))
    with pytest.raises(UserError, match="down"):
        fetch(entry(server, "good"), tmp_path / "e2e")
    assert len(calls) == download.ATTEMPTS


def test_only_https_by_default(server, tmp_path):
    with pytest.raises(UserError, match="only https addresses are downloaded"):
        download.fetch(entry(server, "good"), tmp_path / "e2e")
    assert server.requests == []


def test_two_at_once_share_one_download(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(entry(server, "good"), tmp_path / "e2e")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == ["/good"]


def test_a_damaged_or_half_written_cache_is_completed(server, tmp_path):
    folder = tmp_path / "e2e"
    folder.mkdir()
    (folder / "test.txt").write_bytes(CONTENT[:-1])
    (folder / ".test.txt.0.part").write_bytes(CONTENT)  # what a killed process leaves
    assert download.missing(entry(server, "good"), folder) == ["test.txt"]
    fetch(entry(server, "good"), folder)
    assert (folder / "test.txt").read_bytes() == CONTENT


def test_names_of_the_catalogue_cannot_leave_the_folder(server, tmp_path):
    evil = Release(("e2e",), (Remote("../evil", (server.url("good"),), BLOB),))
    with pytest.raises(UserError, match="not a file name inside a data folder"):
        fetch(evil, tmp_path / "e2e")


def test_an_unwritable_cache_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*ALPHATUNE_CACHE"):
        fetch(entry(server, "good"), tmp_path / "file" / "e2e")


@pytest.fixture
def hub(monkeypatch):
    """A hub that has four rows of SST-2, without a network."""
    import datasets

    label = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": label})
    rows = {"sentence": ["good ", "bad "], "label": [1, 0]}
    loaded = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict(rows, features=features),
            "validation": datasets.Dataset.from_dict(rows, features=features),
            "test": datasets.Dataset.from_dict({"sentence": ["so-so "], "label": [-1]}, features=features),
        }
    )
    calls = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: calls.append((a, k)) or loaded)
    return calls


def test_a_hub_data_set_becomes_verified_parquet(hub, tmp_path):
    wanted, folder = Release(("sst2",), hub=Hub("nyu-mll/glue", "f" * 40, "sst2")), tmp_path / "data" / "sst2"
    assert download.missing(wanted, folder) == ["manifest.json"]
    fetch(wanted, folder)
    assert hub == [(("nyu-mll/glue", "sst2"), {"revision": "f" * 40})]
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    assert download.missing(wanted, folder) == []

    data = Data(dir=str(folder), allow_count_mismatch=True)
    dataset = load.load(load.task_config("glue/sst2"), data)
    assert [(e.text, e.label) for e in dataset.train] == [("good ", 1), ("bad ", 0)]
    assert dataset.test[0].label is None

    (folder / "train.parquet").write_bytes(b"PAR1")
    assert download.missing(wanted, folder) == ["train.parquet"]
    fetch(wanted, folder)
    assert download.missing(wanted, folder) == [] and len(hub) == 2
    assert not leftovers(tmp_path)


def test_a_failing_hub_is_one_message(monkeypatch, tmp_path):
    import datasets

    def fail(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    wanted = Release(("samsum",), hub=Hub("knkarthick/samsum", "f" * 40))
    with pytest.raises(UserError, match="knkarthick/samsum@f+: ConnectionError: no route"):
        fetch(wanted, tmp_path / "samsum")
    assert not (tmp_path / "samsum").exists() and not leftovers(tmp_path)
