"""Folders that the command line writes: whole or not at all, and never in the place of what is not a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.store import files, unwritable

_WRITTEN = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
            checkpoints.ADAPTER_CONFIG, "lut_gemm.json", "README.md", sealed.CHECKSUMS)  # fmt: skip


@contextmanager
def new_folder(out: Path, overwrite: bool, keep: Sequence[Path] = ()) -> Iterator[Path]:
    """A folder to write to, which takes the place of `out` at the end of the block if all went well.

    Args:
        overwrite: replace a folder that holds a checkpoint or an export.
        keep: folders that are read from, which `out` must not replace.

    Raises:
        UserError: `out` is in the way, or must stay.
    """
    out = out.expanduser().resolve()
    old = out.with_name(f".{out.name}.old")
    if old.is_dir() and not out.exists():  # a replacement was killed half-way
        old.rename(out)
    check_out(out, overwrite, keep)
    out.parent.mkdir(parents=True, exist_ok=True)  # `check_out` has tried that it can be written to
    files.clear_forgotten(out)
    beside = files.beside(out)  # the same file system, so that renaming is enough
    beside.mkdir()
    try:
        yield beside
        files.share(beside)
        sealed.write(beside)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        beside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_out(out: Path, overwrite: bool, keep: Sequence[Path] = ()) -> None:
    """Refuse an output folder before the work starts, as `new_folder` does.

    Raises:
        UserError: `out` is in the way, must stay, or cannot be written to.
    """
    out = out.expanduser().resolve()
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a folder to write to")
    for source in keep:
        if source.expanduser().resolve().is_relative_to(out):
            raise UserError(f"{out} holds what is read: write to another folder")
    if reason := unwritable(out.parent):
        raise UserError(reason)
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{out} is not empty: give another folder, or --overwrite")
    if not any(out.glob("*.safetensors")):
        raise UserError(f"{out} holds no checkpoint: --overwrite does not remove other folders")
    kinds = (*checkpoints.TOKENIZER, *_WRITTEN)
    foreign = sorted(p.name for p in out.iterdir() if p.is_dir() or not any(p.match(kind) for kind in kinds))
    if foreign:
        raise UserError(
            f"{out} also holds {foreign[0]}, which is no part of a checkpoint: --overwrite would remove it; move it, "
            "or give another folder"
        )
