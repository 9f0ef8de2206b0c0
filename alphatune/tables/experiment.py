"""Experiment files: the rows of a table or figure as overrides, beside what the paper printed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphatune import groups
from alphatune.compose import plain_yaml
from alphatune.compose.taskfile import beside
from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.store import unwritable

FOLDER = groups.experiments()
FIGURES = ("", "scores_and_curves", "loss_curves", "loss_by_bits", "bcq_example")
KINDS = ("above", "close")
OUT = Path("results/tables")  # where tables are rendered to, unless told otherwise


@dataclass
class Column:
    """One column: what is shown (`value`, see `values.py`; the key where it is empty), its heading, how it is printed.

    `set` are overrides of this column alone: a table whose columns are tasks makes one run per row and task. `scale`
    brings a recorded value to the unit that the paper prints, e.g. 100 for a METEOR printed as 38.9.
    """

    key: str
    label: str
    digits: int = 1
    value: str = ""
    scale: float = 1.0
    set: list[str] = field(default_factory=list)


@dataclass
class Published:
    """A cell as the paper prints it: its value, the half width of the printed interval, and what is doubtful of it."""

    mean: Any
    ci95: float | None = None
    note: str = ""


@dataclass
class Row:
    """One row: the overrides that make its runs, and the published values of its cells.

    The id is <model>/<the rest>; claims name the rest. `search` are learning rates of which the one with the lowest
    validation loss at the first seed is used; `search_as` names the row whose choice this one takes. The table's
    `search_with` are overrides of these trials only, e.g. fewer texts. `seeds` are the row's own, where a
    comparison needs more of them than the table has.
    """

    id: str
    label: str
    group: str = ""  # heading over a block of rows, e.g. GPT-2 M
    set: list[str] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    search_as: str = ""
    seeds: list[int] = field(default_factory=list)
    layer: str = ""  # the one linear layer the row speaks of (Table 1)
    paper: dict[str, Published] = field(default_factory=dict)  # column key -> cell
    quoted_from: str = ""  # the paper took the row's numbers from elsewhere
    note: str = ""


@dataclass
class Statement:
    """A table's own statement about two rows, which records decide (`aggregate.decide`).

    kind "above": `left` exceeds `right` in `metric` by more than `margin`. "close": they differ by at most `margin`.
    """

    text: str
    metric: str
    left: str
    right: str
    margin: float
    kind: str = "above"


@dataclass
class Experiment:
    """A table or figure: base overrides, seeds, columns, rows."""

    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    base: list[str] = field(default_factory=list)
    search_with: list[str] = field(default_factory=list)  # overrides for the runs of learning rate searches only
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    source: str = ""  # where the paper's values stand, e.g. "AlphaTuning, Table 2"; empty: nothing published
    interval: str = ""  # what the paper's ± means
    note: str = ""
    substitute: str = ""  # model and data that stand in for the published ones; printed with every row
    needs: dict[str, str] = field(default_factory=dict)  # override key without which nothing can run -> what to give
    figure: str = ""  # one of FIGURES: the picture drawn beside the table
    claims: list[Statement] = field(default_factory=list)
    own_process: bool = True  # run every cell in a process of its own, so that a crash loses one cell only

    def seeds_of(self, row: Row) -> list[int]:
        """The seeds that a row is run with."""
        return row.seeds or self.seeds


def names() -> list[str]:
    """The names of all experiments: the paper's tables and figures by number, then the others (demo, ...)."""
    found = [p.stem for p in FOLDER.glob("*.yaml") if p.stem != "claims"]
    papers = {name: match for name in found if (match := re.fullmatch(r"(table|figure)(\d+)", name))}
    ours = sorted(set(found) - papers.keys())
    return [*sorted(papers, key=lambda name: (papers[name][1] == "figure", int(papers[name][2]))), *ours]


