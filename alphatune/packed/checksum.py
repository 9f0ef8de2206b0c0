"""A checksum for every tensor of a packed checkpoint, kept in the checkpoint as one more tensor of bytes.

Not in the header of its file, whose entries safetensors writes in any order: the same model is to give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from alphatune.errors import UserError

_MARK = b"alphatune checksums "  # then the sha256 of the rest, and a JSON object: tensor -> checksum


def listed(tensors: Mapping[str, Tensor]) -> Tensor:
    """The checksums of `tensors` as uint8 [n]; empty if values are elsewhere."""
    if any(tensor.is_meta for tensor in tensors.values()):
        return torch.empty(0)
    found = json.dumps({n: _checksum(t) for n, t in tensors.items()}, sort_keys=True, separators=(",", ":")).encode()
    return torch.tensor(list(_MARK + hashlib.sha256(found).digest() + found), dtype=torch.uint8)


def verify(paths: Sequence[Path]) -> bool:
    """Compare the tensors of a checkpoint's files with the checksums among them; False if there are none.

    Raises:
        UserError: a tensor is not the one that was saved; names it and its file.
    """
    place, expected = _expected(paths)
    if not place:
        return False
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # no mapping
                if name != place and expected.get(name) != _checksum(opened.get_tensor(name)):
                    raise UserError(f"{path}: damaged: {name} is not what was saved (its checksum differs)")
    return True


def _expected(paths: Sequence[Path]) -> tuple[str, dict[str, str]]:
    """The name of the tensor of checksums, and what it says."""
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                part = opened.get_slice(name)
                if not name.endswith(".weight") or part.get_dtype() != "U8" or len(part.get_shape()) != 1:
                    continue
                content = bytes(opened.get_tensor(name).tolist())
                digest, found = content[len(_MARK) :][:32], content[len(_MARK) + 32 :]
                if not content.startswith(_MARK) or hashlib.sha256(found).digest() != digest:
                    raise UserError(f"{path}: damaged: its list of checksums is not what was saved")
                return name, dict(json.loads(found))
    return "", {}


def _checksum(tensor: Tensor) -> str:
    """Of kind, shape and bytes."""
    kept = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{kept.dtype} {list(kept.shape)} ".encode())
    if kept.numel():
        found.update(kept.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]
