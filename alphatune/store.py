"""The content-addressed store: every stage's output under the hash of what it was made from.

An artefact is a folder with a manifest written last, so a folder that has one is complete. It is built under a
temporary name, synced and renamed; a lock keeps two processes from making the same one. Files are checked against the
manifest's sha256 before use: a damaged artefact is made again, never trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from alphatune.errors import UserError

MANIFEST = "manifest.json"
log = logging.getLogger("alphatune")


def digest(spec: Any) -> str:
    """Hash of a JSON-like value: 16 hex digits, independent of key order."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never a part.

    Raises:
        UserError: the file cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as error:  # no such disk, no right to write, no room
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written to `folder`, or None. It is tried, where the folder is or would be made: rights alone
    do not tell."""
    near = folder
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    if not near.is_dir():
        return f"{near}: cannot be written to: it is not a folder"
    try:
        Path(tempfile.mkdtemp(prefix=".alphatune-", dir=near)).rmdir()
    except OSError as error:
        return f"{near}: cannot be written to: {error.strerror}"
    return None


@dataclass(frozen=True)
class Artifact:
    """A finished stage output."""

    stage: str
    key: str
    path: Path
    reused: bool  # True: it was in the store already


class Store:
    """Artefacts below `root`, in one folder per stage."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def get(self, stage: str, spec: dict[str, Any], make: Callable[[Path], None]) -> Artifact:
        """The artefact of `stage` for `spec`, made by `make(folder)` if the store does not have it.

        Args:
            stage: the kind of artefact; a folder of the store.
            spec: everything the result depends on, JSON-like; its hash is the key.
            make: fills an empty folder. If it raises, nothing is kept but what `scratch` holds.
        """
        key = digest(spec)
        folder = self.root / stage / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                found = fault(folder)
                if found is None:
                    return Artifact(stage, key, folder, reused=True)
                log.warning("%s: %s is damaged (%s); making it again", stage, key, found)
                shutil.rmtree(folder)
            temporary = folder.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
            temporary.mkdir()
            try:
                make(temporary)
                seal(temporary, spec)
                os.rename(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return Artifact(stage, key, folder, reused=False)

    def scratch(self, stage: str, spec: dict[str, Any]) -> Path:
        """A folder that outlives a killed `make` for the same spec: mid-run checkpoints and partial predictions."""
        folder = self.root / stage / f"{digest(spec)}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_scratch(self, stage: str, spec: dict[str, Any]) -> None:
        """Remove what `scratch` held, once the artefact is there."""
        shutil.rmtree(self.root / stage / f"{digest(spec)}.partial", ignore_errors=True)


class ReadOnly(Store):
    """A store that is looked at only: it makes nothing, and it leaves damaged artefacts where they are."""

    def get(self, stage: str, spec: dict[str, Any], make: Callable[[Path], None] | None = None) -> Artifact:
        """The artefact of `stage` for `spec`; `make` is not called.

        Raises:
            UserError: the store does not have it, or it is damaged.
        """
        key = digest(spec)
        folder = self.root / stage / key
        found = fault(folder) if folder.is_dir() else "gone or elsewhere"
        if found is not None:
            raise UserError(f"{folder}: {found}; running it again with runtime.force=true makes it anew")
        return Artifact(stage, key, folder, reused=True)


def seal(folder: Path, spec: dict[str, Any]) -> None:
    """Sync the files of `folder` and write the manifest that makes it whole."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as f:
            os.fsync(f.fileno())
        files[str(path.relative_to(folder))] = file_sha256(path)
    write_atomically(folder / MANIFEST, json.dumps({"spec": spec, "files": files}, indent=1))


def fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or None: no manifest, or files that are not those of the manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable manifest"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} has changed"
    return None
