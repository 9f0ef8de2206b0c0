"""Mid-run checkpoints of a training: which ones are whole, and which one a killed run continues from.

A checkpoint counts once it carries a manifest of its files, written after all of them; a half-written one, one whose
files have changed, and one of another training are passed over for the next older one and said so.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alphatune import store

log = logging.getLogger("alphatune")


class Sealing(TrainerCallback):
    """Seals each checkpoint of the Trainer when it is whole, and only then removes the older ones."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer when it has written the last file of a checkpoint."""
        store.seal(self.scratch / f"checkpoint-{state.global_step}", _owner(self.scratch))
        for step, folder in _checkpoints(self.scratch):
            if step < state.global_step:
                shutil.rmtree(folder)


def newest(scratch: Path) -> Path | None:
    """The checkpoint to continue from: the newest one that is whole and of this training; the others are removed."""
    found = None
    for step, folder in reversed(_checkpoints(scratch)):
        fault = store.fault(folder, _owner(scratch)) if found is None else "older"
        if fault is None:
            found = folder
            continue
        if found is None:
            log.warning("adapt: the checkpoint of step %d is not used (%s)", step, fault)
        shutil.rmtree(folder)
    return found


def _checkpoints(scratch: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, oldest first."""
    named = [(p.name.removeprefix("checkpoint-"), p) for p in scratch.glob("checkpoint-*") if p.is_dir()]
    return sorted((int(step), p) for step, p in named if step.isdigit())


def _owner(scratch: Path) -> dict[str, Any]:
    return {"training": scratch.name}  # the store names it by the hash of all that the training depends on
