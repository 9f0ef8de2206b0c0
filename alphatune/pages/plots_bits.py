"""Loss against bits per weight, before and after adaptation, for every solver and group size of a table."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphatune.pages.style import COLOURS, save, style, titles
from alphatune.run import record
from alphatune.tables.aggregate import Records, column
from alphatune.tables.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]  # bits per weight, loss
_MARKERS = "osD^v"


def loss_by_bits(experiment: Experiment, results: dict[str, Records], stem: Path) -> list[Path]:
    """One line per solver, group size and whether trained; a dotted level for each row in full precision.

    Solvers differ by colour, groups by marker; rows that only quantise are dashed and hollow, trained ones solid.
    The axis of losses is logarithmic: a start worse than guessing stands beside one that lost nothing.
    """
    from matplotlib.figure import Figure

    lines: dict[tuple[str, str, bool], list[Point]] = defaultdict(list)
    levels: list[tuple[str, float]] = []
    for row in experiment.rows:
        records = results.get(row.id, {})
        loss, bits = column(records, "valid_loss"), column(records, "bits_per_weight")
        if loss is None:
            continue
        if bits is None:
            levels.append((f"{row.group}, {row.label}", loss.mean))
            continue
        config = next(iter(records.values()))["config"]
        lines[(*_codes(config), config["method"]["train"] != "nothing")].append((bits.mean, loss.mean))
    with style():
        figure = Figure(figsize=(9, 5), layout="constrained")
        axis = figure.subplots()
        solvers, groups = ([*dict.fromkeys(key[i] for key in lines)] for i in (0, 1))
        for (solver, group, trained), points in lines.items():
            axis.plot(*zip(*sorted(points), strict=True), color=COLOURS[solvers.index(solver)], markersize=6,
                      marker=_MARKERS[groups.index(group) % 5], linestyle="-" if trained else "--", linewidth=1.4,
                      markerfacecolor=None if trained else "white",
                      label=f"{solver}, {group}, {'adapted' if trained else 'quantised only'}")  # fmt: skip
        for label, level in levels:
            axis.axhline(level, color="#555555", linestyle=":", linewidth=1.2)
            axis.annotate(label, (0.0, level), (3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                          fontsize=7.5, color="#555555")  # fmt: skip
        _axes(axis)
        titles(figure, experiment.title, experiment.substitute)
        return save(figure, stem)


def _codes(config: dict[str, Any]) -> tuple[str, str]:
    """What a line is called: how codes were found, and how many weights share a scale."""
    quant = config["quant"]
    solver = record.solver(config) + (" + offset" if quant.get("offset") else "")  # older records have none
    return solver, "one scale per row" if quant["group_size"] is None else f"g = {quant['group_size']}"


def _axes(axis: Axes) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks([1, 1.5, 2, 3, 4, 6, 8, 10, 15])
    axis.set_xlabel("bits per quantised weight, scales counted")
    axis.set_ylabel("validation loss (nats per token)")
    axis.grid(True)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3.2)
