"""What a table has, what it lacks and why, in as many lines as a screen shows."""

from __future__ import annotations

from collections import Counter

from alphatune.tables import cost, gpu
from alphatune.tables.cells import Cell, Cells
from alphatune.tables.experiment import Experiment

LINES = 40  # of a screen
_REASONS = 5  # told apart; others are counted


def summary(name: str, found: Cells, todo: list[Cell], rows: set[str]) -> list[str]:
    """How many cells there are, how many are done, and what the others cost on this machine.

    Args:
        name: of the table.
        found: all its cells.
        todo: those to run, each run once.
        rows: ids of the rows that are asked for.
    """
    mine = [cell for cell in found.search + found.final if cell.row.id in rows]
    done = sum(cell.record is not None for cell in mine)
    blocked = sum(bool(cell.obstacle) for cell in todo)
    parts = [f"{name}: {len(mine)} cells ({len(rows)} rows), {done} done, {len(todo) - blocked} to run"]
    parts += [f"{blocked} impossible here"] if blocked else []
    waiting = [row.label for row in found.waiting if row.id in rows]
    text = ", ".join(parts)
    if waiting:
        more = f", and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        text += f"; then those of {len(waiting)} rows whose learning rate is still searched: "
        text += ", ".join(waiting[:3]) + more
    return [text, *(cost.of(todo).lines if todo else [])]


def page(name: str, table: Experiment, found: Cells, todo: list[Cell], rows: set[str]) -> list[str]:
    """The plan: the summary, a published table's cost on a named GPU, what cannot run here, and a line for each row.

    Rows that do not fit are counted in a last line. The arguments are those of `summary`.
    """
    lines = summary(name, found, todo, rows)
    if todo and table.source and not table.substitute:
        estimate = gpu.estimate(todo)
        lines.append(f"      on one {gpu.DEFAULT.name}: {estimate.text} (an estimate: docs/costs.md)")
    reasons = Counter(reason for cell in todo for reason in cell.obstacles)
    for reason, count in reasons.most_common(_REASONS):
        lines.append(f"{_cells(count)} cannot run here: {' '.join(reason.split())}")
    if len(reasons) > _REASONS:
        others = sum(count for _, count in reasons.most_common()[_REASONS:])
        lines.append(f"{_cells(others)} cannot run here for {len(reasons) - _REASONS} other reasons")
    listed = _rows(found, todo, rows)
    room = LINES - len(lines)
    if len(listed) > room:
        rest = len(listed) - room + 1
        listed = [*listed[: room - 1], f"and {rest} more rows (--rows shows a part of them)"]
    return lines + listed


def _rows(found: Cells, todo: list[Cell], rows: set[str]) -> list[str]:
    """One line a row: label and counts. A run that several rows share is counted in each of them."""
    labels: dict[str, str] = {}
    counts: dict[str, Counter[str]] = {}
    runs = {cell.run for cell in todo}
    for cell in found.search + found.final:
        if cell.row.id in rows or cell.run in runs:
            label = f"{cell.row.group}: {cell.row.label}" if cell.row.group else cell.row.label
            labels[cell.row.id] = label
            state = "done" if cell.record is not None else "impossible" if cell.obstacle else "to run"
            counts.setdefault(cell.row.id, Counter())[state] += 1
    for row in found.waiting:
        if row.id in rows:
            labels.setdefault(row.id, f"{row.group}: {row.label}" if row.group else row.label)
            counts.setdefault(row.id, Counter())["waits for its search"] += 1
    width = min(60, max(map(len, labels.values()), default=0))
    told = {row: ", ".join(f"{n} {state}" if state in _COUNTED else state for state, n in c.items())
            for row, c in counts.items()}  # fmt: skip
    return [f"  {labels[row]:{width}}  {told[row]}" for row in labels]


_COUNTED = ("done", "to run", "impossible")


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
