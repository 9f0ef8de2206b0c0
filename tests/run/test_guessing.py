"""A quantised model that is worse than guessing is told of at once, with what to try; the record keeps the numbers."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from alphatune.compose.compose import config_of
from alphatune.config import Quant
from alphatune.learn import train
from alphatune.run import guessing, identity, record
from alphatune.run.execute import execute


@pytest.mark.parametrize(("quant", "advice"), [
    (Quant(q=3), "quant.solver=gptq quant.offset=true, quant.group_size=64 or quant.q=4"),
    (Quant(q=3, solver="gptq"), "quant.solver=gptq quant.offset=true, quant.group_size=64 or quant.q=4"),
    (Quant(q=2, solver="gptq", offset=True, group_size=64), "quant.group_size=32 or quant.q=3"),
    (Quant(q=8, format="uniform", group_size="h"), "quant.group_size=64"),
    (Quant(q=4, format="uniform", group_size=1), "quant.group_size=1 or quant.q=5"),
])  # fmt: skip
def test_the_warning_names_the_loss_that_of_guessing_and_what_is_not_tried_yet(quant: Quant, advice: str) -> None:
    found = guessing.Start(14.59, math.log(49152), 8)
    assert guessing.warning(found, quant) == (
        "quantised, this model is worse than guessing: 14.59 nats a token on 8 validation texts, where all tokens "
        f"alike (ln V) give 10.80; try {advice}"
    )
    assert guessing.warning(guessing.Start(found.guessing, found.guessing, 1), quant) is None  # as good as guessing


def test_where_the_backbone_came_packed_the_advice_is_how_to_pack_it_anew() -> None:
    line = guessing.warning(guessing.Start(14.59, 10.8, 1), Quant(q=3), given=True)
    assert line is not None and line.endswith(
        "; try a backbone from `alphatune quantize` with --solver gptq --offset, --group-size 64 or --bits 4"
    )


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "worse than guessing" in line]


def execute_told(config: Any, caplog: pytest.LogCaptureFixture) -> tuple[dict[str, Any], list[str]]:
    caplog.clear()
    made = record.read(execute(config))
    return made, list(caplog.messages)


@pytest.mark.parametrize("method", ["ptq", "alphatuning"])
def test_a_run_says_it_before_it_trains_or_decodes(
    method: str, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="alphatune")
    monkeypatch.setattr(logging.getLogger("alphatune"), "propagate", True)
    real, losses = train.validation_loss, []

    def worse(*arguments: Any, **named: Any) -> float:
        losses.append(real(*arguments, **named))
        return losses[-1] + (20 if len(losses) == 1 else 0)

    monkeypatch.setattr(train, "validation_loss", worse)
    own = [*quick, f"runtime.artifacts={tmp_path / 'store'}", f"method={method}", "quant.q=2", "seed=11"]
    made, lines = execute_told(config_of(own), caplog)
    (warning,) = told(caplog)
    assert f"{losses[0] + 20:.2f} nats a token" in warning and "quant.solver=gptq quant.offset=true" in warning
    later = "decode" if method == "ptq" else "adapt"
    assert lines.index(warning) < next(i for i, line in enumerate(lines) if line.startswith(f"{later} "))
    start = made["quantized_start"]
    assert start["loss"] == losses[0] + 20
    assert start["guessing"] == pytest.approx(math.log(made["config"]["model"]["tiny"]["vocabulary"]))
    if method == "alphatuning":
        assert start["texts"] <= guessing.TEXTS
        assert made["validation_loss"] == losses[-1]
        again, _ = execute_told(config_of([*own, "runtime.force=true"]), caplog)
        assert again["quantized_start"] == start and len(told(caplog)) == 1  # from the artefact, nothing is computed


def test_looking_changes_neither_training_nor_names(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of([*quick, "method=alphatuning", "quant.q=2", "runtime.force=true"])
    looked = record.read(execute(config))
    assert 0 < looked["quantized_start"]["loss"] < looked["quantized_start"]["guessing"]
    monkeypatch.setattr(guessing, "measured", lambda config: False)
    config.runtime.artifacts += "-blind"
    blind = record.read(execute(config))
    assert "quantized_start" not in blind
    for part in ("run_id", "curves", "validation_loss", "scores", "sizes", "model"):
        assert looked[part] == blind[part], part


@pytest.mark.parametrize("overrides", [["method=full_ft"], ["method=peqa", "task=glue/rte", "model=bert-base-cased"]])
def test_dense_models_and_classifiers_are_not_compared(overrides: list[str]) -> None:
    assert not guessing.measured(config_of(overrides))


def test_the_default_start_of_codes_is_in_no_name_and_another_one_is() -> None:
    def run_id(*overrides: str) -> str:
        return identity.plan(config_of(["method=ptq", *overrides]), {}, {}).run_id

    assert run_id("quant.solver=alternating") == run_id("quant.solver=alternating", "quant.start=greedy")
    names = {run_id("quant.solver=alternating", f"quant.start={start}") for start in ("greedy", "uniform", "best")}
    assert len(names) == 3
