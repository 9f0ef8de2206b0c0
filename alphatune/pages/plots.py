"""Figures from records, light enough for print. Each function writes <stem>.png and <stem>.svg and returns both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphatune.pages.plots_bcq import bcq_example
from alphatune.pages.plots_bits import loss_by_bits
from alphatune.pages.style import COLOURS, save, style, titles
from alphatune.tables.aggregate import Records, column
from alphatune.tables.experiment import Experiment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "bcq_example", "loss_by_bits", "loss_curves", "loss_panels", "scores_and_curves"]

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Panel:
    """One model's pair of plots: what is drawn, by label."""

    title: str
    series: list[tuple[str, Records]]  # label of a row, its records by seed


def scores_and_curves(experiment: Experiment, results: dict[str, Records], stem: Path) -> list[Path]:
    """Left: BLEU of every subset and row with intervals. Right: validation loss of the first seed (as in Figure 4).

    A table without BLEU by subset has the curves only.
    """
    from matplotlib.figure import Figure

    scores = [c for c in experiment.columns if c.key.startswith("bleu_") and not c.key.endswith("_all")]
    with style():
        figure = Figure(figsize=(12, 5) if scores else (8.5, 5), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=[1.3, 1]) if scores else [figure.subplots()]
        if scores:
            _bars(axes[0], experiment, results, [(c.value or c.key, c.label, c.scale) for c in scores])
        _first_curves(axes[-1], [(row.label, results.get(row.id, {})) for row in experiment.rows])
        titles(figure, experiment.title, experiment.substitute)
        return save(figure, stem)


def loss_curves(experiment: Experiment, results: dict[str, Records], stem: Path) -> list[Path]:
    """Training and validation loss of a table's rows, a pair of plots for each group of rows (Figures 4 and 5)."""
    groups = list(dict.fromkeys(row.group for row in experiment.rows))
    panels = [
        Panel(group, [(row.label, results.get(row.id, {})) for row in experiment.rows if row.group == group])
        for group in groups
    ]
    return loss_panels(panels, stem, experiment.title, experiment.substitute)


