"""Figures: written twice the same, with everything that has to be said in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from alphatune.pages import plots
from alphatune.pages.plots import Panel
from alphatune.pages.plots_bcq import EXAMPLE, example
from alphatune.tables.experiment import Column, Experiment, Row


def _record(end: float, seed: int, steps: int = 20, curves: bool = True) -> dict[str, Any]:
    train = [[s, end + 2.0 / s + 0.01 * seed] for s in range(1, steps + 1)]
    return {
        "config": {"task": {"kind": "generation"}, "hparams": {"label_smoothing": 0.1}},
        "validation_loss": end, "sizes": {},
        "curves": {"train": train if curves else [], "validation": train[4::5] if curves else []},
        "scores": {part: {"bleu": {"value": 50.0 + end + seed}} for part in ("seen", "unseen", "all")},
    }  # fmt: skip


def _experiment(scores: bool = True) -> Experiment:
    columns = [Column("valid_loss", "Valid loss")]
    if scores:
        columns += [Column(f"bleu_{part}", f"BLEU {part}") for part in ("seen", "unseen", "all")]
    rows = [
        Row(f"{g}/{r}", r, g) for g in ("GPT-2 M", "GPT-2 L") for r in ("LoRA", "AlphaTuning, q=3", "PTQ(W)+W_LoRA")
    ]
    return Experiment("A title", columns, rows, substitute="mini-gpt2, 80 inputs")


def _results(experiment: Experiment) -> dict[str, dict[int, dict[str, Any]]]:
    """The rows of PTQ share the adaptation, and so the curves, of LoRA."""
    ends = {"LoRA": 1.0, "AlphaTuning, q=3": 1.5, "PTQ(W)+W_LoRA": 1.0}
    return {row.id: {seed: _record(ends[row.label], seed) for seed in range(3)} for row in experiment.rows}


def _texts(svg: Path) -> str:
    """Matplotlib draws text as paths and keeps what they say as comments."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8"), re.DOTALL))


