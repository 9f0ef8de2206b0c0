"""Finding the folder that holds a task's files: `data.dir`, then $ALPHATUNE_DATA, then the cache, then a download.

Without a network the answer is one message within seconds: what is missing, every place looked at, how to get it on a
connected machine, and what works instead.
"""

from __future__ import annotations

import os
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from alphatune.config import Data, Task
from alphatune.data.remote import download
from alphatune.data.remote.catalogue import Release, entry
from alphatune.data.source import holdings
from alphatune.errors import UserError
from alphatune.store import cache

_TRUE = {"1", "on", "yes", "true"}
_PROBE_SECONDS = 2.0

Fits = Callable[[Path, Task], bool]


def resolve(task: Task, data: Data, fits: Fits, *, progress: bool = False) -> Path:
    """The folder with the task's files, downloaded if it has to be and may be.

    Args:
        task: whose files.
        data: where to look, and whether the network may be used.
        fits: tells whether a folder holds files of the task, see `fits` of the readers.
        progress: show a bar while downloading.

    Raises:
        UserError: `data.dir` was given and has no such files, or they are nowhere and cannot be downloaded.
    """
    wanted = entry(task)
    if data.dir is not None:  # named by the user: nothing else may be taken silently
        root = Path(os.path.expanduser(data.dir))
        found = _within(root, wanted, task, fits)
        if found is None:
            known = "docs/data.md lists the layouts that are read"
            if not os.path.isdir(root):
                raise UserError(f"data.dir={data.dir}: no such folder; {known}")
            raise UserError(f"data.dir={data.dir}: no files of {task.name} {_there(wanted)}; {known}; {holdings(root)}")
        return found
    places = []
    named = os.environ.get("ALPHATUNE_DATA")
    if named:
        found = _within(Path(os.path.expanduser(named)), wanted, task, fits)
        if found is not None:
            return found
        places.append(f"$ALPHATUNE_DATA={named} ({_there(wanted)})")
    else:
        places.append("$ALPHATUNE_DATA (not set)")
    if not wanted.downloadable:
        raise UserError(_not_found(task, wanted, places, "this task's training file is published nowhere"))
    cache = cache_folder(wanted)
    lacking = download.missing(wanted, cache)
    if not lacking:
        return cache
    damaged = [name for name in lacking if (cache / name).exists()]
    places.append(f"the cache ({cache}{', damaged: ' + ', '.join(damaged) if damaged else ''})")
    reason = offline_reason(wanted, data)
    if reason:
        raise UserError(_not_found(task, wanted, places, reason))
    download.fetch(wanted, cache, progress=progress)
    return cache


def cache_folder(wanted: Release) -> Path:
    """Where an entry's downloads lie: below $ALPHATUNE_CACHE/data, or ~/.cache/alphatune/data."""
    return cache.folder("data") / wanted.folders[0]


def offline_reason(wanted: Release, data: Data) -> str:
    """Why the network cannot be used; empty if it can. Takes a few seconds at most."""
    if data.offline:
        return "data.offline=true"
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").lower() in _TRUE:
            return f"{name} is set"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co") if wanted.hub else wanted.files[0].urls[0]
    host, port = _first_hop(address)
    return "" if _reachable(host, port) else f"no connection to {host}:{port} within {_PROBE_SECONDS:g} s"


def _within(root: Path, wanted: Release, task: Task, fits: Fits) -> Path | None:
    """The first of the task's folders below `root`, or `root` itself, that holds its files."""
    candidates = [root / name for name in wanted.folders] + [root]
    return next((folder for folder in candidates if os.path.isdir(folder) and fits(folder, task)), None)


def _there(wanted: Release) -> str:
    return f"there or in its {', '.join(wanted.folders)}"


def _first_hop(address: str) -> tuple[str, int]:
    """Whom a request to `address` would connect to: the proxy of the environment if there is one for it."""
    parts = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _reachable(host: str, port: int) -> bool:
    """Whether a TCP connection opens in time. In a thread, because looking up a name has no time limit of its own."""
    opened = threading.Event()

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
        except OSError:
            return  # not reachable: the event stays unset
        opened.set()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return opened.is_set()


def _not_found(task: Task, wanted: Release, places: list[str], reason: str) -> str:
    message = f"task={task.name}: its data files are missing; looked in: data.dir (not set), {', '.join(places)}. "
    if wanted.downloadable:
        message += (
            f"Not downloaded: {reason}. On a connected machine run `make data TASK={task.name}` and copy the folder "
            f"it prints to $ALPHATUNE_DATA/{wanted.folders[0]}. "
        )
    else:
        message += f"No download: {reason}; put the files into $ALPHATUNE_DATA/{wanted.folders[0]} (docs/data.md). "
    return message + "Without any files these work: task=toy model=tiny"
