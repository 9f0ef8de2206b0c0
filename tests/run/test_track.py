"""Trackers follow a run, never lose one, and never change one; what they wrote is read back."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.run import record, track
from alphatune.run.execute import execute
from alphatune.tools import push

NAME = "toy/tiny/alphatuning/q3-seed0-0123456789"


def result(path: Path) -> dict[str, Any]:
    """What a record says of the run itself."""
    content = record.read(path)
    return {key: content[key] for key in ("run_id", "scores", "validation_loss", "curves", "sizes", "config")}


def wandb_run(folder: Path) -> dict[str, Any]:
    """The one run written below `folder`, once W&B's service has written its end, which it does in its own time."""
    (file,) = (folder / "outputs" / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 30
    while "exit" not in (run := _read(file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return run


def _read(file: Path) -> dict[str, Any]:
    """A run as the .wandb file of offline mode holds it: blocks of 32 KiB with records of the LevelDB log format."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, body = file.read_bytes(), 7, b""
    run: dict[str, Any] = {"config": {}, "history": [], "summary": {}}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        body += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # whole, or the last part
            continue
        entry = pb.Record.FromString(body)
        body = b""
        if entry.WhichOneof("record_type") == "run":
            told = entry.run
            run |= {"id": told.run_id, "name": told.display_name, "group": told.run_group, "job": told.job_type}
            run |= {"project": told.project, "tags": list(told.tags)}
            run["config"] |= {u.key: json.loads(u.value_json) for u in told.config.update}
        elif entry.WhichOneof("record_type") == "history":
            items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in entry.history.item}
            run["history"].append((items["_step"], {k: v for k, v in items.items() if not k.startswith("_")}))
        elif entry.WhichOneof("record_type") == "summary":
            for item in entry.summary.update:
                run["summary"][item.key or item.nested_key[0]] = json.loads(item.value_json)
        elif entry.WhichOneof("record_type") == "exit":
            run["exit"] = entry.exit.exit_code
    run["config"].pop("_wandb", None)
    run["summary"] = {k: v for k, v in run["summary"].items() if not k.startswith("_")}
    return run


@pytest.fixture(scope="module")
def own_stores(shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Makes stores that hold the backbone only, so that a run in each does its own training."""

    def make() -> str:
        root = tmp_path_factory.mktemp("store")
        if (shared_store / "backbone").is_dir():
            shutil.copytree(shared_store / "backbone", root / "backbone")
        return f"runtime.artifacts={root}"

    yield make


@pytest.fixture(scope="module")
def untracked(own_stores: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the run below without any tracker."""
    from conftest import QUICK

    folder = tmp_path_factory.mktemp("untracked")
    return result(execute(config_of([*QUICK, own_stores(), f"runtime.records={folder}", "seed=12"])))


def test_tensorboard_holds_curves_final_numbers_and_config(
    quick: list[str], own_stores: Any, untracked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    path = execute(config_of([*quick, own_stores(), "logger=tensorboard", "seed=12"]))
    assert result(path) == untracked  # following a run does not change it
    folder = next((tmp_path / "outputs" / "tensorboard").rglob("events*")).parent
    events = event_file.EventAccumulator(str(folder))
    events.Reload()
    curves = untracked["curves"]
    for name in ("train", "validation"):
        told = {e.step: e.value for e in events.Scalars(f"{name}_loss")}
        assert told == pytest.approx(dict(curves[name]), rel=1e-6) and len(told) >= 2
    final = {t.removeprefix("final/"): events.Scalars(t)[0].value for t in events.Tags()["scalars"] if "final/" in t}
    expected = {k: v for k, v in track.summary(record.read(path)).items() if k != "status"}
    assert final == pytest.approx(expected, rel=1e-6) and "bleu/all" in final
    (text,) = events.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert json.loads("\n".join(line.removeprefix("    ") for line in shown.splitlines())) == untracked["config"]


def test_wandb_holds_the_run_and_push_makes_the_same_run(
    quick: list[str], own_stores: Any, untracked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    told = ["logger=wandb", "logger.mode=offline", "logger.project=shelf", "logger.group=table2/row"]
    path = execute(config_of([*quick, own_stores(), *told, "seed=12"]))
    assert result(path) == untracked
    content = record.read(path)
    followed = wandb_run(tmp_path)
    assert followed["config"] == untracked["config"]
    assert followed["history"] == [(step, pytest.approx(values)) for step, values in track.points(content["curves"])]
    assert len(followed["history"]) >= 2
    assert followed["summary"] == pytest.approx({**followed["history"][-1][1], **track.summary(content)})
    assert {"bleu/all", "validation_loss", "total_bytes", "trainable_parameters"} <= followed["summary"].keys()
    names = {k: followed[k] for k in ("id", "name", "group", "job", "project", "tags", "exit")}
    assert names == {
        "id": content["run_id"].rsplit("-", 1)[-1], "name": content["run_id"], "group": "table2/row",
        "job": "alphatuning", "project": "shelf", "tags": ["toy", "tiny", "alphatuning", "q3"], "exit": 0,
    }  # fmt: skip

    (tmp_path / "records" / "damaged.json").write_text('{"schema": 1, "run_id": "x"}')
    (tmp_path / "pushed").mkdir()
    monkeypatch.chdir(tmp_path / "pushed")
    told = ["--mode", "offline", "--project", "shelf", "--group", "table2/row"]
    assert push.main([str(tmp_path / "records"), *told]) == 1
    pushed = wandb_run(tmp_path / "pushed")
    assert pushed == {**followed, "history": [(s, pytest.approx(v)) for s, v in followed["history"]]}
    said = capsys.readouterr()
    assert "1 of 2 records pushed to project shelf" in said.out
    assert "damaged.json: a damaged record (KeyError: 'config')" in said.err


class Fake:
    """Stands for a W&B run."""

    made: list[Fake]
    fails_at = ""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.arguments, self.points, self.summary = arguments, [], {}
        Fake.made.append(self)
        self._maybe_fail("init")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._maybe_fail("log")
        self.points.append((step, values))

    def finish(self, summary: dict[str, Any], curves: Any = None) -> None:
        self._maybe_fail("finish")
        self.summary = summary

    def _maybe_fail(self, where: str) -> None:
        if Fake.fails_at == where:
            raise ConnectionError(f"the service is down\nat {where}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setattr(track, "Wandb", Fake)
    monkeypatch.setattr(Fake, "made", [], raising=False)
    monkeypatch.setattr(Fake, "fails_at", "")
    return Fake


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_loses_no_run(
    where: str, quick: list[str], fake: type[Fake], untracked: dict[str, Any], caplog: pytest.LogCaptureFixture,
    own_stores: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fake, "fails_at", where)
    monkeypatch.setattr(track.log, "propagate", True)
    store = [own_stores()] if where == "log" else []  # its points come while the run trains
    with caplog.at_level("WARNING", logger="alphatune"):
        path = execute(config_of([*quick, *store, "logger=wandb", "seed=12"]))
    assert result(path) == untracked
    what = "this run goes on without one" if where == "init" else "stopped following this run"
    # one record may reach two handlers of pytest's, where the logger did not propagate before
    told = [r.message for r in dict.fromkeys(caplog.records) if r.message.startswith("tracker")]
    assert told == [f"tracker: {what} (ConnectionError: the service is down at {where})"]


def test_a_reused_adaptation_shows_its_curves_too(quick: list[str], fake: type[Fake]) -> None:
    given = [*quick, "seed=13"]
    curves = record.read(execute(config_of(given)))["curves"]
    execute(config_of([*given, "logger=wandb", "runtime.force=true"]))
    assert fake.made[0].points == track.points(curves)


def test_an_agent_of_a_sweep_gets_the_numbers_of_a_recorded_run(
    quick: list[str], fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config_of([*quick, "seed=13", "logger=wandb"])
    path = execute(given)
    execute(given)
    assert len(fake.made) == 1  # recorded already, and nobody waits
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    execute(given)
    content = record.read(path)
    assert fake.made[1].points == track.points(content["curves"])
    assert fake.made[1].summary == track.summary(content)


def test_a_run_that_fails_says_so(
    quick: list[str], fake: type[Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from alphatune.run import outcome

    def fail(run: Any) -> None:
        raise UserError("the training loss became nan")

    monkeypatch.setattr(outcome, "outcome", fail)
    with pytest.raises(UserError):
        execute(config_of([*quick, "seed=14", "logger=wandb"]))
    assert fake.made[0].summary == {"status": "failed"}
    assert not list(tmp_path.rglob("records/**/*.json"))


def online(*overrides: str) -> Config:
    return config_of(["logger=wandb", *overrides])


def values() -> dict[str, Any]:
    return record.public_config(config_of([]))


def test_without_a_network_wandb_follows_offline_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    asked: dict[str, Any] = {}

    def init(**settings: Any) -> None:
        asked.update(settings)
        raise RuntimeError("seen enough")

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(track, "getproxies", dict)
    monkeypatch.setattr(track.hub, "reachable", lambda host: False)
    track.start(online(), NAME, values())
    assert asked["mode"] == "offline"
    assert "api.wandb.ai cannot be reached: this run is followed offline" in caplog.text


def test_wandb_online_without_a_key_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": None})())
    with pytest.raises(
        UserError, match="^logger=wandb: no W&B key found; set WANDB_API_KEY, or use logger.mode=offline"
    ):
        track.start(online(), NAME, values())


def test_a_key_that_wandb_refuses_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**settings: Any) -> None:
        raise wandb.errors.AuthenticationError("API key must have 40+ characters,\nhas 3.")

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    monkeypatch.setattr(track.hub, "reachable", lambda host: True)
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"^logger=wandb: W&B refuses the key: API key must have 40\+ characters, has"):
        track.start(online(), NAME, values())


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="^logger=wandb: not installed; pip install wandb, or use logger=tensorboard$"):
        track.start(online(), NAME, values())
    with pytest.raises(UserError, match=r"^logger=tensorboard: not installed; pip install 'alphatune\[tensorboard\]'$"):
        track.start(config_of(["logger=tensorboard"]), NAME, values())


def test_wandb_disabled_by_its_own_variable_is_no_tracker(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = track.start(online(), NAME, values())
    tracker.log(1, {"train_loss": 1.0})
    tracker.finish({})
    assert not fake.made


def test_a_tracker_that_fails_is_not_called_again(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def log(self, step: int, values: dict) -> None:
            raise ConnectionError("the service is down")

        def finish(self, summary: dict, curves: Any = None) -> None:
            raise AssertionError("called after it had failed")

    guarded = track._Guarded(Broken())
    with caplog.at_level("WARNING", logger="alphatune"):
        guarded.log(1, {"x": 1.0})
        guarded.log(2, {"x": 1.0})
        guarded.finish({})
    assert [r.message for r in dict.fromkeys(caplog.records)] == [
        "tracker: stopped following this run (ConnectionError: the service is down)"
    ]


def test_points_join_both_curves() -> None:
    curves = {"train": [[5, 2.0], [10, 1.0]], "validation": [[10, 1.5], [12, 1.25], [12, 1.25]]}
    assert track.points(curves) == [
        (5, {"train_loss": 2.0}), (10, {"train_loss": 1.0, "validation_loss": 1.5}), (12, {"validation_loss": 1.25}),
    ]  # fmt: skip


def test_tags_name_the_bits_of_quantised_methods_only() -> None:
    config = values()
    assert track.tags(config) == ["toy", "tiny", "alphatuning", "q3"]
    config["method"] = {"name": "full_ft", "quantize": "never"}
    assert track.tags(config) == ["toy", "tiny", "full_ft"]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Two records with what push needs of them."""
    for name in ("a", "b"):
        content = {
            "schema": record.SCHEMA, "run_id": f"toy/tiny/alphatuning/q3-seed0-{name * 10}", "status": "completed",
            "config": values(), "validation_loss": 1.0, "sizes": {"total_bytes": 5}, "scores": {},
            "curves": {"train": [[1, 2.0]], "validation": []},
        }  # fmt: skip
        record.write(tmp_path / "records" / f"{name}.json", content)
    return tmp_path / "records"


def test_push_takes_files_and_folders_once(records: Path, fake: type[Fake]) -> None:
    found = push.find([records / "b.json", records])
    assert [p.name for p in found] == ["b.json", "a.json"]
    done = push.push(found, "shelf", "offline")
    assert done.runs == [f"toy/tiny/alphatuning/q3-seed0-{n * 10}" for n in "ba"] and not done.damaged
    assert [made.arguments[0] for made in fake.made] == done.runs
    assert fake.made[0].points == [(1, {"train_loss": 2.0})]
    assert fake.made[0].summary == {"status": "completed", "validation_loss": 1.0, "total_bytes": 5}


def test_push_that_fails_says_how_far_it_came(
    records: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fake, "fails_at", "finish")
    assert push.main([str(records)]) == 2
    assert capsys.readouterr().err == (
        f"error: {records / 'a.json'}: W&B failed (ConnectionError: the service is down at finish); "
        "0 of 2 records were pushed before, and the same command pushes all\n"
    )


@pytest.mark.parametrize(("folder", "message"), [("nowhere", "no such file or folder"), ("", "no records there")])
def test_push_needs_records(folder: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main([str(tmp_path / folder)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / folder}: {message}\n"
