"""The records of a folder by what they are a run of, each file read once.

Where data or weights are not here, a cell's record is found by working out its name from the cell's config and the
hashes that records give. Records that share these hashes share the name, so it is worked out once for all of them.
"""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.run import identity, record

log = logging.getLogger("alphatune")


@dataclass(frozen=True)
class Entry:
    """What finds a record: its run, when it was finished, and as JSON what it says of its weights and data files."""

    path: Path
    run_id: str
    finished: str
    backbone: str
    files: str


class Recorded:
    """The records below a folder, found by short name (task/model/method/q-seed) as they are asked for."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._folders: dict[Path, dict[str, list[Entry]]] = {}  # folder -> short name -> records

    def find(self, config: Config, backbone: dict[str, Any] | None, files: dict[str, str] | None) -> Path | None:
        """The newest record of this run; where `backbone` or `files` are not known, with those that records give.

        One that earlier code of the run's solver or scales made is taken where there is no other.
        """
        entries = self._named(identity.short_name(config))
        for numbers in identity.today_and_earlier(config):
            wanted = {
                identity.plan(config, backbone or json.loads(b), files or json.loads(f), numbers).run_id
                for b, f in dict.fromkeys((e.backbone, e.files) for e in entries)
            }
            matches = [(e.finished, e.path) for e in entries if e.run_id in wanted]
            if matches:
                return max(matches)[1]
        return None

    def _named(self, name: str) -> list[Entry]:
        folder = (self.root / name).parent
        if folder not in self._folders:
            by_name: dict[str, list[Entry]] = {}
            for path in sorted(folder.glob("*.json")):
                changed = path.stat()
                entry = _entry(path, changed.st_mtime_ns, changed.st_size)
                if entry is not None:
                    by_name.setdefault(path.stem.rpartition("-")[0], []).append(entry)
            self._folders[folder] = by_name
        return self._folders[folder].get(name.rpartition("/")[2], [])


@functools.lru_cache(maxsize=100_000)
def _entry(path: Path, changed: int, size: int) -> Entry | None:
    """What finds a record; one that cannot be read is told once and left out, so that it stops no table."""
    try:
        made = record.read(path)
        parts = made["model"]["identity"], made["data"]["files"]
        backbone, files = (json.dumps(part, sort_keys=True) for part in parts)
        return Entry(path, str(made["run_id"]), str(made["finished"]), backbone, files)
    except (UserError, KeyError, TypeError) as error:
        log.warning("left out: %s", error if isinstance(error, UserError) else f"{path}: not a whole record ({error})")
        return None
