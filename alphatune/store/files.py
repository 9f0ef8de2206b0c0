"""Writing files so that a kill leaves the old one or the new one, and nothing beside it for long."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import time
import uuid
from pathlib import Path

from alphatune.errors import UserError
from alphatune.store import trouble

_FORGOTTEN = 24 * 3600  # seconds after which a temporary file of another machine belongs to nobody


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never a part.

    Raises:
        UserError: the file cannot be written there.
    """
    temporary = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_forgotten(path)
        with temporary.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:  # no such disk, no right to write, no room
        raise UserError(f"{path}: cannot be written: {trouble.reason(error, path.parent)}") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: cannot be written: a text in it is no valid Unicode") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A hidden path of this process alone, on the file system of `path`, which may take its place."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def clear_forgotten(path: Path) -> None:
    """Remove what `beside(path)` named in processes that have ended without taking it away."""
    start = f".{path.name}."
    for found in path.parent.iterdir() if path.parent.is_dir() else ():
        if found.name.startswith(start) and _forgotten(found, found.name.removeprefix(start)):
            with contextlib.suppress(OSError):
                shutil.rmtree(found) if found.is_dir() else found.unlink()


def _forgotten(path: Path, maker: str) -> bool:
    host, _, rest = maker.rpartition("-")[0].rpartition("-")
    if not rest.isdigit():
        return False  # not one of ours
    with contextlib.suppress(OSError):
        if host != _host():
            return time.time() - path.stat().st_mtime > _FORGOTTEN
        return not alive(int(rest))
    return False


def alive(process: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        pass
    return True


def _host() -> str:
    return "".join(c for c in socket.gethostname() if c.isalnum())[:32] or "host"


def share(folder: Path) -> None:
    """Let all who may read `folder` read the files below it: safetensors writes them for their owner alone."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(PermissionError):  # file systems without rights of their own
                path.chmod(folder.stat().st_mode & 0o666)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system allows opening folders."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync files only
                raise
        finally:
            os.close(handle)


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written to `folder`, or None. It is tried, where the folder is or would be made: rights alone
    do not tell."""
    near = folder
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    if not near.is_dir():
        return f"{near}: cannot be written to: it is not a folder"
    trial = beside(near / "alphatune")
    try:
        clear_forgotten(near / "alphatune")
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        return f"{near}: cannot be written to: {error.strerror}"
    return None
