"""Predictions do not depend on how many processes decode, or on where an earlier decoding stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.learn import predict, ranks
from alphatune.run.pipeline import Run

CALL = [*QUICK, "method=ptq", "quant.q=3", "decode.batch_size=2", "data.eval_limit=7", "task.subsets=[]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = config_of([*CALL, f"runtime.artifacts={tmp_path_factory.mktemp('store')}"])
    return Run(config, load(config.task, config.data))


def _whole(run: Run, folder: Path) -> bytes:
    """What `predict` leaves, from what is in `folder`."""
    model, tokenizer = run.final
    out = folder / "out"
    out.mkdir()
    predict.predict(model, tokenizer, run.test_examples, run.config, out, folder)
    return (out / predict.PREDICTIONS).read_bytes()


def _as(number: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": str(number), "WORLD_SIZE": str(of), "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("processes", [2, 3, 5])  # of 4 batches
def test_shares_are_the_predictions_of_one_process(
    processes: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "shared").mkdir()
    expected = _whole(run, tmp_path / "alone")
    model, tokenizer = run.final
    sizes = []
    for number in range(processes):
        _as(number, processes, monkeypatch)
        predict.share(model, tokenizer, run.test_examples, run.config, tmp_path / "shared")
        name = f"predictions-{number}.jsonl" if number else "predictions.jsonl"
        sizes.append(len((tmp_path / "shared" / name).read_text().splitlines()))
    assert sum(sizes) == 7 and max(sizes) <= -(-4 // processes) * 2

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded again")

    _as(0, 1, monkeypatch)
    monkeypatch.setattr(predict, "beam_search", never)  # what the processes left is all that there is to do
    assert _whole(run, tmp_path / "shared") == expected
    assert not list((tmp_path / "shared").glob("predictions-*"))


def test_a_batch_that_is_not_whole_is_decoded_whole(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    expected, decoded = _whole(run, tmp_path / "a"), []
    kept = (tmp_path / "a" / predict.PREDICTIONS).read_text().splitlines(keepends=True)
    search = predict.beam_search

    def counted(model: Any, prompts: Any, *more: Any, **named: Any) -> Any:
        decoded.append(len(prompts))
        return search(model, prompts, *more, **named)

    monkeypatch.setattr(predict, "beam_search", counted)
    (tmp_path / "a" / "out").rename(tmp_path / "first")
    (tmp_path / "a" / predict.PREDICTIONS).write_text("".join([*kept[:3], *kept[4:6]]))  # the second batch lacks one
    assert _whole(run, tmp_path / "a") == expected
    assert decoded == [2, 1]
    assert ranks.words.count == 0
