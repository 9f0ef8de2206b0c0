"""The curves of a training: kept as its losses come, through a resume too, and shown while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from alphatune.progress import Progress


@dataclass
class Curves:
    """Loss against optimiser step: training loss (mean since the last point) and validation loss (no smoothing)."""

    train: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)


class Shown(TrainerCallback):
    """Tells a progress of optimiser steps and the latest losses."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.losses = progress, dict[str, str]()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        for name, short in (("loss", "train"), ("eval_loss", "validation")):
            if name in (logs or {}):
                self.losses[short] = f"{logs[name]:.3f}"
        self.progress.show(self.losses)


class Recorder(TrainerCallback):
    """Keeps the curves, through a resume too, and passes points on to a tracker."""

    def __init__(self, curves: Curves, report: Callable[[int, dict[str, float]], None] | None) -> None:
        self.curves, self.report = curves, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for entry in state.log_history:  # what a killed run had logged before its checkpoint
            self._keep(entry)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        point = self._keep({**(logs or {}), "step": state.global_step})
        if point and self.report is not None:
            self.report(state.global_step, point)

    def _keep(self, entry: dict[str, Any]) -> dict[str, float]:
        point = {}
        if "loss" in entry:
            self.curves.train.append((entry["step"], float(entry["loss"])))
            point["train_loss"] = float(entry["loss"])
        if "eval_loss" in entry:
            self.curves.validation.append((entry["step"], float(entry["eval_loss"])))
            point["validation_loss"] = float(entry["eval_loss"])
        return point
