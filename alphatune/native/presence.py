"""Whether machine code can be made here: the package `llvmlite` is there and nobody forbids it."""

from __future__ import annotations

import functools
import importlib.util
import os


@functools.cache
def fast() -> bool:
    """Whether machine code can be made here; ALPHATUNE_KERNELS=0 in the environment forbids it."""
    return os.environ.get("ALPHATUNE_KERNELS") != "0" and importlib.util.find_spec("llvmlite") is not None
