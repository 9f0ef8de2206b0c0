"""The files of `conf/hparams/` name what exists; a row is made of its parts; a mistake in one is one line."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path

import pytest
import yaml

from alphatune import groups
from alphatune.compose import hparams
from alphatune.compose.compose import config_of, sources_of
from alphatune.errors import UserError

FILES = sorted((groups.folder() / "hparams").glob("*.yaml"))
ROWS = {"webnlg": 12, "dart": 12, "e2e": 12, "samsum": 3, "mnli": 3, "toy": 9, "glue": 16}  # models x methods


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_name_in_a_file_is_a_choice(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    tasks = [t for t in groups.choices("task") if t.split("/")[0] == file.stem]
    del content["all"]
    parts = content.values() if "/" in tasks[0] else [content]
    assert "/" not in tasks[0] or sorted(f"{file.stem}/{name}" for name in content) == tasks
    for part in parts:
        assert {name for key in part for name in key.split(", ")} <= set(groups.choices("model"))
        assert {name for row in part.values() for key in row for name in key.split(", ")} <= set(
            groups.choices("method")
        )
    cells = product(tasks, groups.choices("model"), groups.choices("method"))
    assert len([cell for cell in cells if hparams.row(*cell)]) == ROWS[file.stem]


def test_nothing_is_published_for_other_cells() -> None:
    for cell in (("webnlg", "gpt2", "lora"), ("dart_partial", "gpt2-medium", "lora"), ("glue/rte", "tiny", "lora"),
                 ("webnlg", "gpt2-medium", "ptq"), ("webnlg", "all", "lora"), ("", "", "")):  # fmt: skip
        assert hparams.row(*cell) is None, cell


TOY = """\
all:
  source: us
  hparams: {epochs: 2, batch_size: 4}
  decode: {beam: 3}
tiny, gpt2:
  lora, full_ft:
    hparams: {batch_size: 6, learning_rate: 1e-3}
    method: {lora: {r: 2, alpha: 8}}
  full_ft: {source: them, hparams: {learning_rate: 0.5}, quant: {q: 4}}
