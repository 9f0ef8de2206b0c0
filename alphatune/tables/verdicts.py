"""The paper's claims and what records say of each: claims.yaml, its tests, their outcomes.

A test compares two rows in one value. It is decided for every model whose rows the table has, once all seeds are there,
on the paired differences over seeds and their 95 % t-interval (`aggregate.decide`): "above" if left exceeds right by
more than a margin, "close" if they differ by at most that. Sizes follow from the config and need no run: "ratio",
left / right is at least the margin. What the paper's printed means say of the same test stands beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alphatune.compose import compose, plain_yaml
from alphatune.errors import UserError
from alphatune.tables import aggregate, experiment, values
from alphatune.tables.aggregate import NOT, NOT_RUN, REPRODUCED, UNDECIDED, Mean, decide
from alphatune.tables.cells import Planner
from alphatune.tables.experiment import Column, Experiment, Row
from alphatune.tables.tabulate import Results

log = logging.getLogger("alphatune")
HOLDS, FAILS = ", holds", ", does not hold"
Judged = list[tuple["Claim", list["Outcome"]]]
_UNLISTED = ("valid_rise",)  # values that no table has a column for


@dataclass
class Test:
    """One comparison: rows `<model>/<left>` and `<model>/<right>` of every table of `tables`, in one value.

    The margin is in the unit of the column, or `percent` of the larger of the two means. `right_table` names the
    table of the right row where it is another one, `right_model` its prefix. `note` says what a reader must know.
    """

    tables: list[str]
    left: str
    right: str
    metric: str
    kind: str = "above"
    margin: float = 0.0
    percent: float = 0.0
    right_table: str = ""
    right_model: str = ""
    note: str = ""
    models: list[str] = field(default_factory=list)  # row prefixes; empty: all that the table has


@dataclass
class Claim:
    """A qualitative statement of the paper, where it stands, and what the printed cells say of it."""

    number: int
    text: str
    where: str
    printed: str
    tests: list[Test] = field(default_factory=list)
    untested: str = ""  # why no test decides it


@dataclass
class Claims:
    """The file."""

    claims: list[Claim]


@dataclass(frozen=True)
class Outcome:
    """What one test says for one model."""

    test: Test
    table: str
    model: str  # row prefix
    substitute: str  # the table's, where its model is not the paper's
    verdict: str
    difference: Mean | None
    margin: float
    wanted_seeds: int = 0
    ratio: float | None = None
    paper: str = ""  # what the paper's printed means say, e.g. "+4.7, holds"; "" where a cell is not printed
    remarks: tuple[str, ...] = ()
    records: tuple[str, ...] = ()

    @property
    def found(self) -> str:
        """What the records or the sizes say, e.g. "-2.1 ± 0.6"; empty without runs."""
        if self.ratio is not None:
            return f"{self.ratio:.1f}"
        if self.difference is None:
            return ""
        return self.difference.signed

    @property
    def wanted(self) -> str:
        """What the claim asks of it."""
        if self.test.kind == "ratio":
            return f"ratio of at least {self.test.margin:g}"
        sign = "within ±" if self.test.kind == "close" else "above "
        if not self.test.percent:
            return f"{sign}{self.margin:g}"
        return f"{sign}{self.test.percent:g} %" + (f" ({self.margin:.2g})" if self.difference else "")

    @property
    def count(self) -> str:
        """Seeds that both rows have, of those wanted, e.g. "3 of 5"; "-" where nothing is run."""
        if self.ratio is not None:
            return "-"
        return f"{self.difference.n if self.difference else 0} of {self.wanted_seeds}"

    @property
    def compared(self) -> str:
        """Value and rows."""
        right = f"{self.test.right_model}/{self.test.right}".lstrip("/")
        right += f" ({self.test.right_table})" if self.test.right_table else ""
        return f"{self.test.metric}: {self.test.left} {'to' if self.test.kind == 'ratio' else 'against'} {right}"

    @property
    def text(self) -> str:
        """One line with the numbers."""
        where = f"{self.model} ({self.table}{'; substitute: ' + self.substitute if self.substitute else ''})"
        seeds = "" if self.ratio is not None else f", n = {self.count}"
        more = "".join(
            f"; {text}" for text in ([f"the paper's cells: {self.paper}"] if self.paper else []) + [*self.remarks]
        )
        return (
            f"**{self.verdict}** on {where}: {self.compared}: {self.found and f'{self.found}, '}wanted {self.wanted}"
            f"{seeds}{more}"
        )


def load() -> list[Claim]:
    """The claims of experiments/claims.yaml.

    Raises:
        UserError: the file does not fit the schema, or a test names a table or row that does not exist.
    """
    path = experiment.FOLDER / "claims.yaml"
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Claims), plain_yaml.read(path)))
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"claims.yaml: {' '.join(str(error).split())}") from error
    assert isinstance(found, Claims)
    for claim in found.claims:
        for test in claim.tests:
            if test.kind not in ("above", "close", "ratio"):
                raise UserError(f"claims.yaml: claim {claim.number}: kind={test.kind}: must be above, close or ratio")
    return found.claims


@dataclass(frozen=True)
class _Side:
    """A table with its runs, and the row of it that a test looks at."""

    table: Experiment
    results: Results
    row: Row
    column: Column

    @property
    def printed(self) -> float | None:
        published = self.row.paper.get(self.column.key)
        return float(published.mean) if published and isinstance(published.mean, int | float) else None

    def computed(self, extra: list[str]) -> float:
        config = compose.config_of([*self.table.base, *self.row.set, *self.column.set, *extra])
        value = values.of_config(config, self.row, values.name_of(self.column))
        assert isinstance(value, int | float)
        return float(value)

    def mean(self, seeds: set[int]) -> float:
        records = {seed: made for seed, made in self.records().items() if seed in seeds}
        found = aggregate.column(records, values.name_of(self.column))
        return found.mean * self.column.scale if found else 0.0

    def records(self) -> aggregate.Records:
        return {seed: made for seed, (_, made) in self.results.of(self.row.id, self.column).items()}


class Tables:
    """Experiments with their records, each looked up once."""

    def __init__(self, extra: list[str]) -> None:
        self.extra = extra
        self._found: dict[str, tuple[Experiment, Results]] = {}
        self._damaged: set[str] = set()

    def has(self, *names: str) -> bool:
        """Whether these experiments can be read; one that cannot is told once, and what tests it is left out."""
        for name in map(experiment.canonical, names):
            if name in experiment.names() and name not in self._found and name not in self._damaged:
                try:
                    self.get(name)
                except UserError as error:
                    log.warning("left out: the tests on %s: %s", name, error)
                    self._damaged.add(name)
            if name in self._damaged:
                return False
        return True

    def get(self, name: str) -> tuple[Experiment, Results]:
        """The experiment `name` and its finished runs."""
        name = experiment.canonical(name)
        if name not in self._found:
            table = experiment.load(name)
            self._found[name] = table, Results(Planner(table, self.extra, run=False).cells())
        return self._found[name]


def outcomes(test: Test, name: str, tables: Tables) -> Iterator[Outcome]:
    """The verdicts of one test on one table, for every model that has both rows.

    Raises:
        UserError: no model of the tables has both rows, or a table lacks the column.
    """
    table, results = tables.get(name)
    other, others = tables.get(test.right_table or name)
    left, right = ({row.id: row for row in t.rows} for t in (table, other))
    models = [p for p in dict.fromkeys(i.split("/")[0] for i in left) if not test.models or p in test.models]
    ids = [(m, f"{m}/{test.left}", f"{test.right_model or m}/{test.right}") for m in models]
    pairs = [(m, left[a], right[b]) for m, a, b in ids if a in left and b in right]
    if not pairs:
        raise UserError(f"claims.yaml: {name} has no model with the rows {test.left} and {test.right}")
    for model, a, b in pairs:
        yield _outcome(
            test, name, model, _Side(table, results, a, _column(table, name, test)),
            _Side(other, others, b, _column(other, test.right_table or name, test)), tables.extra,
        )  # fmt: skip


def _column(table: Experiment, name: str, test: Test) -> Column:
    if test.metric in _UNLISTED:
        return Column(test.metric, test.metric, digits=3)
    column = next((c for c in table.columns if c.key == test.metric), None)
    if column is None:
        raise UserError(f"claims.yaml: {name} has no column {test.metric}")
    return column


def _outcome(test: Test, name: str, model: str, left: _Side, right: _Side, extra: list[str]) -> Outcome:
    substitute, printed = left.table.substitute, (left.printed, right.printed)
    if test.kind == "ratio":
        ratio = left.computed(extra) / right.computed(extra)
        verdict = REPRODUCED if ratio >= test.margin else NOT
        return Outcome(test, name, model, substitute, verdict, None, test.margin, ratio=ratio)
    difference = aggregate.difference(
        left.records(), right.records(), values.name_of(left.column), left.column.scale
    )  # fmt: skip
    shared = left.records().keys() & right.records().keys()
    margin = _margin(test, left.mean(shared), right.mean(shared))
    verdict = decide(difference, test.kind, margin)
    wanted = len({*left.table.seeds_of(left.row)} & {*right.table.seeds_of(right.row)})
    if verdict != NOT_RUN and len(shared) < wanted:
        verdict = UNDECIDED  # a look before the end decides nothing
    paper = ""
    a, b = printed
    if a is not None and b is not None:
        gap, allowed = a - b, _margin(test, a, b)
        holds = gap > allowed if test.kind == "above" else abs(gap) <= allowed + 1e-9
        paper = f"{gap:+.{left.column.digits}f}{HOLDS if holds else FAILS}"
    runs = [side.results.of(side.row.id, side.column)[seed] for side in (left, right) for seed in sorted(shared)]
    remarks = {
        test.note: bool(test.note),
        "uncommitted changes": any(made["git"]["dirty"] for _, made in runs),
        "runs of earlier code among them": any(p in left.results.earlier | right.results.earlier for p, _ in runs),
    }
    return Outcome(
        test, name, model, substitute, verdict, difference, margin, wanted, None, paper,
        tuple(text for text, holds in remarks.items() if holds), tuple(dict.fromkeys(str(path) for path, _ in runs)),
    )  # fmt: skip


def _margin(test: Test, left: float, right: float) -> float:
    return test.margin or test.percent / 100 * max(abs(left), abs(right))


def judge(claims: list[Claim], extra: list[str]) -> Judged:
    """Each claim with the outcome of every test, from the records that are there."""
    tables = Tables(extra)
    found: Judged = []
    for claim in claims:
        wanted = [(test, name) for test in claim.tests for name in test.tables]
        there = [(test, name) for test, name in wanted if tables.has(name, test.right_table or name)]
        found.append((claim, [o for test, name in there for o in outcomes(test, name, tables)]))
    return found
