"""The content-addressed store: every stage's output under the hash of what it was made from.

An artefact is a folder with a manifest written last, so a folder that has one is complete. It is built under a
temporary name, synced and renamed; a turn keeps two processes from making the same one. Its manifest and its files are
checked before use: an artefact that is damaged or of something else is made again, never trusted.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphatune.errors import UserError
from alphatune.store import trouble
from alphatune.store.files import sync_folder
from alphatune.store.seal import digest, fault, seal
from alphatune.store.turns import turn

log = logging.getLogger("alphatune")
Make = Callable[[Path], None]
Lack = Callable[[Path], str | None]


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

    def get(self, stage: str, spec: dict[str, Any], make: Make, lack: Lack | None = None) -> Artifact:
        """The artefact of `stage` for `spec`, made by `make(folder)` if the store does not have it.

        Args:
            stage: the kind of artefact; a folder of the store.
            spec: everything the result depends on, JSON-like; its hash is the key.
            make: fills an empty folder. If it raises, nothing is kept but what `scratch` holds.
            lack: says what a whole artefact "lacks ..." that may be had now, so that it is made again; None: nothing.

        Raises:
            UserError: the disk is full or read-only, or the folder was removed meanwhile.
        """
        key = digest(spec)
        folder = self.root / stage / key
        temporary = folder.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with turn(folder, f"{stage} {key}"):
                for left in folder.parent.glob(f".{key}.*"):  # of makers that were killed: it is our turn
                    shutil.rmtree(left)
                if folder.exists():
                    damage = fault(folder, spec)
                    lacking = f"is damaged ({damage})" if damage else lack(folder) if lack else None
                    if lacking is None:
                        return Artifact(stage, key, folder, reused=True)
                    log.warning("%s: %s %s; making it again", stage, key, lacking)
                    shutil.rmtree(folder)
                temporary.mkdir()
                try:
                    make(temporary)
                    seal(temporary, spec)
                    os.rename(temporary, folder)
                    sync_folder(folder.parent)
                except Exception as error:
                    if told := trouble.of_store(error, self.root, temporary):
                        raise UserError(told) from error
                    raise
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            if told := trouble.of_store(error, self.root, folder.parent):
                raise UserError(told) from error
            raise
        return Artifact(stage, key, folder, reused=False)

    def scratch(self, stage: str, spec: dict[str, Any]) -> Path:
        """A folder that outlives a killed `make` for the same spec: mid-run checkpoints and partial predictions."""
        folder = self.root / stage / f"{digest(spec)}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_scratch(self, stage: str, spec: dict[str, Any]) -> None:
        """Remove what `scratch` held, once the artefact is there."""
        shutil.rmtree(self.root / stage / f"{digest(spec)}.partial", ignore_errors=True)

    def trouble(self, error: OSError, folder: Path) -> str | None:
        """What an error of writing to `folder` of this store means for a person; None if the disk is not to blame."""
        return trouble.of_store(error, self.root, folder)


class ReadOnly(Store):
    """A store that is looked at only: it makes nothing, and it leaves damaged artefacts where they are."""

    def get(self, stage: str, spec: dict[str, Any], make: Make | None = None, lack: Lack | None = None) -> Artifact:
        """The artefact of `stage` for `spec`, whatever it lacks; `make` is not called.

        Raises:
            UserError: the store does not have it, or it is damaged.
        """
        key = digest(spec)
        folder = self.root / stage / key
        found = fault(folder, spec) if folder.is_dir() else "gone or elsewhere"
        if found is not None:
            raise UserError(f"{folder}: {found}; running it again with runtime.force=true makes it anew")
        return Artifact(stage, key, folder, reused=True)

    def clear_scratch(self, stage: str, spec: dict[str, Any]) -> None:
        """Nothing: scratch is for its maker to remove."""
