"""A checksum for every tensor of a packed checkpoint, kept in the header of its safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, uint8

from alphatune.errors import UserError

KEY = "alphatune_sha256"  # of the header's metadata: a JSON object, tensor -> checksum


def metadata(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What goes into the header of the files that hold `tensors`, or a part; nothing if values are elsewhere."""
    if any(tensor.is_meta for tensor in tensors.values()):
        return {}
    return {KEY: json.dumps({name: _checksum(tensor) for name, tensor in tensors.items()}, sort_keys=True)}


def verify(path: Path) -> bool:
    """Compare the tensors of a file with the checksums in its header; False if it has none.

    Raises:
        UserError: a tensor is not the one that was saved, or the checksums cannot be read.
    """
    with safe_open(path, framework="pt") as opened:
        found = (opened.metadata() or {}).get(KEY)
        if found is None:
            return False
        try:
            expected = dict(json.loads(found))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: damaged: the checksums in its header cannot be read") from error
        for name in opened.keys():  # noqa: SIM118  # no mapping
            if expected.get(name) != _checksum(opened.get_tensor(name)):
                raise UserError(f"{path}: damaged: {name} is not what was saved (its checksum differs)")
    return True


def _checksum(tensor: Tensor) -> str:
    """Of kind, shape and bytes."""
    kept = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{kept.dtype} {list(kept.shape)} ".encode())
    if kept.numel():
        found.update(kept.reshape(-1).view(uint8).numpy().data)
    return found.hexdigest()[:32]