def loss_panels(panels: Sequence[Panel], stem: Path, title: str, subtitle: str = "") -> list[Path]:
    """For each panel the training loss at left and the validation loss at right against optimiser steps.

    A line is the mean over seeds, the band behind it runs from the lowest to the highest seed. A label looks the same
    in all panels. Rows that share an adaptation share its curve, which is drawn once.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for panel in panels for label, records in _distinct(panel.series)))
    looks = {label: (COLOURS[i % 10], DASHES[(i + i // 10) % 5]) for i, label in enumerate(labels)}
    with style():
        legend = 0.25 * -(-len(labels) // 4)
        figure = Figure(figsize=(10, 0.95 + legend + 3.1 * max(1, len(panels))), layout="constrained")
        axes = figure.subplots(max(1, len(panels)), 2, squeeze=False)
        handles: dict[str, Any] = {}
        for pair, panel in zip(axes, panels, strict=False):
            for axis, kind in zip(pair, ("train", "validation"), strict=True):
                for label, records in _distinct(panel.series):
                    handles.setdefault(label, _line(axis, records, kind, *looks[label]))
                _loss_axis(axis, kind, [records for _, records in panel.series])
                what = "training loss" if kind == "train" else "validation loss"
                axis.set_title(f"{panel.title}: {what}" if panel.title else what.capitalize(), fontsize=10)
        if handles:
            figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(4, len(handles)),
                          handlelength=3.2, title=_seeds(panels), title_fontsize=9)  # fmt: skip
        titles(figure, title, subtitle)
        return save(figure, stem)


def _distinct(series: list[tuple[str, Records]]) -> list[tuple[str, Records]]:
    """Those with curves, without those whose curves were there before."""
    seen: list[Any] = []
    kept = []
    for label, records in series:
        curves = {seed: made["curves"] for seed, made in records.items() if any(made["curves"].values())}
        if curves and curves not in seen:
            seen.append(curves)
            kept.append((label, records))
    return kept


def _seeds(panels: Sequence[Panel]) -> str:
    """What a line and its band are, over how many seeds."""
    counts = {len(records) for panel in panels for _, records in _distinct(panel.series)}
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one seed"
    many = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"lines: mean over {many} seeds; bands: from the lowest to the highest seed"


def _line(axis: Axes, records: Records, kind: str, colour: str, dashes: Any) -> Any:
    """Mean over the seeds at the steps that all of them have, with the range of the seeds behind it."""
    curves = [dict(made["curves"][kind]) for made in records.values() if made["curves"][kind]]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    values = [[curve[step] for curve in curves] for step in steps]
    if len(curves) > 1:
        axis.fill_between(steps, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(steps) <= 12 else ""
    means = [sum(v) / len(v) for v in values]
    return axis.plot(steps, means, color=colour, linestyle=dashes, linewidth=1.6, marker=marker, markersize=3)[0]


def _loss_axis(axis: Axes, kind: str, rows: Sequence[Records]) -> None:
    """Labels and grid of a plot of losses; without a curve it says so."""
    records = [made for row in rows for made in row.values()]
    kinds = {made["config"]["task"].get("kind", "generation") for made in records}
    units = {"generation": " (nats per token)", "classification": " (per example)"}
    unit = units.get(kinds.pop(), "") if len(kinds) == 1 else ""
    smoothed = kind == "train" and any(made["config"]["hparams"]["label_smoothing"] for made in records)
    axis.set_ylabel(f"{'training' if kind == 'train' else kind} loss{unit}" + (", label-smoothed" if smoothed else ""))
    axis.set_xlabel("optimiser steps")
    axis.grid(True)
    if not any(made["curves"][kind] for made in records):
        missing = f"no {kind} curve" if any(any(made["curves"].values()) for made in records) else "no runs yet"
        axis.text(0.5, 0.5, missing, transform=axis.transAxes, ha="center", va="center", color="#777777")
        axis.set(xticks=[], yticks=[])


def _bars(
    axis: Axes, experiment: Experiment, results: dict[str, Records], scores: list[tuple[str, str, float]]
) -> None:
    height = 0.8 / len(scores)
    for k, (name, label, scale) in enumerate(scores):
        found = [(y, column(results.get(row.id, {}), name)) for y, row in enumerate(experiment.rows)]
        drawn = [(y + (k - (len(scores) - 1) / 2) * height, mean) for y, mean in found if mean is not None]
        widths = [mean.mean * scale for _, mean in drawn]
        reach = [(mean.ci95 or 0) * scale for _, mean in drawn]
        axis.barh([place for place, _ in drawn], widths, height * 0.92, xerr=reach, color=COLOURS[k % 10],
                  ecolor="#333333", label=label)  # fmt: skip
    axis.set_yticks(range(len(experiment.rows)), [row.label for row in experiment.rows])
    axis.set_ylim(len(experiment.rows) - 0.4, -0.6)
    axis.set_xlim(left=0)
    axis.set_xlabel("BLEU, mean with 95 % t-interval over seeds")
    axis.grid(axis="x")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(scores)))


def _first_curves(axis: Axes, series: list[tuple[str, Records]]) -> None:
    """Validation loss of each row's first seed."""
    firsts = [(label, dict(sorted(records.items())[:1])) for label, records in series]
    for i, (label, records) in enumerate(_distinct(firsts)):
        _line(axis, records, "validation", COLOURS[i % 10], DASHES[(i + i // 10) % 5]).set_label(label)
    _loss_axis(axis, "validation", [records for _, records in firsts])
    seeds = sorted({str(seed) for _, records in firsts for seed in records})
    if seeds:
        axis.set_xlabel(f"optimiser steps (seed {', '.join(seeds)})")
    if axis.get_legend_handles_labels()[0]:  # what is only quantised has no curve
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # many would cover the curves
        axis.legend(handlelength=3.2, **(beside if len(axis.get_lines()) > 6 else {}))
