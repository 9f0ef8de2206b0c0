"""Write what each of the paper's tables costs into docs/costs.md and experiments/reproduce.sh: python docs/costs.py"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alphatune.tables import experiment, gpu
from alphatune.tables.cells import Cell, Planner
from alphatune.tables.stages import Stage, distinct, hours

ROOT = Path(__file__).resolve().parent.parent
PAGE, SCRIPT = ROOT / "docs" / "costs.md", ROOT / "experiments" / "reproduce.sh"
_MARKED = re.compile(r"(?<=<!-- estimate -->\n).*?(?=<!-- end -->)", re.DOTALL)
_LISTED = re.compile(r"^tables=\(.*?\)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Priced:
    """A table or figure with its cells and what they take alone, on each GPU in the order of `ACCELERATORS`."""

    name: str
    title: str
    cells: list[Cell]
    seconds: list[float]


def priced(names: list[str] | None = None) -> list[Priced]:
    """What the paper's tables and figures take that have something to run (`names`: only these), the cheapest first."""
    found = []
    for name in names or experiment.names():
        if not re.fullmatch(r"(table|figure)\d+", name):
            continue
        table = experiment.load(name)
        cells = Planner(table, ["runtime.records=nowhere"], run=False).cells().final
        if cells:
            seconds = [gpu.estimate(cells, device, made=True).seconds for device in gpu.ACCELERATORS.values()]
            found.append(Priced(name, table.title, cells, seconds))
    return sorted(found, key=lambda table: (table.seconds[0], table.name))


def page(tables: list[Priced]) -> str:
    """The table of costs in markdown: each alone, and on the default GPU what is left once those above are done."""
    names = [device.name for device in gpu.ACCELERATORS.values()]
    lines = [f"| | cells | {' | '.join(names)} | {gpu.DEFAULT.name}, after those above |",
             f"|---|--:|{'--:|' * len(names)}--:|"]  # fmt: skip
    done: set[Stage] = set()
    total = 0.0
    for table in tables:
        stages = distinct(table.cells)
        left = sum(
            gpu.stage_seconds(stage, cell.config, gpu.DEFAULT) or 0.0
            for (stage, key), cell in stages.items()
            if (stage, key) not in done
        )
        new = [cell for cell in table.cells if not set(distinct([cell])) <= done]
        left += gpu.CELL_SECONDS * len({cell.run for cell in new})
        done |= set(stages)
        total += left
        lines.append(f"{alone(table)} {hours(left)} |")
    lines.append(f"| all |{' |' * (len(names) + 1)} {hours(total)} |")
    return "\n".join(lines) + "\n"


def alone(table: Priced) -> str:
    """The start of a table's line: what it takes by itself."""
    return f"| {table.title} | {len(table.cells)} | {' | '.join(map(hours, table.seconds))} |"


def written(tables: list[Priced]) -> dict[Path, str]:
    """The files as they are to be."""
    order = "\n".join(["tables=(", *(f"  {table.name}" for table in tables), ")"])
    return {
        PAGE: _MARKED.sub(lambda _: page(tables), PAGE.read_text(encoding="utf-8")),
        SCRIPT: _LISTED.sub(lambda _: order, SCRIPT.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in written(priced()).items():
        path.write_text(text, encoding="utf-8")
