"""One class and one range for each setting: the command line, Python and a checkpoint's file accept the same values."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import alphatune
from alphatune.compose.compose import config_of
from alphatune.config import Quant
from alphatune.errors import UserError
from alphatune.settings import FORMATS, BCQConfig, UniformConfig, multiple_of_width

PACKAGE = Path(alphatune.__file__).parent
NAMES = ["bits", "group_size", "solver", "iterations", "rounds", "damping", "offset", "start"]
GROUP_SIZES = ["h", "0.5h", "2.h", ".25h", "infh", "nanh", "1e2h", "1e400h", " 2h", "2h ", "0h", "0.0h", "-1h", "+1h",
               "1_0h", "64", "H", "hh", "h2", "", "\u0663h", "9999999h"]  # fmt: skip
STARTS = ["greedy", "uniform", "best", "Best", "zero"]
SOLVERS = ["greedy", "alternating", "optimal", "weighted", "hessian", "gptq", "magic", "Greedy"]
numbers = st.one_of(
    st.integers(-3, 1005), st.sampled_from([10**6, 10**9, 10**9 + 1, 10**30]), st.floats(-1, 11, width=16),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e-7, 1e-6, 10.0, 3.0, 2.5]), st.booleans(), st.none(),
    st.sampled_from(["3", "0.5", "yes", "true", "on", "abc"]),
)  # fmt: skip


def on_the_command_line(name: str, value: Any) -> str:
    """A value in Hydra's syntax; texts are quoted, so that '3' stays one."""
    told = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = told or (f"'{value}'" if isinstance(value, str) else repr(value))
    return f"quant.{'q' if name == 'bits' else name}={text}"


def refused(call: Any) -> str | None:
    try:
        call()
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sampled_from(NAMES), st.one_of(numbers, st.sampled_from(GROUP_SIZES + SOLVERS + STARTS)))
@example("group_size", "infh")
@example("group_size", "1e2h")
@example("group_size", " 2h")
@example("group_size", "0h")
@example("bits", True)
@example("bits", "3")
@example("offset", 1)
@example("offset", "yes")
@example("damping", "0.5")
@example("damping", 1)
@example("iterations", 2.0)
def test_all_three_ways_accept_and_refuse_the_same(name: str, value: Any) -> None:
    typed = refused(lambda: config_of([on_the_command_line(name, value)]))
    python = refused(lambda: BCQConfig(**{name: value}))
    stored = json.loads(json.dumps({**BCQConfig().to_dict(), name: value}))
    file = refused(lambda: BCQConfig.from_dict(stored))
    assert (typed is None) == (python is None) == (file is None), (typed, python, file)
    if name in ("bits", "group_size"):
        assert (refused(lambda: UniformConfig(**{name: value})) is None) == (python is None or "optimal" in python)
    if python is not None and "optimal" not in python and "improves on no start" not in python:
        assert file == python
        assert typed is not None and typed.startswith(on_the_command_line(name, value).partition("=")[0])
        assert typed.partition(": must be ")[2] == python.partition(": must be ")[2] != ""


@pytest.mark.parametrize("size, factor", [
    ("h", 1), ("0.5h", 0.5), (".25h", 0.25), ("2.h", 2), ("007h", 7), ("0h", None), ("0.000h", None), ("1e2h", None),
    ("infh", None), (" 2h", None), ("2h\n", None), ("-1h", None), (".h", None), ("64", None), ("", None),
])  # fmt: skip
def test_multiples_of_the_width_are_read_one_way(size: str, factor: float | None) -> None:
    assert multiple_of_width(size) == factor


def test_a_run_makes_the_settings_that_its_keys_name() -> None:
    quant = Quant(q=2, group_size="h", solver="gptq", iterations=7, offset=True, rounds=5, damping=0.5)
    made = quant.settings()
    assert made == BCQConfig(2, "h", "gptq", 7, offset=True, rounds=5, damping=0.5)
    assert Quant(format="uniform", q=4, group_size=64, solver="gptq").settings() == UniformConfig(4, 64)
    assert Quant().settings() == BCQConfig()
    shared = {f.name for f in dataclasses.fields(BCQConfig)} & {f.name for f in dataclasses.fields(Quant)}
    assert shared == set(NAMES) - {"bits"}


def test_settings_are_values() -> None:
    given = ["a"]
    config = BCQConfig(2, modules=given)
    given.append("b")
    assert config.modules == ("a",) and config == BCQConfig(2, modules=("a",))
    sizes = {"a": 64}
    packed = UniformConfig(modules=sizes)
    sizes["b"] = 1
    assert packed.modules == {"a": 64}
    for one in (config, packed):
        assert copy.deepcopy(one) == dataclasses.replace(one) == one
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.bits = 3  # type: ignore[misc]


@pytest.mark.parametrize("modules, message", [
    (3, "modules=3: must be a list of names"), ([3], r"modules=\[3\]: must be a list of names"),
    ({"a": True}, "modules: gives no number of weights per scale for a, but True"),
    ({"a": "h"}, "modules: gives no number of weights per scale for a, but h"),
])  # fmt: skip
def test_modules_are_names_or_sizes(modules: Any, message: str) -> None:
    for made in FORMATS.values():
        with pytest.raises(UserError, match=f"^{message}"):
            made(modules=modules)


def test_what_was_written_before_is_read_and_written_the_same() -> None:
    bcq = {"bits": 2, "group_size": "0.5h", "solver": "alternating", "iterations": 3, "offset": False, "rounds": 3,
           "damping": 0.01, "modules": {"h.0": 16}, "quant_method": "alphatune_bcq"}  # fmt: skip
    uniform = {"bits": 8, "group_size": 64, "modules": ["a"], "quant_method": "alphatune_uniform"}
    assert BCQConfig.from_dict(bcq).to_dict() == bcq | {"start": "greedy"}  # a setting added later, at its default
    assert UniformConfig.from_dict(uniform).to_dict() == uniform
    assert BCQConfig.from_dict({"bits": 3}) == BCQConfig(3)  # settings added later have their defaults
    with pytest.raises(UserError, match="this checkpoint was not written as alphatune_bcq"):
        BCQConfig.from_dict(uniform)


def test_each_name_is_defined_once_in_the_package() -> None:
    defined: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                defined.setdefault(node.name, []).append(path.name)
    for name in ("BCQConfig", "UniformConfig", "quantize_model"):
        assert len(defined[name]) == 1, (name, defined[name])
