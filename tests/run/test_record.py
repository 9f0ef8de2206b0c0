"""Records: sealed, believed by what they hold, made again where they are damaged or of another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.run import record
from alphatune.run.execute import execute

OLD = sorted((ROOT / "results" / "records").rglob("*.json"))


def test_every_committed_record_is_whole() -> None:
    assert len(OLD) > 100
    for path in OLD:
        record.whole(path)


def test_what_is_written_is_read_and_carries_its_checksum(tmp_path: Path) -> None:
    made = json.loads(OLD[0].read_text())
    record.write(tmp_path / "x.json", made)
    written = json.loads((tmp_path / "x.json").read_text())
    assert written.pop(record.SEAL) and written == made
    assert record.whole(tmp_path / "x.json") == record.sealed(made)
    reordered = dict(reversed(record.sealed(made).items()))
    (tmp_path / "x.json").write_text(json.dumps(reordered, indent=4))
    assert record.whole(tmp_path / "x.json") == reordered  # the order of keys and the layout say nothing


def _leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [path] if not keys else [leaf for key in keys for leaf in _leaves(node[key], (*path, key))]


def test_every_edited_value_is_seen(tmp_path: Path) -> None:
    made = record.sealed(json.loads(OLD[0].read_text()))
    leaves = [leaf for leaf in _leaves(made) if leaf[0] not in ("schema", record.SEAL)]
    assert len(leaves) > 100
    for leaf in leaves[:: max(1, len(leaves) // 60)]:
        edited = json.loads(json.dumps(made))
        node = edited
        for key in leaf[:-1]:
            node = node[key]
        node[leaf[-1]] = 0.5 if node[leaf[-1]] != 0.5 else 0.25
        (tmp_path / "x.json").write_text(json.dumps(edited))
        with pytest.raises(UserError, match="has changed since it was written"):
            record.read(tmp_path / "x.json")


NO_RECORDS = ["", "[]", "5", '{"schema": 2}', '{"schema": 1, "seed": NaN}', '{"schema": 1, "seed": Infinity}',
              "[" * 100_000, '{"schema": 1, "x": ' + "9" * 6000 + "}"]  # fmt: skip


@pytest.mark.parametrize("content", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_what_is_no_record_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError) as caught:
        record.whole(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: ") and "\n" not in str(caught.value)


def test_without_its_checksum_every_part_that_is_read_must_be_there_and_of_its_kind(tmp_path: Path) -> None:
    made = json.loads(OLD[0].read_text())
    for key in ("run_id", "seed", "config", "scores", "validation_loss", "sizes", "curves", "model", "data", "stages",
                "timings", "environment", "git", "finished"):  # fmt: skip
        for wrong in ({k: v for k, v in made.items() if k != key}, made | {key: [None]}):
            (tmp_path / "x.json").write_text(json.dumps(wrong))
            with pytest.raises(UserError, match=rf"a damaged record: {key}"):
                record.whole(tmp_path / "x.json")


@pytest.mark.parametrize("fault", ["edited", "another run's", "cut"])
def test_a_run_whose_record_is_damaged_is_recorded_again(
    fault: str, quick: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = execute(config_of([*quick, "method=ptq"]))
    right = json.loads(path.read_text())
    if fault == "edited":
        path.write_text(json.dumps(right | {"validation_loss": 0.1}))
    elif fault == "cut":
        path.write_text(path.read_text()[:500])
    else:
        shutil.copy(OLD[0], path)
    assert execute(config_of([*quick, "method=ptq"])) == path
    again = record.whole(path)
    assert "making it again" in caplog.text
    assert (again["validation_loss"], again["run_id"]) == (right["validation_loss"], right["run_id"])
