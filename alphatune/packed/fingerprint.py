"""The fingerprint of a packed model: which codes and scales an adapter belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

Part = tuple[str, Sequence[int], bytes]  # dtype as torch spells it, shape, content


def fingerprint(parts: Iterable[Part]) -> str:
    """sha256 over the tensors of all packed layers, in order: codes, scales and offset of each.

    Names do not count, so a model with and without its head are the same base.
    """
    digest = hashlib.sha256()
    for dtype, shape, content in parts:
        digest.update(f"{dtype}{list(shape)}".encode())
        digest.update(content)
    return digest.hexdigest()
