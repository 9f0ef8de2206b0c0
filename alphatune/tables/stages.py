"""The stages of a table's cells, those that are shared counted once, and how much work each of them is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alphatune.run.identity import Spec
from alphatune.store import MANIFEST, digest
from alphatune.tables.cells import Cell

Stage = tuple[str, str]  # name, key in the store


def stages(cell: Cell) -> dict[tuple[str, str], bool]:
    """The stages of a cell by (name, key) -> whether the store has them already."""
    plan = cell.outline
    specs: dict[str, list[Spec | None]] = {
        "quantize": [plan.quantized, plan.requantized], "adapt": [plan.adapted], "evaluate": [plan.evaluated],
        "measure": [plan.measured],
        "decode": [plan.decoded] if cell.config.task.scores else [],
        "score": [plan.scored] if cell.config.task.scores else [],
    }  # fmt: skip
    root = Path(cell.config.runtime.artifacts)
    found = {}
    for stage, several in specs.items():
        for spec in several:
            if spec is not None:
                key = digest(spec)
                found[stage, key] = (root / stage / key / MANIFEST).is_file()
    return found


def distinct(cells: Iterable[Cell], made: bool = True) -> dict[Stage, Cell]:
    """Every stage of the cells once, with a cell that it belongs to; without `made`, those that the store lacks."""
    found: dict[Stage, Cell] = {}
    for cell in cells:
        for stage, there in stages(cell).items():
            if made or not there:
                found.setdefault(stage, cell)
    return found


def work(stage: str, config: dict[str, Any]) -> float:
    """Training: examples seen. Decoding: inputs times beams. Their loss: inputs. Else: one. `config`: of a record."""
    if stage == "adapt":
        return max(1e-9, examples_seen(config))
    if stage == "decode":
        return inputs(config) * float(config["decode"]["beam"])
    return float(inputs(config)) if stage == "measure" else 1.0


def examples_seen(config: dict[str, Any]) -> float:
    """How many examples an adaptation looks at, each epoch anew."""
    counts, hparams = config["task"]["counts"], config["hparams"]
    if steps := config["trainer"]["max_steps"]:
        return float(steps * hparams["batch_size"])
    train = counts.get("train", 1)
    return float(hparams["epochs"] * min(train, config["data"]["train_limit"] or train))


def inputs(config: dict[str, Any]) -> int:
    """How many inputs are decoded."""
    there = int(config["task"]["counts"].get(config["task"]["evaluate_on"], 1))
    return min(there, config["data"]["eval_limit"] or there)


def hours(seconds: float) -> str:
    """A time in words, e.g. "45 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
