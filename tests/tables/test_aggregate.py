"""Means, intervals and a table's own claims, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from alphatune.compose.compose import config_of
from alphatune.run import record
from alphatune.tables import values
from alphatune.tables.aggregate import Mean, judge, mean
from alphatune.tables.experiment import Column, Row, Statement


def made(bleu: float, seed: int = 0, dirty: bool = False) -> dict[str, Any]:
    """A record with the fields that tables read."""
    return {
        "schema": record.SCHEMA, "seed": seed, "validation_loss": 1.0,
        "sizes": {"trainable_parameters": 221184, "checkpoint_bytes": 884736, "total_bytes": 327233536},
        "scores": {"all": {"bleu": {"value": bleu, "signature": "s"}}}, "git": {"commit": "abc", "dirty": dirty},
    }  # fmt: skip


def test_mean_and_interval_by_hand() -> None:
    got = mean([52.0, 53.0, 54.0, 53.5, 52.5])
    # standard deviation sqrt(2.5 / 4), t(0.975, 4) = 2.776445
    assert got is not None and got.mean == 53.0 and got.n == 5
    assert got.ci95 == pytest.approx(2.776445 * math.sqrt(2.5 / 4) / math.sqrt(5), rel=1e-6)
    assert mean([1.0]) == Mean(1.0, None, 1) and mean([]) is None


def test_values_of_a_record() -> None:
    assert values.of_record(made(53.0), "trainable_params") == 221184
    assert values.of_record(made(53.0), "total_mb") == pytest.approx(327.233536)
    assert values.of_record(made(53.0), "bleu_all") == 53.0
    assert values.of_record(made(53.0), "meteor_all") is None


def test_values_that_need_no_run() -> None:
    config = config_of(["task=webnlg", "model=gpt2-medium", "method=alphatuning", "quant.q=3"])
    row = Row("r", "R", layer="mlp.c_fc")
    assert values.of_config(config, row, "hparams.learning_rate") == 1e-3
    assert values.of_config(config, row, "trainable_params") == 221184  # 9 x 1024 x 24
    assert values.of_config(config, row, "total_mb") == pytest.approx(327.2, abs=0.05)
    # Table 1: FFN h->4h, row-wise: (4h, h) codes at 3 bits and 3 scales per row
    assert values.of_config(config, row, "layer_w_shape") == "(4h, h)"
    assert values.of_config(config, row, "layer_alpha_shape") == "(q, 4h)"
    assert values.of_config(config, row, "layer_code_shape") == "(q, 4h, h)"
    assert values.of_config(config, row, "layer_w_mb") == pytest.approx(16.777, abs=1e-3)
    assert values.of_config(config, row, "layer_mb") == pytest.approx((4096 * 1024 * 3 / 8 + 3 * 4096 * 4) / 1e6)


@pytest.mark.parametrize(
    ("left", "right", "kind", "margin", "outcome"),
    [
        ([60.0, 62.1], [50.0, 52.0], "above", 5, "reproduced"),
        ([60.0, 61.0], [50.0, 52.0], "above", 5, "undecided"),  # 9.5 ± 6.4 with two seeds
        ([60.0, 50.0], [50.0, 52.0], "above", 3, "undecided"),  # one seed goes the other way
        ([51.0, 53.1], [50.0, 52.0], "above", 5, "not reproduced"),  # too small
        ([51.0, 53.05], [50.0, 52.0], "close", 2, "reproduced"),
        ([60.0, 62.1], [50.0, 52.0], "close", 2, "not reproduced"),
        ([60.0], [50.0], "above", 5, "undecided"),
    ],
)
def test_claims_are_decided_by_records(left: list, right: list, kind: str, margin: float, outcome: str) -> None:
    claim = Statement("text", "bleu_all", "l", "r", margin, kind)
    records = [{i: made(v) for i, v in enumerate(values)} for values in (left, right)]
    assert judge(claim, Column("bleu_all", "BLEU"), *records).outcome == outcome
