"""Whether a model's weights can be had here: in a folder, in the hub's cache, or from the hub itself."""

from __future__ import annotations

import os
import socket
from pathlib import Path

HOST = "huggingface.co"
EMBEDDED = "tiny"  # the model that the package carries: no hub id, though it looks like one


def missing(name: str, revision: str | None = None, offline: bool = False) -> str | None:
    """What keeps the model `name` (folder or hub id) from loading, in one sentence, or None.

    Waits for one connection attempt at most.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if (folder / "adapter_config.json").is_file():
                return f"{folder} is an adapter, not a model: merge it into its base first, or give the base"
            return f"{folder} has no config.json, so it is not a transformers checkpoint"
        return None if list(folder.glob("*.safetensors")) else f"{folder} holds no *.safetensors weights"
    if is_path(name):
        return f"there is no folder {name}"
    if cached(name, revision):
        return None
    if offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        reason = "the network is switched off"
    elif reachable(HOST):
        return None
    else:
        reason = f"{HOST} cannot be reached"
    return f"the weights of {name} are neither a local folder nor in the cache {_cache()}, and {reason}"


def is_path(name: str) -> bool:
    """Whether a name can only be that of a folder, not a hub id."""
    return name.startswith((".", "/", "~"))


def reachable(host: str, seconds: float = 2.0) -> bool:
    """Whether a TLS port of `host` accepts a connection."""
    try:
        socket.create_connection((host, 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def cached(name: str, revision: str | None = None) -> bool:
    """Whether the hub's cache has the model."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def _cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    home = str(Path.home())
    return HF_HUB_CACHE.replace(home, "~", 1) if HF_HUB_CACHE.startswith(home) else HF_HUB_CACHE
