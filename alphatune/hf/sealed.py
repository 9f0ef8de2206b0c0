"""Folders of weights with the checksums of their files beside them, written by the commands and checked before use."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from alphatune.errors import UserError
from alphatune.packed import checksum
from alphatune.store import MANIFEST, file_sha256
from alphatune.store.seal import wrong_file

CHECKSUMS = "checksums.json"  # name of a file -> its bytes and sha256
_EDITED = re.compile(r"README\.md|\.git.*|.*\.md|LICENSE.*")  # what people write after the weights are made


def write(folder: Path) -> None:
    """Write down size and sha256 of the files of `folder`."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != CHECKSUMS]
    found = {
        p.name: {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in files if not _EDITED.fullmatch(p.name)
    }
    (folder / CHECKSUMS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path) -> bool:
    """Check a checkpoint or adapter against the checksums beside its files, among packed weights, or in the
    manifest of the run that left it; False if there are none.

    Raises:
        UserError: a file is missing, or not what was written; names it.
    """
    listed, told = folder / CHECKSUMS, f"download it again, or remove {CHECKSUMS} if you changed it yourself"
    if listed.is_file():
        try:
            files = dict(json.loads(listed.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{listed}: damaged: not readable: {told}") from error
        if reason := _wrong(folder, files):
            raise UserError(f"{folder}: damaged: {reason}: {told}")
        return True
    manifest = folder.parent / MANIFEST
    if folder.name == "adapter" and manifest.is_file():  # what a run left in its store
        try:
            files = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{manifest}: damaged: not readable: run it again") from error
        if reason := _wrong(folder.parent, files):
            raise UserError(f"{folder}: damaged: {reason}: run it again")
        return True
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder}: {path.name}: not a whole safetensors file: {error}") from error
    return checksum.verify(weights)


def _wrong(folder: Path, files: dict[str, object]) -> str | None:
    if not all(isinstance(value, str | dict) for value in files.values()):
        return "its list of files cannot be read"
    return wrong_file(folder, files, others=True)
