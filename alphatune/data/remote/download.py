"""Getting one task's files from the net into a folder, so that what lies there is whole and verified.

A file is written under a unique temporary name, checked against its pin, flushed to disk and renamed, under a lock:
two processes that want the same file share one download, and a killed one leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from alphatune.data.remote.catalogue import Hub, Release, Remote
from alphatune.data.source import Source, safe_name
from alphatune.errors import UserError
from alphatune.progress import Progress

MAX_BYTES = 64 * 2**20  # no file of the catalogue is larger than 25 MB
ATTEMPTS = 3
TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two pieces of the answer
MANIFEST = "manifest.json"


def git_blob(path: Path) -> str:
    """The id that git gives to a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def missing(entry: Release, folder: Path) -> list[str]:
    """What a cache folder lacks: names of files that are absent or damaged. Empty: the folder is complete."""
    if entry.hub:
        return _missing_from_manifest(folder)
    return [f.name for f in entry.files if not (folder / f.name).is_file() or git_blob(folder / f.name) != f.git_blob]


def fetch(entry: Release, folder: Path, *, schemes: tuple[str, ...] = ("https",), progress: bool = False) -> None:
    """Completes a cache folder.

    Args:
        entry: what belongs there.
        folder: created if need be.
        schemes: URL schemes allowed; only tests add "http".
        progress: show a bar.

    Raises:
        UserError: a source did not answer, or sent something else than the pinned content.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        with lock:
            for left in [*folder.parent.glob(f".{folder.name}.*.part"), *folder.glob(".*.part")]:  # of killed downloads
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if entry.hub and missing(entry, folder):
                _fetch_hub(entry.hub, folder)
            for remote in entry.files:
                target = folder / safe_name(remote.name)
                if not target.is_file() or not _pinned(target, remote):
                    folder.mkdir(exist_ok=True)
                    _fetch_file(remote, target, schemes, progress)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error}; set ALPHATUNE_CACHE to a writable folder") from error


def _fetch_file(remote: Remote, target: Path, schemes: tuple[str, ...], progress: bool) -> None:
    failures = []
    for url in remote.urls:
        if url.partition("://")[0] not in schemes:
            raise UserError(f"{url}: only {', '.join(schemes)} addresses are downloaded")
        for attempt in range(1, ATTEMPTS + 1):
            with _temporary(target) as temporary:
                problem, final = _download(url, temporary, progress)
                if not problem and not _pinned(temporary, remote):
                    problem, final = f"not the pinned content (git blob {remote.git_blob})", True
                if not problem:
                    os.replace(temporary, target)
                    _sync_folder(target.parent)
                    return
            failures.append(f"{url}: {problem}")
            if final:
                break
            if attempt < ATTEMPTS:
                time.sleep(0.5 * 2 ** (attempt - 1))
    raise UserError(f"{remote.name}: no source gave it: {'; '.join(dict.fromkeys(failures))}")


def _pinned(path: Path, remote: Remote) -> bool:
    """Whether a file is the one of the catalogue: by git's id, and by its sha256 where that is known."""
    if git_blob(path) != remote.git_blob:
        return False
    return remote.sha256 is None or hashlib.sha256(path.read_bytes()).hexdigest() == remote.sha256


def _download(url: str, path: Path, progress: bool) -> tuple[str, bool]:
    """Writes the answer to `path`. Returns what went wrong ("" for nothing), and whether trying again is pointless."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, allow_redirects=False) as answer:
            if answer.status_code != 200:
                return f"HTTP status {answer.status_code}", answer.status_code < 500 and answer.status_code != 429
            size = 0
            with open(path, "wb") as file, Progress(path.parent.name, unit="byte", show=progress) as shown:
                for piece in answer.iter_content(1 << 16):
                    size += len(piece)
                    if size > MAX_BYTES:
                        return f"larger than {MAX_BYTES} bytes", True
                    file.write(piece)
                    shown.advance(len(piece))
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        return f"{type(error).__name__}: {error}", False
    return "", False


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A unique path beside `target`, gone afterwards. Made by open(), so its mode follows the umask."""
    path = target.parent / f".{target.name}.{uuid.uuid4().hex}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _fetch_hub(hub: Hub, folder: Path) -> None:
    """Writes every split as parquet, then the manifest, into a new folder that is renamed last."""
    import datasets

    try:
        loaded = datasets.load_dataset(hub.repo, hub.config, revision=hub.revision)
    except Exception as error:  # the library raises its own, httpx's and built-in errors here
        raise UserError(f"{hub.repo}@{hub.revision}: {type(error).__name__}: {error}") from error
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    temporary.mkdir()
    try:
        hashes = {}
        for split, rows in loaded.items():
            path = temporary / f"{safe_name(str(split))}.parquet"
            rows.to_parquet(str(path))
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = {"repo": hub.repo, "config": hub.config, "revision": hub.revision, "files": hashes}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # incomplete or damaged, or this would not run
        os.rename(temporary, folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _missing_from_manifest(folder: Path) -> list[str]:
    try:
        hashes = {name: sha256.text() for name, sha256 in Source(folder).json(MANIFEST)["files"].items()}
        names = [safe_name(name) for name in hashes]
    except UserError:
        return [MANIFEST]  # absent or damaged: written last, so nothing else in the folder can be trusted
    return [
        name
        for name in names
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != hashes[name]
    ]


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the system allows opening folders."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
