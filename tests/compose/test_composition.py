"""The quick way to a typed config gives what Hydra's full composition gives, or leaves the work to Hydra."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from alphatune import groups
from alphatune.compose import compose, composition
from alphatune.compose.parse import parse
from alphatune.errors import UserError
from alphatune.tables import experiment
from alphatune.tables.cells import SEARCH


def _rows(names: list[str]) -> list[list[str]]:
    """The overrides of every row of these tables, with those of its columns, and what a search adds."""
    found: dict[tuple[str, ...], None] = {}
    for name in names:
        table = experiment.load(name)
        for row in table.rows:
            for part in {tuple(column.set) for column in table.columns}:
                found[*table.base, *row.set, *part] = None
                if row.search:
                    found[*table.base, *row.set, *part, f"hparams.learning_rate={row.search[0]}", *SEARCH] = None
    return [list(overrides) for overrides in found]


def _agree(overrides: list[str]) -> bool:
    """Whether the quick way was taken; it and Hydra must then say the same, values and where they come from."""
    cfg, origins = compose._composed(overrides)
    quick = compose._quickly(overrides)
    if quick is not None:
        assert quick == (parse(cfg), origins), overrides
        assert repr(quick[0]) == repr(parse(cfg)), overrides  # 1 and 1.0 are equal, but not as one hashes them
    return quick is not None


def test_rows_of_tables_compose_as_hydra_composes_them() -> None:
    chosen = random.Random(0).sample(_rows(["table7", "real_glue"]), 5)
    assert sum(map(_agree, chosen)) == 5


@pytest.mark.slow
def test_every_row_of_every_table_composes_as_hydra_composes_it() -> None:
    rows = _rows(experiment.names())
    quick = sum(map(_agree, rows))
    assert quick > 0.8 * len(rows) > 100


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=smoke", "method=lora", "hparams.epochs=2", "seed=3"],
        ["task=webnlg", "model=gpt2-medium", "quant.q=3", "hparams.learning_rate=1"],
        ["task=webnlg", "model=gpt2-medium", "quant.q=1", "quant.group_size=h"],
        ["task=webnlg", "model=gpt2-medium", "method=lora", "decode=stock", "decode.beam=3", "decode.beam=5"],
        ["model.name_or_path=/some where/a,b", "data.dir=2024_01", "trainer.max_steps=null"],
        ["quant.group_size=64", "runtime.progress=false", "method.lora.alpha=16"],
    ],
)
def test_plain_settings_take_the_quick_way_and_mean_the_same(overrides: list[str]) -> None:
    assert _agree(overrides)


@pytest.mark.parametrize(
    "overrides",
    [["quant.q=9"], ["quant.q=3.0"], ["hparams.learning_rate=nan"], ["quant.bits=3"], ["task=nowhere"], ["quant.q=1,2"],
     ["quant.offset=1"], ["experiment=null"], ["runtime.records=${oc.env:HOME}"], ["task.metrics=[bleu]"],
     ["+quant.q=3"], ["model=null"], ["quant.solver=optimal", "quant.q=8"]],
)  # fmt: skip
def test_what_is_not_plain_or_wrong_is_left_to_hydra(overrides: list[str]) -> None:
    """The message, or the value, is that of the full composition."""
    try:
        expected: object = parse(compose._composed(overrides)[0])
    except UserError as error:
        with pytest.raises(UserError) as told:
            compose.config_of(overrides)
        assert str(told.value) == str(error)
    else:
        assert compose._quickly(overrides) is None and compose.config_of(overrides) == expected


def test_a_changed_file_is_composed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "conf"
    for path in groups.folder().rglob("*.yaml"):
        target = copied / path.relative_to(groups.folder())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(groups, "folder", lambda: copied)
    assert compose.config_of(["task=webnlg", "decode=beam", "seed=70001"]).decode.beam == 10
    text = (copied / "decode" / "beam.yaml").read_text(encoding="utf-8")
    (copied / "decode" / "beam.yaml").write_text(text.replace("beam: 10", "beam: 7"), encoding="utf-8")
    assert compose.config_of(["task=webnlg", "decode=beam", "seed=70002"]).decode.beam == 7


def test_a_config_is_the_callers_own() -> None:
    overrides = ["task=toy", "seed=70003"]
    compose.config_of(overrides).task.metrics.append("nonsense")
    assert "nonsense" not in compose.config_of(overrides).task.metrics
    assert "nonsense" not in compose.config_of([*overrides, "quant.q=2"]).task.metrics
    assert composition.settings([])[0].task.metrics == ["bleu"]
