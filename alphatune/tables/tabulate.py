"""From cells and their records to a finished grid: means, intervals, and how far they are from the paper."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alphatune.compose import compose
from alphatune.config import Config
from alphatune.run import identity, record
from alphatune.tables import aggregate, formats, values
from alphatune.tables.aggregate import Verdict
from alphatune.tables.cells import Cells
from alphatune.tables.experiment import Column, Experiment, Published, Row
from alphatune.tables.grid import Grid, GridCell, Line

Found = dict[int, tuple[Path, dict[str, Any]]]  # seed -> record file and record


class Results:
    """The finished runs of a table."""

    def __init__(self, cells: Cells) -> None:
        self.rates, self.unsettled = cells.rates, cells.unsettled
        self.runs: dict[tuple[str, tuple[str, ...]], Found] = {
            place: {seed: (path, record.read(path)) for seed, path in sorted(paths.items())}
            for place, paths in cells.results().items()
        }
        configs = {cell.record: cell.config for cell in cells.final}
        self.earlier = {  # records of earlier code
            path
            for found in self.runs.values()
            for path, made in found.values()
            if identity.numbers_of_record(made) != identity.numbers_of(configs[path])
        }

    def of(self, row: str, column: Column) -> Found:
        """The runs behind a cell."""
        return self.runs.get((row, tuple(column.set)), {})

    def of_row(self, row: str) -> dict[int, dict[str, Any]]:
        """The records of a row whose columns share one run, by seed."""
        runs = [found for (name, _), found in self.runs.items() if name == row]
        return {seed: made for found in runs[:1] for seed, (_, made) in found.items()}

    def records(self) -> list[dict[str, Any]]:
        """Every record once."""
        by_path = {str(path): made for found in self.runs.values() for path, made in found.values()}
        return list(by_path.values())


def grid(name: str, table: Experiment, results: Results, extra: list[str], verdicts: list[Verdict]) -> Grid:
    """The finished table.

    Args:
        name: stem of its files.
        table: rows and columns; its `substitute` says what stands in for the published setting.
        results: the finished runs.
        extra: overrides given for every cell.
        verdicts: what came of the table's own claims.
    """
    lines = [_line(table, row, results, extra) for row in table.rows]
    return Grid(
        name=name, title=table.title, columns=[c.label for c in table.columns], lines=lines, note=table.note.strip(),
        source=table.source, interval=table.interval, substitute=table.substitute,
        statements=[_statement(v) for v in verdicts], footer=_footer(table, results), pictures=[],
    )  # fmt: skip


def _line(table: Experiment, row: Row, results: Results, extra: list[str]) -> Line:
    seeds = table.seeds_of(row)
    rate = results.rates.get(row.search_as or row.id)
    chosen = [] if rate is None else [f"hparams.learning_rate={rate}"]
    open_search = bool(row.search or row.search_as) and rate is None
    no_model = any(all(not o.startswith(f"{key}=") for o in extra) for key in table.needs)  # its folder is not given
    cells = []
    for column in table.columns:
        if values.measured(column):
            found = results.of(row.id, column)
            cells.append(_measured(column, found, row.paper.get(column.key), len(seeds)))
            if any(path in results.earlier for path, _ in found.values()):
                cells[-1].marks.append("earlier")
            if table.substitute:  # another model or other data: how far it is from the paper means nothing
                cells[-1].difference = cells[-1].overlap = ""
        else:
            config = compose.config_of([*table.base, *row.set, *column.set, *chosen, *extra])
            unknown = open_search if values.is_setting(column) else no_model
            recorded = [made for _, made in results.of(row.id, column).values()]
            cells.append(_computed(column, row, None if unknown else config, recorded, row.paper.get(column.key)))
            if table.substitute:
                cells[-1].difference = ""
    runs = [cell.n for cell in cells if cell.n is not None]
    marks = (["substitute"] if table.substitute else []) + (["quoted"] if row.quoted_from else [])
    if not open_search and (row.search_as or row.id) in results.unsettled:
        marks.append("unsettled")
    return Line(
        row.id, row.label, row.group, cells, min(runs) if runs else None, len(seeds), marks, row.quoted_from, row.note
    )  # fmt: skip


def _measured(column: Column, found: Found, published: Published | None, wanted: int) -> GridCell:
    name = values.name_of(column)
    numbers = {s: v for s, (_, made) in found.items() if (v := values.of_record(made, name)) is not None}
    ours = aggregate.mean([v * column.scale for v in numbers.values()])
    cell = _with_paper(GridCell(n=len(numbers)), column, published)
    if ours is None and found:  # another task's metric: these runs have no such value
        cell.n = None
        return cell
    if ours is None:
        cell.marks.append("missing")
        return cell
    if len(numbers) < wanted:
        cell.marks.append("partial")
    if any(found[s][1]["git"]["dirty"] for s in numbers):
        cell.marks.append("dirty")
    cell.ours, cell.mean, cell.ci95 = formats.number(ours.mean, ours.ci95, column.digits), ours.mean, ours.ci95
    cell.records = [str(found[s][0]) for s in numbers]
    if published is not None and isinstance(published.mean, int | float):
        difference = ours.mean - published.mean
        cell.difference = f"{difference:+.{column.digits}f}"
        if ours.ci95 is not None and published.ci95 is not None:
            cell.overlap = "overlap" if abs(difference) <= ours.ci95 + published.ci95 else "apart"
    return cell


def _computed(
    column: Column, row: Row, config: Config | None, recorded: list[dict[str, Any]], published: Published | None
) -> GridCell:
    """A size or a setting: no run is needed, but a size that a run recorded is preferred.

    Without a config there is no setting (a search is still to choose it), or no model to work sizes out of.
    """
    name = values.name_of(column)
    cell = _with_paper(GridCell(), column, published)
    sizes = [values.of_record(made, name) for made in recorded] if name in values.SIZES else []
    value = sizes[0] if sizes else values.of_config(config, row, name) if config is not None else None
    published = None if published is None or published.mean is None else published
    if value is None:
        return cell
    if isinstance(value, str):
        cell.ours = value
        same = None if published is None else str(published.mean) == value
    else:
        value *= column.scale
        cell.ours, cell.mean = _text(column, value), value
        same = None if published is None else _text(column, value) == _text(column, published.mean)
        if same is False and not values.is_setting(column) and published is not None and published.mean:
            cell.difference = f"{100 * (value / published.mean - 1):+.2g} %"  # sizes are printed with few digits
            return cell
    if same is not None:
        cell.difference = "same" if same else "differs"
    return cell


def _with_paper(cell: GridCell, column: Column, published: Published | None) -> GridCell:
    if published is None:
        return cell
    cell.note = published.note
    if published.note:
        cell.marks.append("doubtful")
    if published.mean is None:
        cell.paper = "unreadable"
        return cell
    if isinstance(published.mean, str):
        cell.paper = published.mean
    elif values.measured(column):
        cell.paper = formats.number(published.mean, published.ci95, column.digits)
    else:
        cell.paper = _text(column, published.mean)
    cell.paper_mean, cell.paper_ci95 = published.mean, published.ci95
    return cell


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if values.name_of(column) == "trainable_params":
        return formats.count(value)
    if values.is_setting(column):
        return f"{value:g}"
    return f"{value:.{column.digits}f}"


def _statement(verdict: Verdict) -> str:
    claim, difference = verdict.claim, verdict.difference
    if difference is None:
        return f"**{verdict.outcome}**: {claim.text}"
    wanted = f"within {claim.margin:g}" if claim.kind == "close" else f"more than {claim.margin:g}"
    numbers = f"{claim.metric}: difference {difference.signed}, wanted {wanted}, n = {difference.n}"
    return f"**{verdict.outcome}**: {claim.text} ({numbers})"


def _footer(table: Experiment, results: Results) -> list[str]:
    """Model, data, machine and code of the records behind a table."""
    records = results.records()
    if not any(values.measured(c) for c in table.columns):
        return ["Nothing is run for this table: values follow from the configs."]
    if not records:
        return ["No run of this table is recorded yet."]

    def all_of(items: Iterable[Any]) -> str:
        return ", ".join(sorted({str(i) for i in items}))

    data = sorted({
        f"{r['config']['task']['name']} ({r['data']['train']} training examples, {r['data']['test']} inputs evaluated)"
        for r in records
    })  # fmt: skip
    machines = all_of(r["environment"]["gpu"] or r["environment"]["cpu"] for r in records)
    return [
        f"Measured by this project: {len(records)} runs on model {all_of(_model(r) for r in records)}; "
        f"data {'; '.join(data)}.",
        f"Machine {machines}; torch {all_of(r['environment']['packages']['torch'] for r in records)}; "
        f"commit {all_of((r['git']['commit'] or 'unknown')[:10] for r in records)}.",
    ]


def _model(made: dict[str, Any]) -> str:
    """Name, and for weights of a local folder the start of their hash."""
    name, identity = made["config"]["model"]["name"], made["model"]["identity"]
    if "weights_sha256" in identity:
        hashes = [h for f, h in identity["weights_sha256"].items() if f.endswith(".safetensors")]
        return f"{name} (weights sha256 {', '.join(h[:10] for h in hashes)})"
    return f"{name} ({identity['hub']} at {str(identity['revision'])[:10]})" if "hub" in identity else name


def judged(table: Experiment, results: Results) -> list[Verdict]:
    """What became of the table's own claims."""
    columns = {column.key: column for column in table.columns}

    def runs(row: str, column: Column) -> dict[int, dict[str, Any]]:
        return {seed: made for seed, (_, made) in results.of(row, column).items()}

    return [
        aggregate.judge(c, columns[c.metric], runs(c.left, columns[c.metric]), runs(c.right, columns[c.metric]))
        for c in table.claims
    ]
