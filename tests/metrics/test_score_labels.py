"""The score command on classification tasks: labels by name or by index, from files or from the task's own split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alphatune.data import load as loading
from alphatune.tools import score


@pytest.fixture
def rte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "glue" / "RTE"
    folder.mkdir(parents=True)
    rows = [f"{i}\ta {i}\tb\t{'not_entailment' if i % 4 == 0 else 'entailment'}\n" for i in range(8)]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(loading, "count_problems", lambda *args: {})
    return tmp_path


@pytest.mark.parametrize("by_name", [True, False])
def test_a_split_of_glue_gives_the_labels(rte: Path, by_name: bool, capsys: pytest.CaptureFixture[str]) -> None:
    labels = loading.task_config("glue/rte").labels
    everything_entails = "entailment" if by_name else str(labels.index("entailment"))
    (rte / "h.txt").write_text(f"{everything_entails}\n" * 8)
    call = ["--task", "glue/rte", "--hypotheses", str(rte / "h.txt"), "--split", "validation", "--json"]
    assert score.main(call) == 0
    # 2 of 8 are not entailed
    assert json.loads(capsys.readouterr().out)["values"]["all"]["accuracy"]["value"] == 75.0


def test_names_and_indices_may_meet(rte: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = loading.task_config("glue/rte").labels
    (rte / "h.txt").write_text("0\n1\n")
    (rte / "r.txt").write_text(f"{names[0]}\n{names[1]}\n")
    call = ["--task", "glue/rte", "--hypotheses", str(rte / "h.txt"), "--references", str(rte / "r.txt"), "--json"]
    assert score.main(call) == 0
    assert json.loads(capsys.readouterr().out)["values"]["all"]["accuracy"]["value"] == 100.0