def _size(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_loss_curves_have_a_pair_of_plots_per_group(tmp_path: Path) -> None:
    experiment = _experiment()
    png, svg = plots.loss_curves(experiment, _results(experiment), tmp_path / "sub" / "figure4")
    assert (png.name, svg.name) == ("figure4.png", "figure4.svg")
    texts = _texts(svg)
    for group in ("GPT-2 M", "GPT-2 L"):
        assert f"{group}: training loss" in texts and f"{group}: validation loss" in texts
    assert texts.count("optimiser steps") == 4 and "training loss (nats per token)" in texts
    assert texts.count("LoRA") == 1 and texts.count("AlphaTuning, q=3") == 1  # PTQ has no curve of its own
    assert "substitute: mini-gpt2, 80 inputs" in texts
    assert "lines: mean over 3 seeds; bands: from the lowest to the highest seed" in texts
    assert _size(png)[0] == 1500


def test_a_line_is_the_mean_at_common_steps(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    records = {0: _record(1.0, 0, steps=20), 1: _record(1.0, 4, steps=10)}
    line = plots._line(axis, records, "train", "#000000", "-")
    assert list(line.get_xdata()) == list(range(1, 11))
    assert list(line.get_ydata()) == pytest.approx([1.0 + 2.0 / s + 0.02 for s in range(1, 11)])
    assert len(axis.collections) == 1  # the band


def test_one_seed_and_no_run(tmp_path: Path) -> None:
    panels = [
        Panel("M", [("LoRA", {0: _record(1.0, 0)})]),
        Panel("L", [("LoRA", {}), ("PTQ", {0: _record(1, 0, 5, False)})]),
    ]
    _, svg = plots.loss_panels(panels, tmp_path / "f", "Figure", "")
    texts = _texts(svg)
    assert texts.count("no runs yet") == 2 and "one seed" in texts and "substitute" not in texts
    assert "PTQ" not in texts
    _, svg = plots.loss_panels([], tmp_path / "none", "Figure")
    assert svg.stat().st_size > 1000


def test_scores_and_curves(tmp_path: Path) -> None:
    experiment = _experiment()
    _, svg = plots.scores_and_curves(experiment, _results(experiment), tmp_path / "demo")
    texts = _texts(svg)
    assert "BLEU seen" in texts and "BLEU unseen" in texts and "BLEU all" not in texts
    assert "PTQ(W)+W_LoRA" in texts and "optimiser steps (seed 0)" in texts
    small = _experiment(scores=False)
    png, svg = plots.scores_and_curves(small, _results(small), tmp_path / "curves")
    assert "BLEU" not in _texts(svg) and _size(png)[0] < 1500
    _, svg = plots.scores_and_curves(experiment, {}, tmp_path / "empty")
    assert "no runs yet" in _texts(svg)


def _quantised(loss: float, q: int, trained: bool, group: int | None = None, solver: str = "gptq") -> dict[str, Any]:
    """A run of 1,000 weights and 100 other parameters; a scale of 32 bits per plane and 100 weights."""
    config = {
        "method": {"quantize": "before", "train": "scales" if trained else "nothing"},
        "task": {"kind": "generation"},
    }
    quant = {"solver": solver, "offset": solver == "gptq", "group_size": group, "q": q}
    sizes = {"groups": 10, "linear_weights": 1000, "dense_bytes": 4400, "total_bytes": 400 + 125 * q + 40 * q}
    return {"config": {**config, "quant": quant}, "validation_loss": loss, "sizes": sizes, "scores": {}}


def test_loss_by_bits_draws_a_line_per_solver_group_and_training(tmp_path: Path) -> None:
    rows = [Row("m/fp", "not adapted", "Full precision")]
    results = {"m/fp": {0: {**_quantised(2.5, 3, False), "sizes": {"groups": 0}}}}
    for q in (2, 3):
        for name, record in {
            "gptq": _quantised(3.0, q, False), "gptq/adapted": _quantised(1.5, q, True),
            "greedy": _quantised(14.0, q, False, 64, "greedy"),
        }.items():  # fmt: skip
            rows.append(Row(f"m/q{q}/{name}", name, f"q = {q}"))
            results[rows[-1].id] = {0: record}
    rows.append(Row("m/q4/none", "no run yet", "q = 4"))
    experiment = Experiment("A title", [Column("valid_loss", "Valid loss")], rows)
    _, svg = plots.loss_by_bits(experiment, results, tmp_path / "bits")
    texts = _texts(svg)
    for line in ("gptq + offset, one scale per row, quantised only", "gptq + offset, one scale per row, adapted",
                 "greedy, g = 64, quantised only", "Full precision, not adapted"):  # fmt: skip
        assert line in texts
    assert "greedy, g = 64, adapted" not in texts


@pytest.mark.parametrize("name", ["loss_curves", "scores_and_curves", "bcq_example"])
def test_the_same_numbers_give_the_same_files(name: str, tmp_path: Path) -> None:
    experiment = _experiment()
    data = () if name == "bcq_example" else (experiment, _results(experiment))
    first, second = (getattr(plots, name)(*data, tmp_path / folder / "f") for folder in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    svg = first[1].read_text(encoding="utf-8")
    assert not re.search(r"<dc:date>|<text|font-family|20\d\d-\d\d-\d\d|Matplotlib v", svg)


def test_the_example_of_binary_coding() -> None:
    weights = torch.tensor(EXAMPLE)
    errors = []
    for q in (1, 2, 3):
        alpha, signs, restored, error = example(q)
        assert alpha.shape == (4, q) and signs.shape == (4, q, 4)
        by_hand = sum(alpha[:, i, None] * (signs[:, i].float() * 2 - 1) for i in range(q))
        assert torch.allclose(torch.as_tensor(by_hand), restored)
        assert error == pytest.approx(float(((weights - restored) ** 2).mean()))
        errors.append(error)
    assert errors[0] > errors[1] > errors[2] > 0


def test_the_picture_of_binary_coding(tmp_path: Path) -> None:
    png, svg = plots.bcq_example(tmp_path / "figure2")
    texts = _texts(svg)
    for q in (1, 2, 3):
        assert f"q = {q}" in texts and f"MSE {example(q)[3]:.4f}" in texts
    assert texts.count("+1") + texts.count("−1") >= 6 * 16  # B_1; B_1, B_2; B_1, B_2, B_3
    assert "numbers of our own" in texts
    assert _size(png)[0] == 1800
