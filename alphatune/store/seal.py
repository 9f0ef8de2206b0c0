"""Sealed folders: a manifest, written last, says what the folder was made from and which bytes its files have."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from alphatune.store.files import file_sha256, share, write_atomically

MANIFEST = "manifest.json"


def digest(spec: Any) -> str:
    """Hash of a JSON-like value: 16 hex digits, independent of key order."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(folder: Path, spec: dict[str, Any]) -> None:
    """Sync the files of `folder` and write the manifest that makes it whole."""
    share(folder)
    files = {}
    for name, path in _files(folder).items():
        with path.open("rb") as f:
            os.fsync(f.fileno())
        files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    write_atomically(folder / MANIFEST, json.dumps({"spec": spec, "files": files}, indent=1))


def fault(folder: Path, spec: dict[str, Any]) -> str | None:
    """What is wrong with a folder that should be sealed for `spec`, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_from, listed = manifest["spec"], dict(manifest["files"])
        if digest(made_from) != digest(spec):
            return "it was made from something else"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "no readable manifest"
    return wrong_file(folder, listed)


def wrong_file(folder: Path, listed: dict[str, Any], others: bool = False) -> str | None:
    """The first file of `folder` that is not as listed, in words, or None.

    Args:
        listed: name -> {"bytes", "sha256"}, or the sha256 alone.
        others: whether there may be files that are not listed.
    """
    found = _files(folder)
    for name, expected in listed.items():
        size, sha256 = (None, expected)
        if isinstance(expected, dict):
            size, sha256 = expected.get("bytes"), expected.get("sha256")
        path = found.get(name)
        if path is None:
            return f"{name} is missing"
        if size is not None and path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if file_sha256(path) != sha256:
            return f"{name} has changed"
    extra = sorted(found.keys() - listed.keys())
    return f"{extra[0]} does not belong there" if extra and not others else None


def _files(folder: Path) -> dict[str, Path]:
    """The files below `folder` by name, but for the manifest and what a killed write of it left."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(f".{MANIFEST}."))
    return {p.relative_to(folder).as_posix(): p for p in found if p != folder / MANIFEST}
