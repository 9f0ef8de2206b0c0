"""The cells of a table: which runs it is made of, and which of them are recorded.

A cell is a row, a column's own overrides where it has any, and a seed. It is done when a record is there whose run is
the same: the record's name must follow from the cell's config and the data and weights that the record speaks of.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alphatune.compose import compose
from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.learn import models
from alphatune.run import identity, record
from alphatune.run.identity import Plan
from alphatune.settings import NF4_NEEDS
from alphatune.tables import values
from alphatune.tables.experiment import Experiment, Row
from alphatune.tables.recorded import Recorded

log = logging.getLogger("alphatune")
SEARCH = ["task.evaluate_on=validation", "task.metrics=[]"]  # a search looks at the validation loss and decodes nothing
Part = tuple[str, ...]  # the overrides of a column; () for the columns that share the row's run


@dataclass(frozen=True)
class Cell:
    """One run of a table."""

    row: Row
    part: Part
    seed: int
    overrides: list[str]
    config: Config
    outline: Plan  # its stages; where data or weights are not here, with stand-ins that tell tasks and models apart
    plan: Plan | None = None  # the same if all is known, so that it can run; None: see `obstacle`
    record: Path | None = None  # its record, where there is one
    obstacles: tuple[str, ...] = ()  # why it cannot run here
    rate: float | None = None  # the learning rate that this cell tries, where it belongs to a search

    @property
    def obstacle(self) -> str:
        """Why it cannot run here, in one text; "" if it can."""
        return "; ".join(self.obstacles)

    @property
    def run(self) -> str:
        """What tells its run from others; rows may share one."""
        return self.plan.run_id if self.plan else " ".join(self.overrides)

    @property
    def name(self) -> str:
        """How messages call it."""
        task = f", {self.config.task.name}" if self.part else ""
        tried = f", learning rate {self.rate:g}" if self.rate is not None else ""
        return f"{self.row.group + ': ' if self.row.group else ''}{self.row.label}{task}{tried}, seed {self.seed}"


@dataclass
class Cells:
    """All cells of a table that are known so far."""

    rows: list[Row]
    final: list[Cell] = field(default_factory=list)
    search: list[Cell] = field(default_factory=list)
    waiting: list[Row] = field(default_factory=list)  # rows whose learning rate is not chosen yet
    rates: dict[str, float] = field(default_factory=dict)  # row id -> the learning rate that its search chose
    unsettled: set[str] = field(default_factory=set)  # rows whose search lacks runs, so that its choice may change
    total: int = 0  # runs that the table wants besides searches, those of waiting rows too

    def results(self) -> dict[tuple[str, Part], dict[int, Path]]:
        """(row id, part) -> record files by seed."""
        found: dict[tuple[str, Part], dict[int, Path]] = {}
        for cell in self.final:
            seeds = found.setdefault((cell.row.id, cell.part), {})
            if cell.record is not None:
                seeds[cell.seed] = cell.record
        return found


class Planner:
    """Finds cells and their records. With `run`, data and weights are looked at, so that cells can be carried out.

    `name` is that of the table: what a tracker groups its runs by, together with the row.
    """

    def __init__(self, table: Experiment, extra: list[str], run: bool, name: str = "") -> None:
        self.table, self.extra, self.run, self.name = table, extra, run, name
        self.unmet = [
            f"--set {key}=...: {what}" for key, what in table.needs.items() if key not in map(_key, extra)
        ]  # fmt: skip
        self._data: dict[str, tuple[dict[str, str] | None, str]] = {}
        self._unvalidated: set[str] = set()  # tasks whose data has no validation examples
        self._recorded: dict[str, Recorded] = {}  # folder of records -> its index, as it was when first asked for
        self._backbones: dict[str, tuple[dict[str, Any] | None, str]] = {}

    def cells(self) -> Cells:
        """The cells of all rows; to run, rows with a search come once all its runs are recorded.

        To render, the best of the rates that are recorded is taken, and the row is marked.
        """
        found = Cells(self.table.rows)
        self._recorded.clear()  # runs may have ended since
        for row in self.table.rows:
            if row.search:
                tried = self._tried(row)
                found.search += tried
                losses = [(_loss(c.record), i) for i, c in enumerate(tried) if c.record is not None]
                if len(losses) == len(tried) or (losses and not self.run):
                    found.rates[row.id] = float(row.search[min(losses)[1]])
                if len(losses) < len(tried):
                    found.unsettled.add(row.id)
        parts = list(dict.fromkeys(tuple(c.set) for c in self.table.columns if values.measured(c)))
        found.total = len(parts) * sum(len(self.table.seeds_of(row)) for row in self.table.rows)
        for row in self.table.rows:
            rate = found.rates.get(row.search_as or row.id)
            if rate is None and (row.search or row.search_as):
                found.waiting.append(row)
                continue
            chosen = [] if rate is None else [f"hparams.learning_rate={rate}"]
            for part in parts:
                found.final += [self._cell(row, part, [*part, *chosen], seed) for seed in self.table.seeds_of(row)]
        return found

    def _tried(self, row: Row) -> list[Cell]:
        seed = self.table.seeds[0]
        last = [*self.table.search_with, *SEARCH]  # whatever is given for every cell
        cells = [self._cell(row, (), [f"hparams.learning_rate={v}"], seed, last, earlier=True) for v in row.search]
        for i, (cell, rate) in enumerate(zip(cells, row.search, strict=True)):
            name, obstacles = cell.config.task.name, cell.obstacles
            if _data_of(cell.config) in self._unvalidated:
                obstacles = (f"task={name} has no validation examples to choose a learning rate by",)
            cells[i] = dataclasses.replace(cell, rate=float(rate), obstacles=obstacles)
        return cells

    def _cell(
        self, row: Row, part: Part, more: list[str], seed: int, last: Sequence[str] = (), earlier: bool = False
    ) -> Cell:
        """`earlier`: a record of earlier code of the run's solver or scales will do, as it does to choose a rate by."""
        overrides = [*self.table.base, *row.set, *more, *self.extra, *last]
        config = dataclasses.replace(compose.config_of(overrides), seed=seed)
        overrides.append(f"seed={seed}")
        if config.logger.name != "none":
            group = f"{self.name}/{row.id}"
            overrides.append(f"logger.group='{group}'")
            config = dataclasses.replace(config, logger=dataclasses.replace(config.logger, group=group))
        files, no_data = self._files(config)
        backbone, no_weights = self._backbone(config)
        outline = identity.plan(
            config,
            {"model": config.model.name} if backbone is None else backbone,
            {"task": config.task.name} if files is None else files,
        )
        plan = None if files is None or backbone is None else outline
        path = self._find(config, None if earlier else plan, files, backbone)
        obstacles = tuple(filter(None, [*self.unmet, no_data, no_weights, self._no_codes(config)]))
        return Cell(row, part, seed, overrides, config, outline, plan, path, obstacles)

    def _no_codes(self, config: Config) -> str:
        """Why codes that another package makes cannot be had here."""
        if not self.run or config.method.quantize != "nf4":
            return ""
        from alphatune.packed import nf4  # waits for torch: only rows that need it do

        return "" if nf4.installed() else f"method={config.method.name}: {NF4_NEEDS}"

    def _find(
        self, config: Config, plan: Plan | None, files: dict[str, str] | None, backbone: dict[str, Any] | None
    ) -> Path | None:
        if plan is not None:
            path = record.path_of(config.runtime.records, plan.run_id)
            found = record.readable(path) if path.is_file() else None
            return path if found is not None and found["run_id"] == plan.run_id else None
        recorded = self._recorded.setdefault(config.runtime.records, Recorded(config.runtime.records))
        newest = recorded.find(config, backbone, files)
        return newest if newest is not None and record.readable(newest) is not None else None

    def _files(self, config: Config) -> tuple[dict[str, str] | None, str]:
        """Hashes of the task's data files, or why they are not here; without `run`, nothing is looked at."""
        if not self.run:
            return None, ""
        name = _data_of(config)
        if name not in self._data:
            from alphatune.data.load import load

            try:
                dataset = load(config.task, config.data, progress=config.runtime.progress)
                self._data[name] = dataset.files, ""
                if not dataset.validation:
                    self._unvalidated.add(name)
            except UserError as error:
                self._data[name] = None, str(error)
        return self._data[name]

    def _backbone(self, config: Config) -> tuple[dict[str, Any] | None, str]:
        """What decides the weights, where the config says it: not for a model whose folder is still to be given."""
        if self.unmet:
            return None, ""
        key = repr(config.model)
        if key not in self._backbones:
            missing = models.missing(config.model, config.data.offline) if self.run else None
            local = not self.run and config.model.name_or_path != models.TINY
            self._backbones[key] = None if local else models.identity(config.model), missing or ""
        return self._backbones[key]


def _data_of(config: Config) -> str:
    """What tells the data of one cell from that of another: all settings of both groups but how much of it is used."""
    task = dataclasses.replace(config.task, metrics=[], evaluate_on="test")
    return repr((task, dataclasses.replace(config.data, train_limit=None, eval_limit=None, validation_limit=None)))


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _loss(path: Path | None) -> float:
    assert path is not None
    loss = record.read(path)["validation_loss"]
    if loss is None:
        raise UserError(f"{path}: has no validation loss to choose a learning rate by")
    return float(loss)
