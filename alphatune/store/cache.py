"""The user's cache folder: what can be made again on any machine, such as downloads, compiled code and indices."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def folder(name: str) -> Path:
    """A part of the cache: below $ALPHATUNE_CACHE, or ~/.cache/alphatune. It may not be there yet."""
    return Path(os.path.expanduser(os.environ.get("ALPHATUNE_CACHE") or "~/.cache/alphatune")) / name


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache; where that is not possible, the next process works it out again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as out:
            try:
                out.write(content)
                out.flush()
                os.replace(out.name, path)
            except OSError:
                os.unlink(out.name)
    except OSError:
        return