tiny:
  lora:
    by_q:
      2: {hparams: {weight_decay: 0.2}}
      1: {hparams: {weight_decay: 0.1}}
  alphatuning: {quant: {q: 1}, by_q: {1: {hparams: {weight_decay: 0.5}}, 3: {}}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `conf/` of its own with the text above for the toy task."""
    copied = shutil.copytree(groups.folder(), tmp_path / "conf")
    monkeypatch.setattr(groups, "folder", lambda: copied)
    (copied / "hparams" / "toy.yaml").write_text(TOY)
    return copied / "hparams" / "toy.yaml"


def _of(file: Path, *overrides: str):  # type: ignore[no-untyped-def]
    return config_of([*overrides, f"data.dir={file.parent}"])  # composed here for the first time: not cached


def test_a_row_is_all_the_parts_that_name_it_of_which_later_ones_win(file: Path) -> None:
    config = _of(file, "method=full_ft")
    hp = config.hparams
    assert (hp.provenance, hp.epochs, hp.batch_size, hp.learning_rate) == ("them", 2.0, 6, 0.5)
    assert (config.decode.beam, config.quant.q, config.method.lora.r, config.method.lora.alpha) == (3, 4, 2, 8.0)
    hp = _of(file, "method=lora", "model=gpt2").hparams
    assert (hp.provenance, hp.learning_rate, hp.weight_decay) == ("us", 1e-3, 0.0)
    assert _of(file, "method=peqa").hparams.epochs == 5  # no part names it: not even `all` is taken


def test_values_by_q(file: Path) -> None:
    decay = {q: _of(file, "method=lora", f"quant.q={q}").hparams.weight_decay for q in (1, 2, 3)}
    assert decay == {1: 0.1, 2: 0.2, 3: 0.2}
    assert _of(file, "method=lora").hparams.provenance == "no published values for this q: those of q=2 (us)"
    config = _of(file)  # the row's own q decides
    assert (config.quant.q, config.hparams.weight_decay, config.hparams.provenance) == (1, 0.5, "us")
    assert _of(file, "quant.q=3").hparams.weight_decay == 0.0
    assert _of(file, "quant.q=${decode.beam}").hparams.provenance == "us"  # q is 3 by the row's beam


def test_what_is_typed_keeps_its_part_of_the_row_only(file: Path) -> None:
    config = _of(file, "method=lora", "method.lora={r: 5}", "hparams.weight_decay=0.7")
    assert (config.method.lora.r, config.method.lora.alpha) == (5, 8.0)
    assert (config.hparams.weight_decay, config.hparams.learning_rate) == (0.7, 1e-3)
    found = sources_of(["method=lora", "method.lora={r: 5}", f"data.dir={file.parent}"])
    assert found["method.lora.r"] == "typed"
    assert found["method.lora.alpha"] == "hparams/toy: tiny, lora (no published values for this q: those of q=2 (us))"


def test_a_typed_group_keeps_the_row_from_what_its_file_sets(file: Path) -> None:
    (file.parent.parent / "quant" / "three.yaml").write_text("q: 3\n")
    (file.parent.parent / "experiment" / "own.yaml").write_text("# @package _global_\nhparams: {epochs: 9}\n")
    file.write_text(TOY.replace("quant: {q: 4}", "quant: {q: 4, iterations: 7}"))
    assert (lambda quant: (quant.q, quant.iterations))(_of(file, "method=full_ft", "quant=three").quant) == (3, 7)
    assert (lambda quant: (quant.q, quant.iterations))(_of(file, "method=full_ft", "quant=bcq").quant) == (3, 15)
    assert _of(file, "method=full_ft", "experiment=own").hparams.epochs == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tiny: {lora: {hparams: {epochs: 1}}}",
         "hparams/toy: tiny, lora: no word on where its values come from; give it a source"),
        ("tiny: {lora: {source: us, hparams: {rate: 1}}}", "hparams/toy: tiny, lora: hparams.rate=1: no such key"),
        ("tiny: {lora: {source: us, hparams: 1}}", "hparams/toy: tiny, lora: hparams=1: no such key"),
        ("tiny: {lora: {source: us, hparams: {epochs: many}}}",
         "hparams/toy: tiny, lora: hparams.epochs=many: must be a number from 0.001 to 1000.0"),
        ("tiny: {lora: {source: us, by_q: {x: {}}}}",
         "hparams/toy: tiny, lora: by_q: quant.q=x: must be a whole number from 1 to 8"),
        ("tiny: {lora: {source: us, by_q: [1]}}", "hparams/toy: tiny, lora: by_q: [1]: not of the form key: value"),
        ("tiny: {lora: {source: us, by_q: {1: 2}}}", "hparams/toy: tiny, lora: by_q: 1: 2: not of the form key: value"),
        ("tiny: {lora: 3}", "hparams/toy: tiny, lora: 3: not of the form key: value"),
        ("all: 3\ntiny: {lora: {source: us}}", "hparams/toy: tiny, lora: 3: not of the form key: value"),
        ("- tiny", "conf/hparams/toy.yaml: not of the form key: value"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError) as error:
        _of(file, "method=lora")
    assert str(error.value) == told


def test_a_file_that_is_not_yaml_is_one_line(file: Path) -> None:
    for content in (b"tiny: {lora: [", b"\xff\xfe\xfa"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"^conf/hparams/toy\.yaml: cannot be read as YAML: [^\n]+$"):
            _of(file, "method=lora")


def test_a_file_is_read_again_once_it_has_changed(file: Path) -> None:
    assert hparams.row("toy", "tiny", "lora").values["hparams.epochs"] == 2  # type: ignore[union-attr]
    file.write_text(TOY.replace("epochs: 2", "epochs: 7"))
    os.utime(file, ns=(1, 1))
    assert hparams.row("toy", "tiny", "lora").values["hparams.epochs"] == 7  # type: ignore[union-attr]
