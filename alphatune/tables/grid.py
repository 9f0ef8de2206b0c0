"""A finished table as plain text in cells, ready for any format: what was measured, what is published, what to mark."""

from __future__ import annotations

from dataclasses import dataclass, field

# What a reader must be told of a cell or row. The order is that of the legend.
MARKS = {
    "missing": "no run yet",
    "partial": "fewer seeds than asked for",
    "dirty": "at least one run was made with uncommitted changes",
    "substitute": "another model, other data or other settings than the published ones",
    "quoted": "the paper quotes this row from elsewhere",
    "doubtful": "the paper's print is ambiguous or inconsistent here; see the notes",
    "unsettled": "its learning rate is the best of those tried so far; the search is not finished",
    "earlier": "at least one run was made by an earlier version of its solver or of what trains its scales",
}


@dataclass
class GridCell:
    """One cell: ours, the paper's, and how they compare. Texts are formatted; "" means that there is none."""

    ours: str = ""  # e.g. "53.1 ± 0.4"
    paper: str = ""  # e.g. "53.1 ± 0.4"; always shown as the paper's
    difference: str = ""  # ours - paper, e.g. "-0.3"; for settings "same" or "differs"
    overlap: str = ""  # "overlap" | "apart" | "" where one of the two intervals is not known
    n: int | None = None  # runs behind `ours`; None: not measured but computed (sizes, settings)
    mean: float | None = None  # unformatted, for CSV
    ci95: float | None = None
    paper_mean: float | str | None = None
    paper_ci95: float | None = None
    marks: list[str] = field(default_factory=list)  # keys of MARKS
    records: list[str] = field(default_factory=list)  # paths of the record files behind `ours`
    note: str = ""  # of the paper's cell


@dataclass
class Line:
    """One row of the grid."""

    id: str
    label: str
    group: str
    cells: list[GridCell]
    n: int | None  # finished seeds; None where nothing is run
    of: int  # seeds asked for
    marks: list[str] = field(default_factory=list)
    quoted_from: str = ""
    note: str = ""


@dataclass
class Grid:
    """A table ready to be written: no record and no config is needed any more."""

    name: str  # table2, also the stem of the files
    title: str
    columns: list[str]
    lines: list[Line]
    note: str = ""
    source: str = ""  # where the paper's values stand; "": nothing published, so no columns for it
    interval: str = ""  # what the paper's ± means
    substitute: str = ""  # model and data that stand in for the published ones; shown in title and every row
    statements: list[str] = field(default_factory=list)  # what came of the table's claims, one line each
    footer: list[str] = field(default_factory=list)  # models, data, machines, commits
    pictures: list[str] = field(default_factory=list)  # stems of figures beside the table: <stem>.png and <stem>.svg
