"""What adapting one backbone to many tasks costs: loss on general text after one task, and bytes for 1 to 100 tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alphatune.pages.style import COLOURS, save, style, titles

TASKS = (1, 10, 100)


def size(run: dict[str, Any], tasks: int) -> int:
    """Bytes on disk of `tasks` tasks adapted as `run` was: what they share once, what is a task's own for each."""
    return int(run["shared_bytes"] + tasks * run["task_bytes"])


def sharing(runs: Sequence[dict[str, Any]], text: str, stem: Path) -> list[Path]:
    """Left: nats per token of `text` after adaptation, the backbone's own as a line. Right: gigabytes against tasks.

    Args:
        runs: rows of `alphatune forgetting`: label, before, after, shared_bytes, task_bytes.
        text: the name of the text.
        stem: where <stem>.png and <stem>.svg are written.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(10, 1.6 + 0.35 * max(6, len(runs))), layout="constrained")
        left, right = figure.subplots(1, 2)
        labels = [run["label"] for run in runs]
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(runs))]
        bars = left.barh(range(len(runs)), [run["after"] for run in runs], color=colours)
        left.bar_label(bars, [f"{run['after']:.2f}" for run in runs], padding=3)
        left.set_yticks(range(len(runs)), labels)
        left.invert_yaxis()
        for before in {run["before"] for run in runs}:
            left.axvline(
                before, color="#333333", linestyle=":", label=f"before adaptation, in full precision: {before:.2f}"
            )
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        left.margins(x=0.15)
        left.set_xlabel(f"loss on {text} (nats per token)")
        for run, colour in zip(runs, colours, strict=True):
            right.plot(TASKS, [size(run, n) / 1e9 for n in TASKS], marker="o", color=colour, label=run["label"])
        right.set(xscale="log", yscale="log", xlabel="tasks", ylabel="GB on disk, backbone included")
        right.set_xticks(TASKS, [str(n) for n in TASKS])
        right.minorticks_off()
        right.grid(True)
        titles(figure, "One backbone, many tasks")
        return save(figure, stem)
