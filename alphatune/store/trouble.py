"""What a failed write says of the disk, in one line for a person."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_DISKS = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENOTDIR}
_FREE = 1 << 20  # a disk with less free than this is full
_WRITERS = re.compile(r"PytorchStreamWriter|file write failed|iostream error|Parent directory .* does not exist")


def reason(error: OSError, folder: Path) -> str:
    """Why a file could not be written to `folder`, and what to do."""
    number = error.errno
    if number in _FULL:
        return f"the disk is full ({_free(folder)}): make room, or give another folder"
    if number == errno.EROFS:
        return "the disk is read-only: give another folder"
    if number in (errno.EACCES, errno.EPERM):
        return "Permission denied: the folder belongs to another user or is read-only; give another one"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "the folder is gone: it was removed meanwhile; run the same command again"
    return f"{error.strerror or error}"


def of_store(error: BaseException, root: Path, folder: Path) -> str | None:
    """Why work that writes below `root` failed, in one line, if the disk is to blame; else None.

    Args:
        error: what was raised, by this package or by a library that writes.
        root: the folder that the user gave.
        folder: where the work writes; if it is gone, somebody removed it.
    """
    if not isinstance(error, Exception):
        return None
    end = "; what is finished is kept, and the same command continues"
    if not folder.is_dir():
        return f"{root}: {folder.name} was removed while it was written to: run the same command again"
    for found in _causes(error):
        number = _number(found)
        if number is None:
            full = _WRITERS.search(str(found)) and _room(root) < _FREE
            number = errno.ENOSPC if full else None
        if number in _OF_DISKS and (number in _FULL or _within(found, root)):
            return f"{root}: cannot be written: {reason(OSError(number, os.strerror(number)), root)}{end}"
    return None


def room(folder: Path) -> int:
    """Bytes that can be written to `folder`, or to where it would be made."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def bytes_in_words(count: float) -> str:
    """E.g. "3.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _free(folder: Path) -> str:
    return f"{bytes_in_words(_room(folder))} free"


def _room(folder: Path) -> int:
    try:
        return room(folder)
    except OSError:
        return 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    """The system's error number, which libraries in Rust put into words."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _within(error: BaseException, root: Path) -> bool:
    """Whether an error is of a file below `root`; one that names no file is, as the work writes nowhere else."""
    name = getattr(error, "filename", None)
    return not isinstance(name, str) or Path(name).absolute().is_relative_to(root.absolute())
