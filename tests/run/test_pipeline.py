"""Every method end to end on a small model: stages are shared, records say everything, nothing is done twice."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.data.load import load
from alphatune.groups import choices
from alphatune.learn import embedded, models, predict
from alphatune.packed import nf4
from alphatune.run import identity, record
from alphatune.run.execute import execute
from alphatune.run.pipeline import Run
from alphatune.store import file_sha256
from alphatune.versions import BFLOAT16, VERSIONS

NEEDS_NF4 = pytest.mark.skipif(not nf4.installed(), reason="needs bitsandbytes: pip install 'alphatune[qlora]'")
METHODS = choices("method")


def _run(config: Config) -> Run:
    return Run(config, load(config.task, config.data))


@pytest.mark.parametrize("method", [pytest.param(m, marks=NEEDS_NF4 if m == "qlora" else []) for m in METHODS])
def test_every_method_runs_to_a_record(method: str, quick: list[str]) -> None:
    path = execute(config_of([*quick, f"method={method}", "quant.q=2"]))
    made = record.read(path)
    assert made["status"] == "completed" and made["config"]["method"]["name"] == method
    assert set(made["scores"]) == {"all", "seen", "unseen"}
    assert made["validation_loss"] > 0
    assert made["sizes"]["total_bytes"] > 0
    assert (len(made["quantization"]) == 8) == config_of([f"method={method}"]).method.codes  # 2 layers x 4 matrices
    assert bool(made["curves"]["validation"]) == (method != "ptq")
    assert path.parent.name == method
    assert [len(digest) for digest in made["model"]["weights_sha256"].values()] == [64]


def test_a_recorded_run_is_not_run_again(quick: list[str]) -> None:
    config = config_of([*quick, "method=ptq"])
    path = execute(config)
    before = path.stat().st_mtime_ns
    assert execute(config) == path and path.stat().st_mtime_ns == before
    config.runtime.force = True
    execute(config)
    assert path.stat().st_mtime_ns > before


def test_ptq_rows_reuse_the_adapted_weights(quick: list[str], caplog: pytest.LogCaptureFixture) -> None:
    lora = _run(config_of([*quick, "method=lora", "seed=5"]))
    assert not lora.adapted().reused
    for method in ("ptq_merged_lora", "ptq_w_plus_lora"):
        for q in (2, 3):
            ptq = _run(config_of([*quick, f"method={method}", f"quant.q={q}", "seed=5"]))
            with caplog.at_level("INFO", logger="alphatune"):
                assert ptq.adapted().reused
            assert ptq.adapted().key == lora.adapted().key
    assert f"adapt     reused {lora.adapted().key}" in caplog.text


def test_one_ptq_serves_all_seeds_and_the_frozen_part_of_lora(quick: list[str]) -> None:
    plans = [_run(config_of([*quick, f"seed={s}", "quant.solver=alternating"])).plan for s in (0, 1)]
    frozen = _run(config_of([*quick, "method=ptq_w_plus_lora"])).plan
    assert plans[0].quantized == plans[1].quantized == frozen.requantized
    assert plans[0].adapted != plans[1].adapted


@pytest.mark.parametrize("method", ["bcq_lora", pytest.param("qlora", marks=NEEDS_NF4)])
def test_lora_of_full_rank_may_start_as_all_that_quantising_took(method: str, quick: list[str]) -> None:
    call = [
        *quick,
        f"method={method}",
        "quant.q=2",
        "method.lora.targets=linear",
        "method.lora.r=32",
        "trainer.evals=1",
    ]
    short = [*call, "hparams.learning_rate=0", "task.metrics=[]"]  # nothing moves: the loss is that of the start
    zero, residual = (config_of([*short, f"method.lora.start={start}"]) for start in ("zero", "residual"))
    dense = config_of([*quick, "method=lora", "hparams.learning_rate=0", "task.metrics=[]", "trainer.evals=1"])
    losses = [record.read(execute(config))["validation_loss"] for config in (zero, residual, dense)]
    assert losses[1] == pytest.approx(losses[2], abs=1e-5) and abs(losses[0] - losses[2]) > 1e-4


def test_identity_follows_use(quick: list[str]) -> None:
    def run_id(*overrides: str) -> str:
        return _run(config_of([*quick, *overrides])).plan.run_id

    assert run_id("method=full_ft") == run_id("method=full_ft", "quant.q=7")
    assert run_id() == run_id("decode.batch_size=3") == run_id("runtime.threads=1") == run_id("logger=tensorboard")
    assert run_id("method=ptq") == run_id("method=ptq", "hparams.learning_rate=3")
    assert run_id() == run_id("quant.iterations=3")  # greedy has no iterations
    changes = ["quant.q=2", "seed=1", "decode.beam=3", "hparams.learning_rate=3", "model.tiny.steps=2",
               "quant.group_size=8", "data.eval_limit=4", "method.trainable=all"]  # fmt: skip
    assert len({run_id(), *(run_id(change) for change in changes)}) == len(changes) + 1


def test_training_on_text_in_bfloat16_has_a_number_of_its_own(quick: list[str]) -> None:
    whole, half = (_run(config_of([*quick, f"trainer.precision={p}"])).plan.adapted for p in ("float32", "bfloat16"))
    assert whole is not None and half is not None
    assert "precision_version" not in whole and half["precision_version"] == BFLOAT16


def test_the_curve_may_look_at_less_than_the_scores(quick: list[str]) -> None:
    run = _run(config_of([*quick, "data.eval_limit=8", "data.validation_limit=3"]))
    assert (len(run.test_examples), len(run.validation_examples)) == (8, 3)
    alike = [*quick, "data.eval_limit=8", "data.validation_limit=8"]  # the same examples: the same run
    assert _run(config_of(alike)).plan.run_id == _run(config_of([*quick, "data.eval_limit=8"])).plan.run_id


def test_settings_without_effect_are_named() -> None:
    config = config_of(["method=full_ft"])
    assert identity.unused(config, ["quant.q=2", "seed=1"]) == [
        "quant.q=2: method=full_ft does not quantise; the setting has no effect"
    ]
    assert identity.unused(config_of(["method=ptq"]), ["hparams.learning_rate=1", "quant.q=2"]) == [
        "hparams.learning_rate=1: method=ptq trains nothing; the setting has no effect"
    ]
    steps = "trainer.max_steps=3"
    assert identity.unused(config_of(["method=ptq"]), [steps]) == [
        f"{steps}: method=ptq trains nothing; the setting has no effect"
    ]


@pytest.mark.parametrize(("chosen", "setting", "by"), [
    (["method=peqa"], "quant.solver=gptq", "quant.format=uniform"),
    (["method=peqa"], "quant.offset=true", "quant.format=uniform"),
    (["quant.solver=greedy"], "quant.iterations=3", "quant.solver=greedy"),
    (["quant.solver=weighted"], "quant.rounds=3", "quant.solver=weighted"),
])  # fmt: skip
def test_settings_that_the_solver_does_not_use_are_named_as_they_change_no_run(
    chosen: list[str], setting: str, by: str, quick: list[str]
) -> None:
    plain, more = config_of([*quick, *chosen]), config_of([*quick, *chosen, setting])
    assert identity.unused(more, [*chosen, setting]) == [f"{setting}: {by} does not use it; the setting has no effect"]
    assert _run(plain).plan.run_id == _run(more).plan.run_id


def test_the_embedded_weights_are_in_the_key_and_so_is_another_recipe_with_its_version() -> None:
    assert models.identity(config_of([]).model) == {"weights_sha256": embedded.hashes()}
    spec = models.identity(config_of(["model.tiny.width=64"]).model)
    assert spec["version"] == VERSIONS["backbone"] and spec["tiny"]["width"] == 64


def test_a_record_holds_no_path_and_no_machine_name(quick: list[str], tmp_path: Path) -> None:
    text = execute(config_of([*quick, "method=ptq"])).read_text()
    assert str(tmp_path) not in text and str(Path.home()) not in text
    values = json.loads(text)
    assert "runtime" not in values["config"] and "dir" not in values["config"]["data"]
    assert values["environment"]["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_a_killed_decoding_continues(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from alphatune.learn import predict

    overrides = [*quick, "method=ptq", "decode.batch_size=2", "decode.length_penalty=0.3"]
    real, calls = predict.beam_search, []

    def dies(model: object, prompts: list, *args: object, **kwargs: object) -> object:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return real(model, prompts, *args, **kwargs)

    monkeypatch.setattr(predict, "beam_search", dies)
    with pytest.raises(KeyboardInterrupt):
        _run(config_of(overrides)).decoded()
    scratch = _run(config_of(overrides)).store.scratch("decode", _run(config_of(overrides)).plan.decoded)
    partial = scratch / predict.PREDICTIONS
    assert len(partial.read_text().splitlines()) == 4
    partial.write_text(partial.read_text() + '{"index": 7, "pred')  # the line that was being written

    counted = []
    monkeypatch.setattr(predict, "beam_search", lambda m, p, *a, **k: counted.append(len(p)) or real(m, p, *a, **k))
    resumed = _run(config_of(overrides)).decoded()
    assert sum(counted) == 4  # 8 inputs, 4 were there
    monkeypatch.setattr(predict, "beam_search", real)
    whole = (resumed.path / predict.PREDICTIONS).read_text()
    fresh = _run(config_of([*overrides, "runtime.artifacts=" + str(scratch / "fresh")]))
    assert (fresh.decoded().path / predict.PREDICTIONS).read_text() == whole


def test_same_seed_same_bytes_other_seed_other_weights(quick: list[str], tmp_path: Path) -> None:
    def trained(seed: int, store: str) -> bytes:
        config = config_of([*quick, f"seed={seed}", "method=lora", f"runtime.artifacts={tmp_path / store}"])
        return (_run(config).adapted().path / "trained.safetensors").read_bytes()

    assert trained(0, "a") == trained(0, "b")
    assert trained(0, "a") != trained(1, "a")


QUICKLY = {"lora", "alphatuning", "bcq_lora", "ptq_w_plus_lora"}  # the others are the same code, and slow tests


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(m, marks=[] if m in QUICKLY else [pytest.mark.slow])
        for m in METHODS
        if m != "qlora" or nf4.installed()
    ],
)
def test_what_the_store_holds_changes_no_byte(method: str, quick: list[str], tmp_path: Path) -> None:
    """Everything made in one process, backbone included, against backbone and codes found, after other work."""
    overrides = [*quick, f"method={method}", "seed=1", "quant.q=2", "hparams.dropout=0.1"]
    cold = config_of([*overrides, f"runtime.artifacts={tmp_path / 'cold'}", f"runtime.records={tmp_path / 'a'}"])
    first = record.read(execute(cold))
    made = _bytes(tmp_path / "cold")
    for stage in ("adapt", "evaluate", "decode", "score"):
        shutil.rmtree(tmp_path / "cold" / stage, ignore_errors=True)
    torch.rand(7), random.random()
    warm = config_of([*overrides, f"runtime.artifacts={tmp_path / 'cold'}", f"runtime.records={tmp_path / 'b'}"])
    second = record.read(execute(warm))
    assert _bytes(tmp_path / "cold") == made
    assert [first[key] for key in ("run_id", "curves", "scores", "validation_loss")] == [
        second[key] for key in ("run_id", "curves", "scores", "validation_loss")
    ]


def _bytes(store: Path) -> dict[str, str]:
    return {
        str(p.relative_to(store)): file_sha256(p)
        for p in sorted(store.glob("[!.]*/*/**/*"))
        if p.is_file() and p.name != "manifest.json" and "backbone" not in p.parts
    }


def test_a_metric_that_was_absent_is_scored_again_when_it_may_be_had(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_java:
        without_java.setenv("PATH", "")
        without_java.delenv("JAVA_HOME", raising=False)
        config = config_of([*quick, f"runtime.artifacts={tmp_path}", "task.metrics=[bleu,meteor]", "method=ptq"])
        run = _run(config)
        first = json.loads((run.scored().path / "scores.json").read_text())
        assert set(first["absent"]) == {"meteor"} and predict.absent(run.scored().path)
    monkeypatch.setattr(predict, "score", lambda *given: {**first, "absent": {}})  # as a machine that has Java says
    again = _run(config).scored()
    assert not again.reused and json.loads((again.path / "scores.json").read_text())["absent"] == {}
    assert _run(config).scored().reused
