"""Whatever is typed wins over whatever is looked up, whole groups included; and the record says which is which."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from alphatune import groups
from alphatune.compose import hparams, sources
from alphatune.compose.compose import config_of, sources_of
from alphatune.run import record
from alphatune.run.execute import main

WEBNLG = ["task=webnlg", "model=gpt2-medium"]
STOCK = yaml.safe_load((groups.folder() / "decode" / "stock.yaml").read_text())
TABLE_10 = "hparams/webnlg: gpt2-medium, lora (paper, Table 10)"


def test_a_typed_decode_group_is_exactly_its_file() -> None:
    for cell in ([*WEBNLG, "method=lora"], [*WEBNLG, "method=full_ft"], ["task=samsum", "model=opt-1.3b"], []):
        assert dataclasses.asdict(config_of([*cell, "decode=stock"]).decode) == STOCK, cell
    assert config_of([*WEBNLG, "method=lora"]).decode.length_penalty == 0.9  # the cell's own, where nothing is typed
    assert config_of([*WEBNLG, "method=lora", "decode=beam"]).decode.length_penalty == 0.8


@pytest.mark.parametrize("order", [1, -1])
def test_a_typed_value_wins_over_a_typed_group_wherever_it_stands(order: int) -> None:
    given = ["decode=stock", "decode.beam=3"][::order]
    assert dataclasses.asdict(config_of([*WEBNLG, *given]).decode) == {**STOCK, "beam": 3}


def test_typed_trainer_and_quant_groups_win_too() -> None:
    assert config_of([]).trainer.evals == 5 and config_of(["trainer=default"]).trainer.evals == 10
    opt = ["task=mnli", "model=opt-1.3b"]
    assert config_of(opt).quant.group_size == "h" and config_of([*opt, "quant=bcq"]).quant.group_size is None
    assert config_of([*opt, "quant=bcq", "quant.group_size=64"]).quant.group_size == 64
    # the method stands after quant in the list of defaults: its solver is part of it
    assert config_of([*opt, "quant=bcq", "method=ptq_full_ft"]).quant.solver == "alternating"


def test_a_typed_method_keeps_its_own_lora_and_leaves_the_learning_rate_to_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(groups.folder(), tmp_path / "conf")
    file = copied / "method" / "lora.yaml"
    file.write_text(file.read_text().replace("train: lora}", "train: lora, lora: {r: 16}}"))
    monkeypatch.setattr(groups, "folder", lambda: copied)
    config = config_of([*WEBNLG, "method=lora", "data.offline=true"])  # composed here for the first time: not cached
    assert (config.method.lora.r, config.method.lora.dropout) == (16, 0.1)
    assert config.hparams.learning_rate == 5e-4  # not the 2e-4 of the method's file
    assert config_of([*WEBNLG, "method=lora", "method.lora.r=2", "data.offline=true"]).method.lora.r == 2
    found = sources_of([*WEBNLG, "method=lora", "data.offline=true"])
    assert found["method.lora.r"] == "typed group method=lora" and found["method.lora.dropout"] == TABLE_10


def test_a_preset_wins_over_typed_groups_and_over_the_cell() -> None:
    config = config_of(["experiment=smoke", "decode=stock"])
    assert (config.decode.beam, config.decode.max_new_tokens, config.decode.stopping) == (2, 32, "bound")
    assert config_of(["experiment=smoke", "decode=stock", "decode.beam=7"]).decode.beam == 7


def test_the_sources_of_a_run() -> None:
    found = sources_of([*WEBNLG, "method=lora", "decode=stock", "decode.beam=3", "+data.train_limit=8", "seed=1"])
    assert found["decode.beam"] == found["data.train_limit"] == "typed"
    assert found["decode.length_penalty"] == "typed group decode=stock"
    assert found["hparams.learning_rate"] == found["method.lora.r"] == TABLE_10
    assert found["task.metrics"] == found["task.counts"] == "typed group task=webnlg"
    assert found["trainer.evals"] == found["hparams.optimizer"] == found["quant.q"] == "default"
    assert {key.rpartition(".")[0] for key in found} == {*sources.RECORDED, "task.fields"}
    found = sources_of(["task=webnlg", "method=lora", "experiment=smoke", "method.lora={r: 2}"])
    assert found["hparams.epochs"] == found["decode.beam"] == "experiment=smoke"
    assert found["hparams.learning_rate"] == "typed group method=lora"
    assert found["method.lora.r"] == "typed"
    # a row that other methods share, and one below the task's second name
    assert sources_of([*WEBNLG, "method=ptq_w_plus_lora"])["decode.length_penalty"] == (
        "hparams/webnlg: gpt2-medium, ptq_w_plus_lora (paper, Table 10)"
    )
    assert sources_of(["task=glue/rte", "model=bert-base-cased"])["quant.group_size"] == (
        "hparams/glue: rte, bert-base-cased, alphatuning (paper, Table 16)"
    )


CELLS: list[list[str]] = [
    [], ["decode=stock"], [*WEBNLG, "quant.q=2"], [*WEBNLG, "method=lora", "decode=stock", "trainer=default"],
    ["task=mnli", "model=opt-1.3b", "quant=bcq", "method=ptq_full_ft"], ["task=samsum", "experiment=smoke"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", CELLS, ids=str)
def test_every_value_is_the_one_that_its_source_says(overrides: list[str]) -> None:
    """Read back from the file that is named, and from the schema and the groups' files for the defaults."""
    config = config_of(overrides)
    for key, source in sources_of(overrides).items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if source.startswith("hparams/"):
            file, names = source.removeprefix("hparams/").split(" (")[0].split(": ")
            row = hparams.row(file, *names.split(", "))
            assert row is not None
            said = row.values | {hparams.PROVENANCE: row.source} | row.by_q.get(config.quant.q, {})
            assert key in said
        elif source != "typed" and source != "default":
            said = groups.sets(*source.removeprefix("typed group ").split("="))
        else:
            continue
        if key in said and "${" not in str(said[key]):
            assert said[key] == value, (key, source)


