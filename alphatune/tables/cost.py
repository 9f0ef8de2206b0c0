"""What is still to be run and what it costs on this machine, judged by what past runs took for each stage."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alphatune.errors import UserError
from alphatune.run import record
from alphatune.tables.cells import Cell
from alphatune.tables.stages import Stage, distinct, hours, work

log = logging.getLogger("alphatune")
Kind = tuple[str, ...]  # what makes two runs alike, from the closest likeness to the widest
Rates = dict[tuple[str, Kind], list[float]]  # stage and likeness -> seconds for each unit of work


@dataclass(frozen=True)
class Cost:
    """What running some cells takes."""

    counts: dict[str, int]  # stage -> how many are to be made, those that cells share once
    seconds: float  # of the stages that can be judged
    judged: int
    total: int
    machine: str = ""  # what the measured runs were made on; "" where nothing is measured
    here: bool = True  # whether that is this machine
    unmeasured: dict[str, Cell] = field(default_factory=dict)  # model -> a cell of it, where nothing of it is measured

    @property
    def lines(self) -> list[str]:
        """In words: what is to be made, how long it takes, what is not measured yet."""
        stages = ["quantize", "adapt", "measure", "decode"]
        shown = [f"{self.counts[s]} x {s}" for s in stages if self.counts.get(s)]
        if not shown and self.counts.get("evaluate"):
            shown = [f"{self.counts['evaluate']} x evaluate"]
        found = [f"cost: {', '.join(shown) or 'no stage'}, shared stages counted once"]
        if self.judged:
            part = f" for {self.judged} of {self.total} stages" if self.judged < self.total else ""
            where = "on this machine" if self.here else "on another machine"
            found.append(f"      {where} ({self.machine}): about {hours(self.seconds)}{part}, judged by past records")
        for model, cell in self.unmeasured.items():
            once = f"--rows '{cell.row.id}' --seeds {cell.seed}"
            found.append(f"      {model}: not measured yet: run one cell first ({once})")
        return found


def of(cells: list[Cell]) -> Cost:
    """What it costs to run `cells`, of which none is recorded. Stages that the store has cost nothing."""
    todo = distinct(cells, made=False)
    counts = dict(Counter(stage for stage, _ in todo))
    past = _past(cells[0].config.runtime.records) if cells else []
    cpu, gpu = _machine()
    mine = [made for made in past if (made["environment"]["cpu"], made["environment"]["gpu"]) == (cpu, gpu)]
    rates = _rates(mine or past)
    configs: dict[int, dict[str, Any]] = {}
    known: dict[Stage, float] = {}
    unmeasured: dict[str, Cell] = {}
    for (stage, key), cell in todo.items():
        if id(cell) not in configs:
            configs[id(cell)] = record.public_config(cell.config)
        config = configs[id(cell)]
        seconds = _seconds(stage, config, rates)
        if seconds is not None:
            known[stage, key] = seconds
        elif stage in ("adapt", "decode") and not cell.obstacles:
            unmeasured.setdefault(cell.config.model.name, cell)
    machines = {made["environment"]["gpu"] or made["environment"]["cpu"] for made in mine or past}
    return Cost(counts, sum(known.values()), len(known), len(todo), ", ".join(sorted(machines)), bool(mine), unmeasured)


def _past(records: str) -> list[dict[str, Any]]:
    found = []
    for path in Path(records).rglob("*.json"):
        try:
            made = record.read(path)
            # what an estimate reads of it
            _kinds(made["config"]), made["timings"].items(), made["stages"], made["environment"]["cpu"]
            found.append(made)
        except UserError as error:
            log.warning("%s; not used for the estimate", error)
        except (KeyError, TypeError, AttributeError):
            log.warning("%s: a part of the record is missing; not used for the estimate", path)
    return found


def _machine() -> tuple[str, str | None]:
    """Processor and GPU of this machine, as records name them."""
    if not Path("/dev/nvidiactl").exists():  # torch takes seconds to say the same
        return record.cpu(), None
    import torch

    return record.cpu(), torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _kinds(config: dict[str, Any]) -> list[Kind]:
    model, task, train = config["model"]["name"], config["task"]["name"], config["method"]["train"]
    if not config["task"]["counts"]:  # how much work it is can be told beside runs of the same task only
        return [(model, task, train)]
    return [(model, task, train), (model, "", train), (model,)]


def _rates(past: list[dict[str, Any]]) -> Rates:
    found: Rates = {}
    for made in past:
        for stage, seconds in made["timings"].items():
            if f"{stage} (made)" in made["stages"]:
                for kind in _kinds(made["config"]):
                    found.setdefault((stage, kind), []).append(seconds / work(stage, made["config"]))
    return found


def _seconds(stage: str, config: dict[str, Any], rates: Rates) -> float | None:
    """The median over the most similar past runs that made such a stage, scaled by the amount of work."""
    found = next((rates[stage, kind] for kind in _kinds(config) if (stage, kind) in rates), None)
    return None if found is None else statistics.median(found) * work(stage, config)