def load(name: str) -> Experiment:
    """The experiment of `experiments/<name>.yaml`; a bare number names a table. Or that of a file of the user's.

    In a user's file the names of task files and data files are relative to its folder.

    Raises:
        UserError: there is no such file, it has the name of another table, or it does not fit the schema.
    """
    theirs = name.endswith(".yaml")
    path = Path(name) if theirs else FOLDER / f"{canonical(name)}.yaml"
    name = canonical(name)
    if theirs and not path.is_file():
        raise UserError(f"{path}: no such file")
    if theirs and name in names() and path.resolve() != (FOLDER / path.name).resolve():
        raise UserError(f"{path}: {name} is a table of experiments/ already: give the file another name")
    if not theirs and name not in names():
        raise UserError(
            f"experiment {name}: no such file in experiments/; there is: {', '.join(names())}; a file of yours ends in "
            ".yaml"
        )
    try:
        merged = OmegaConf.unsafe_merge(OmegaConf.structured(Experiment), plain_yaml.read(path))  # both are ours alone
        experiment = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:  # not the schema's keys and values
        raise UserError(f"{path.name}: {' '.join(str(error).split())}") from error
    assert isinstance(experiment, Experiment)
    if theirs:
        for part in (experiment, *experiment.rows, *experiment.columns):
            key = "base" if part is experiment else "set"
            setattr(part, key, [beside(override, path.parent) for override in getattr(part, key)])
    _check(experiment, path.name)
    return experiment


def check_out(out: Path) -> None:
    """Refuse a folder that pages could not be written to, before anything is waited for.

    Raises:
        UserError: it is a file, or cannot be written to.
    """
    if reason := unwritable(out):
        raise UserError(f"--out {out}: {reason}")


def canonical(name: str) -> str:
    """A bare number names a table: 2 -> table2. A file is named by its stem."""
    if name.endswith(".yaml"):
        return Path(name).stem
    return f"table{name}" if name.isdigit() else name


def _check_setting(name: str, where: str) -> None:
    """Refuse a column of a setting that no config has, or that is a group of settings.

    Raises:
        UserError: it is.
    """
    part: Any = Config()
    for key in name.split("."):
        if not is_dataclass(part) or key not in {f.name for f in fields(part)}:
            raise UserError(f"{where}: there is no setting {name}")
        part = getattr(part, key)
    if is_dataclass(part):
        raise UserError(f"{where}: {name} is a group of settings; name one of them")


def _check(experiment: Experiment, file: str) -> None:
    ids, keys = [row.id for row in experiment.rows], [column.key for column in experiment.columns]
    for what, given in (("row", ids), ("column", keys)):
        twice = {i for i in given if given.count(i) > 1}
        if twice:
            raise UserError(f"{file}: the {what} {min(twice)} is there twice")
    if not experiment.seeds and any(row.search for row in experiment.rows):
        raise UserError(f"{file}: seeds is empty")
    if experiment.figure not in FIGURES:
        raise UserError(f"{file}: figure={experiment.figure}: must be one of: {', '.join(FIGURES[1:])}")
    for column in experiment.columns:
        if not 0 <= column.digits <= 12:
            raise UserError(f"{file}: column {column.key}: digits={column.digits}: must be from 0 to 12")
        if "." in (name := column.value or column.key):
            _check_setting(name, f"{file}: column {column.key}")
    for claim in experiment.claims:
        if claim.kind not in KINDS:
            raise UserError(f"{file}: a claim of the kind {claim.kind}: must be one of: {', '.join(KINDS)}")
        if claim.metric not in keys:
            raise UserError(f"{file}: a claim on {claim.metric}, which is no column of the table")
        for name in (claim.left, claim.right):
            if name not in ids:
                raise UserError(f"{file}: a claim speaks of the row {name}, which the table does not have")
    for row in experiment.rows:
        if row.search_as and not any(r.id == row.search_as and r.search for r in experiment.rows):
            raise UserError(f"{file}: row {row.id}: search_as={row.search_as} is no row with a search")
        for key in row.paper:
            if key not in keys:
                raise UserError(f"{file}: row {row.id}: the paper's {key} is no column of the table")