def test_sources_are_in_the_record_and_not_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import alphatune.run.outcome

    result = {
        "validation_loss": 1.0, "scores": {}, "absent_metrics": {}, "stages": {}, "timings": {}, "quantization": [],
        "curves": {"train": [], "validation": []}, "provenance": "",
        "sizes": {"trainable_parameters": 1, "total_bytes": 1, "checkpoint_bytes": 1},
        "model": {"identity": {}, "weights_sha256": {}},
        "data": {"files": {}, "train": 8, "validation": 1, "test": 1},
    }  # fmt: skip
    monkeypatch.setattr(alphatune.run.outcome, "outcome", lambda run: result)
    given = ["data.train_limit=8", f"runtime.records={tmp_path}", f"runtime.artifacts={tmp_path}/a"]
    assert main([*given, "hparams.epochs=1"]) == 0
    assert main([*given, "quant.q=3"]) == 0  # the same run, told otherwise: no second record
    (path,) = tmp_path.rglob("*.json")
    made = record.read(path)
    assert made["sources"] == sources_of([*given, "hparams.epochs=1"])
    assert made["sources"]["hparams.epochs"] == "typed" and made["config"]["hparams"]["epochs"] == 1
    assert "sources" not in json.dumps(made["config"])


def test_shown_is_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "-p", "decode", *WEBNLG, "decode=stock"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == STOCK
    assert main(["--cfg", "job", *WEBNLG, "decode=stock"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["decode"] == STOCK and shown["hparams"]["weight_decay"] == 0.05
    assert main(["--cfg", "job", "-p", "decod"]) == 2
    assert capsys.readouterr().err.startswith("error: --package decod: no such key; keys of the config: task, ")
    assert main(["--cfg", "all"]) == 2
    assert capsys.readouterr().err.startswith("error: --cfg all: use --cfg job")


# --- announcements


def told(overrides: list[str]) -> list[str]:
    return sources.announcements(config_of(overrides), sources_of(overrides))


def test_hyper_parameters_that_nobody_chose_are_announced() -> None:
    assert told(["task=webnlg", "method=lora"]) == [
        "no published hyper-parameters for webnlg with tiny and lora: the defaults are learning rate 0.0002, epochs 5, "
        "batch size 8; set hparams.learning_rate, hparams.epochs, hparams.batch_size"
    ]
    assert told(["task=webnlg", "method=lora", "hparams.epochs=2", "hparams.batch_size=4"]) == [
        "no published hyper-parameters for webnlg with tiny and lora: the defaults are learning rate 0.0002; "
        "set hparams.learning_rate"
    ]
    chosen = ["hparams.learning_rate=1e-3", "hparams.epochs=2", "hparams.batch_size=4"]
    assert told(["task=webnlg", *chosen]) == []
    assert told(["task=webnlg", "method=ptq"]) == []  # trains nothing
    assert told([]) == told([*WEBNLG, "method=lora"]) == []


def test_values_of_another_q_are_announced() -> None:
    assert told([*WEBNLG, "quant.q=4"]) == [
        "quant.q=4: no published values for this q: those of q=3 (Table 10); taken over: hparams.weight_decay"
    ]
    assert told([*WEBNLG, "quant.q=4", "hparams.weight_decay=0.1"]) == []
    for q in (2, 3):
        assert told([*WEBNLG, f"quant.q={q}"]) == []


def test_announcements_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ALPHATUNE_DATA", raising=False)
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path))
    assert main(["task=webnlg", "method=lora", "data.offline=true"]) == 2  # without files it ends after the first lines
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("no published hyper-parameters for webnlg with tiny and lora") == 1
