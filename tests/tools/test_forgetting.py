"""The loss on general text before and after a run, against the model's own mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.pages.plots_sharing import TASKS, size
from alphatune.run import record
from alphatune.run.execute import execute
from alphatune.tools import forgetting, package

TEXTS = ["Mara is a painter of the town.", "The river is long."]


def store_of(quick: list[str]) -> str:
    return next(o for o in quick if o.startswith("runtime.artifacts")).partition("=")[2]


def test_a_run_before_and_after(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "general.txt"
    text.write_text("\n\n".join(TEXTS) + "\n")
    paths = [execute(config_of([*quick, f"method={m}", "quant.q=2"])) for m in ("full_ft", "alphatuning")]
    capsys.readouterr()
    out = tmp_path / "out" / "forgetting.json"
    call = [*map(str, paths), "--text", str(text), "--artifacts", store_of(quick), "--out", str(out)]
    assert forgetting.main([*call, "--figure", str(out.with_name("drawn"))]) == 0
    assert out.with_name("drawn.svg").is_file() and out.with_name("drawn.png").is_file()
    rows = json.loads(out.read_text())["runs"]
    assert [row["run_id"] for row in rows] == [record.read(p)["run_id"] for p in paths]
    assert rows[0]["before"] == rows[1]["before"] and rows[0]["after"] != rows[1]["after"]
    run = package.run_of(record.read(paths[1]), None, store_of(quick), "model")
    model, tokenizer = run.final
    losses = []  # as transformers computes them, weighted by the tokens that are predicted
    for line in TEXTS:
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        with torch.no_grad():
            losses.append((float(model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1))
    wanted = sum(a * n for a, n in losses) / sum(n for _, n in losses)
    assert rows[1]["after"] == pytest.approx(wanted, rel=1e-5)
    full, scales = rows
    dense = record.read(paths[0])["sizes"]["dense_bytes"]
    assert [size(full, n) for n in TASKS] == [dense, 10 * dense, 100 * dense]  # nothing is shared
    adapter = record.read(paths[1])["sizes"]["checkpoint_bytes"]
    assert size(scales, 100) - size(scales, 1) == 99 * adapter and size(scales, 1) < dense
    assert (
        scales["label"]
        == f"{record.read(paths[1])['label']}, q=2, {record.read(paths[1])['config']['quant']['solver']}"
    )
    assert f"{wanted:.3f}" in capsys.readouterr().out


def test_mistakes_are_one_line(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = execute(config_of([*quick, "method=ptq"]))
    capsys.readouterr()
    call = [str(path), "--artifacts", store_of(quick)]
    for text, told in (("", "holds no text"), ("a\n", "no paragraph of two tokens"), (None, "cannot be read")):
        given = tmp_path / "text.txt"
        given.unlink(missing_ok=True)
        if text is not None:
            given.write_text(text)
        assert forgetting.main([*call, "--text", str(given)]) == 2
        assert told in capsys.readouterr().err


def test_the_sample_is_text_of_twenty_paragraphs() -> None:
    found = forgetting._paragraphs(ROOT / forgetting.TEXT)
    assert len(found) == 20 and all(len(p.split()) > 40 for p in found)
