"""Paths as people type them reach the config as they are; what cannot be read is told with a remedy that works."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.compose import compose
from alphatune.compose.compose import config_of
from alphatune.compose.quoting import quoted
from alphatune.errors import UserError
from alphatune.run.execute import main

PLAIN = ["/data/dàta", "/a b", "/a,b", "/a=b", "~/x", "/a#b;c", "/it's", '/a"b', "(x)", "[x]", "{x}", "2024_01", "1e5",
         "true", "/a:b", "C:\\data", "/a&b", "/数据", "/a!"]  # fmt: skip


@pytest.mark.parametrize("path", PLAIN)
@pytest.mark.parametrize("key", ["data.dir", "runtime.artifacts", "model.name_or_path"])
def test_a_path_is_what_was_typed(key: str, path: str) -> None:
    config = config_of([f"{key}={path}"])
    group, name = key.split(".")
    typed = os.path.expanduser(path) if name == "name_or_path" else path  # others are expanded where they are read
    assert getattr(getattr(config, group), name) == typed


def test_the_run_gets_the_same_path_as_the_check(tmp_path, capsys) -> None:
    folder = tmp_path / "dà, t=a"
    folder.mkdir()
    assert main(["--cfg", "job", f"data.dir={folder}"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["dir"] == str(folder)  # long lines are folded
    assert main(["task=e2e", f"data.dir={folder}"]) == 2
    assert f"data.dir={folder}: no files of e2e there" in capsys.readouterr().err


def test_hydra_s_own_syntax_stays() -> None:
    as_they_are = ["data.dir=/a/b", "data.dir='/é, x'", "data.dir=null", "data.dir=", "data.dir=${oc.env:HOME}/x",
                   "data.dir=/a\\,b", "quant.q=2", "task.metrics=[bleu,ter]", "method=lora", "-m", "--cfg", "~logger",
                   "quant.solver=greedy,optimal", "model.name=choice(a,b)", "+quant.zzz=1", "task"]  # fmt: skip
    assert quoted(as_they_are) == as_they_are
    assert config_of(["data.dir=/a\\,b"]).data.dir == "/a,b"


def test_a_sweep_still_divides_at_commas(tmp_path, capsys) -> None:
    overrides = ["data.dir=/a,/b", "quant.solver=greedy,optimal"]
    assert quoted(overrides, sweep=True) == overrides
    assert quoted(["data.dir=/à,/b", "quant.q=2,3"], sweep=True) == ["data.dir='/à','/b'", "quant.q=2,3"]
    assert quoted(["data.dir='/a,b'"], sweep=True) == ["data.dir='/a,b'"]
    sweep = ["-m", "task=e2e", f"data.dir={tmp_path}/à,{tmp_path}/b", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert main(sweep) == 2
    told = capsys.readouterr().err
    assert f"data.dir={tmp_path}/à: no such folder" in told and f"data.dir={tmp_path}/b: no such folder" in told


@given(st.text(st.characters(codec="utf-8", exclude_characters="$\\'\""), min_size=1).map(str.strip).filter(bool))
@settings(max_examples=150, deadline=None)
def test_any_text_without_quotes_and_references_is_taken_literally(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = quoted([f"data.dir={text}"])
    value = OverridesParser.create().parse_override(override).value()
    assert value == text or (value is None and text.lower() == "null")
    assert quoted([override]) == [override]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quant.solver=größe", "quant.solver=größe: must be one of: greedy"),
        ("quant.q=(3", "quant.q='(3': must be a whole number from 1 to 8"),
        ("task=dàrt", "task=dàrt: no such choice; must be one of: dart"),
        ("data..dir=x", "data..dir=x: not of the form key=value"),
        ("dàta.dir=x", "dàta.dir=x: not of the form key=value"),
    ],
)
def test_the_schema_says_what_is_wrong_with_an_unusual_value(override: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        config_of([override])


def test_the_remedy_for_a_list_works() -> None:
    with pytest.raises(UserError, match="inside .* need quotes") as caught:
        config_of(["task.metrics=[blé]"])
    remedy = re.search('"(.*)"', str(caught.value))
    assert remedy and config_of([remedy[1]]).task.metrics == ["a, b"]
    assert compose.config_of(["task.metrics=['blé']"]).task.metrics == ["blé"]


@pytest.mark.parametrize("key", ["task.name", "seed", "decode.length_penalty"])
def test_a_number_of_thousands_of_digits_is_one_line(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}: a number of 5,000 digits is not read$"):
        quoted([f"{key}={'9' * 5000}"])
