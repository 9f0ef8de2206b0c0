"""What a store holds, which runs it comes from, and what of it nothing needs any more.

An artefact's manifest holds the spec that it was made from, and in it the specs of all that it builds on. So what a
record names keeps, through its manifests, everything behind it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alphatune.errors import UserError
from alphatune.run import record
from alphatune.store import MANIFEST, claimed_elsewhere, digest

WHOLE, PARTIAL, LEFT, DAMAGED = "whole", "partial", "left", "damaged"
Key = tuple[str, str]  # stage, hash


@dataclass(frozen=True)
class StoreFolder:
    """A folder of the store.

    Its kind: a whole artefact, what an unfinished one continues from, what a killed maker left, or a folder without a
    manifest that can be read.
    """

    kind: str
    stage: str
    key: str
    path: Path
    bytes: int
    changed: float  # seconds since the epoch
    inside: frozenset[str] = frozenset()  # keys of all that it builds on
    runs: tuple[str, ...] = ()  # whose records name it, the one that made it first

    @property
    def busy(self) -> bool:
        """Whether a process makes it at this moment; of another host's it is not known whether it is alive."""
        try:
            with FileLock(self.path.with_name(f"{self.key}.lock"), timeout=0):
                return claimed_elsewhere(self.path.with_name(f"{self.key}.maker"))
        except Timeout:
            return True


@dataclass
class Inventory:
    """All folders of a store."""

    items: list[StoreFolder] = field(default_factory=list)

    def needless(self, planned: Iterable[Key], older: float) -> Iterator[tuple[StoreFolder, str]]:
        """What nothing needs, with the reason.

        Args:
            planned: artefacts that cells of tables without a record would use.
            older: seconds; what changed later may belong to a run that has not come to its record.
        """
        whole = {(i.stage, i.key) for i in self.items if i.kind == WHOLE}
        wanted = set(planned)
        kept = {key for _, key in wanted}
        for item in self.items:
            if item.runs or (item.stage, item.key) in wanted:
                kept |= {item.key, *item.inside}
        working = [item for item in self.items if item.busy]
        before = time.time() - older
        for item in self.items:
            if item in working:
                continue
            if item.kind == LEFT:
                yield item, "left by a process that was killed"
            elif item.kind == PARTIAL and (item.stage, item.key) in whole:
                yield item, "what it continues is finished"
            elif not working and item.changed < before and item.key not in kept:
                yield item, "damaged, of no record" if item.kind == DAMAGED else "of no record and no table"


def take(root: Path, records: Iterable[Path]) -> Inventory:
    """The inventory of the store at `root`, with the runs of the folders `records`. What goes meanwhile is left out.

    Raises:
        UserError: a file among the records is none: what it needs is not known.
    """
    users: dict[str, list[str]] = {}
    for path in sorted(path for folder in records for path in folder.rglob("*.json")):
        made = record.read(path)
        if not isinstance(made.get("stages"), dict) or "run_id" not in made:
            raise UserError(f"{path}: a part of the record is missing, so what it needs is not known")
        for stage, key in made["stages"].items():
            name = str(made["run_id"])
            users.setdefault(str(key), []).insert(0 if stage.endswith("(made)") else 10**9, name)
    found = Inventory()
    for stage in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []:
        for path in sorted(p for p in stage.iterdir() if p.is_dir() and not p.is_symlink()):
            with contextlib.suppress(FileNotFoundError):  # a run has just renamed or removed it
                found.items.append(_folder(stage.name, path, users))
    return found


def _folder(stage: str, path: Path, users: dict[str, list[str]]) -> StoreFolder:
    size, changed = _size(path), path.stat().st_mtime
    if path.name.startswith("."):
        return StoreFolder(LEFT, stage, path.name[1:].partition(".")[0], path, size, changed)
    if path.name.endswith(".partial"):
        newest = max((p.stat().st_mtime for p in path.rglob("*")), default=changed)
        return StoreFolder(PARTIAL, stage, path.name.removesuffix(".partial"), path, size, max(changed, newest))
    try:
        spec = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["spec"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return StoreFolder(DAMAGED, stage, path.name, path, size, changed, runs=tuple(users.get(path.name, ())))
    inside = frozenset(_keys(spec)) - {path.name}
    return StoreFolder(WHOLE, stage, path.name, path, size, changed, inside, tuple(users.get(path.name, ())))


def _keys(spec: Any) -> Iterator[str]:
    """The hashes of all specs inside a spec."""
    if isinstance(spec, dict):
        yield digest(spec)
        for value in spec.values():
            yield from _keys(value)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def remove(item: StoreFolder) -> bool:
    """Remove a folder of the store. False if a process has begun to make it anew; then it stays."""
    try:
        with FileLock(item.path.with_name(f"{item.key}.lock"), timeout=0):
            if claimed_elsewhere(item.path.with_name(f"{item.key}.maker")):
                return False
            shutil.rmtree(item.path)
    except Timeout:
        return False
    return True
