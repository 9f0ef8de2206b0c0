"""Sweep files of W&B (`experiments/sweeps/*.yaml`), read for a search without W&B.

The part of the format that such a search needs: the fixed overrides of `command`, `parameters` with their values or
ranges, `metric`, `method` and `run_cap`. The rest is W&B's alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphatune import groups
from alphatune.compose import plain_yaml
from alphatune.errors import UserError
from alphatune.store import path_part

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SAMPLERS = {"grid": "grid", "random": "random", "bayes": "tpe"}  # W&B's method -> the sampler that stands for it
_RANGES = ("uniform", "int_uniform", "q_uniform", "log_uniform_values")  # those of W&B's that mean the same here
_ALIASES = {"valid_loss": "validation_loss"}


@dataclass(frozen=True)
class Parameter:
    """An override key that is searched: over `values`, or over a range where there are none."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0  # both ends are whole numbers for a range of whole numbers
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @property
    def examples(self) -> list[Any]:
        """All values, or the ends of the range."""
        return list(self.values) or [self.low, self.high]

    def distribution(self) -> BaseDistribution:
        """What Optuna draws the parameter from."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.values:
            return CategoricalDistribution(self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Sweep:
    """What is searched, and what for."""

    name: str
    fixed: tuple[str, ...]  # overrides of every trial
    parameters: tuple[Parameter, ...]
    metric: str  # as dashboards name it: validation_loss, or metric/group
    maximize: bool
    method: str
    run_cap: int | None = None

    def overrides(self, point: dict[str, Any]) -> list[str]:
        """The command line of the trial at a point."""
        return [*self.fixed, *(f"{key}={_word(value)}" for key, value in point.items())]

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of values, the last parameter varying fastest.

        Raises:
            UserError: a parameter has a range instead of values.
        """
        for p in self.parameters:
            if not p.values:
                raise UserError(f"{self.name}: {p.key} has a range: a grid needs values; use --sampler tpe or random")
        keys = [p.key for p in self.parameters]
        return [dict(zip(keys, v, strict=True)) for v in itertools.product(*(p.values for p in self.parameters))]

    def with_fixed(self, extra: list[str]) -> Sweep:
        """The sweep with more overrides in every trial.

        Raises:
            UserError: one of them is searched.
        """
        searched = {p.key for p in self.parameters}
        for override in extra:
            if override.partition("=")[0] in searched:
                raise UserError(f"{override}: {self.name} searches this key")
        return replace(self, fixed=(*self.fixed, *extra))


def load(name: str) -> Sweep:
    """The sweep of a file; a bare name is one of `experiments/sweeps/`.

    Raises:
        UserError: there is no such file, or it is no sweep of `alphatune.run`.
    """
    folder = groups.experiments() / "sweeps"
    path = next((p for p in (Path(name), folder / f"{name}.yaml") if p.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"{name}: no such file; sweeps of experiments/sweeps/: {known}")
    content = plain_yaml.read(path, expressions=True, shown=name)  # W&B fills in ${env} and the like
    try:
        return _sweep(content, path_part(path.stem, "sweep"))
    except _Malformed as error:
        raise UserError(f"{name}: {error}") from error


class _Malformed(Exception):
    pass


def _sweep(content: Any, name: str) -> Sweep:
    if not isinstance(content, dict):
        raise _Malformed("a sweep is a mapping with method, metric, parameters and command")
    for key, kind in (("command", list), ("parameters", dict), ("metric", dict)):
        if not isinstance(content.get(key), kind) or not content[key]:
            raise _Malformed(f"no {key}, or one of the wrong kind; W&B's documentation has the format")
    method, metric, command = content.get("method"), content["metric"], [str(c) for c in content["command"]]
    if method not in SAMPLERS:
        raise _Malformed(f"method={method}: must be one of: {', '.join(SAMPLERS)}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize") or not isinstance(metric.get("name"), str):
        raise _Malformed("metric: must have a name, and as goal minimize or maximize")
    if "alphatune.run" not in command:
        raise _Malformed("command: does not run alphatune.run")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise _Malformed(f"run_cap={cap}: must be a whole number from 1")
    fixed = [c for c in command if "=" in c and not c.startswith(("-", "${"))]
    constants = {str(k): v["value"] for k, v in content["parameters"].items() if isinstance(v, dict) and "value" in v}
    parameters = [_parameter(str(k), v) for k, v in content["parameters"].items() if str(k) not in constants]
    if not parameters:
        raise _Malformed("parameters: nothing is searched")
    # W&B is one way to run a sweep, and this is the other
    fixed = [c for c in fixed if not c.startswith(("logger=", "logger."))]
    return Sweep(
        name=name,
        fixed=(*fixed, *(f"{key}={_word(value)}" for key, value in constants.items())),
        parameters=tuple(parameters),
        metric=_ALIASES.get(metric["name"], metric["name"]),
        maximize=metric.get("goal") == "maximize",
        method=method,
        run_cap=cap,
    )


def _parameter(key: str, given: Any) -> Parameter:
    if not isinstance(given, dict) or not ("values" in given or {"min", "max"} <= given.keys()):
        raise _Malformed(f"parameters: {key}: must have value, values, or min and max")
    if "values" in given:
        values = given["values"]
        if not isinstance(values, list) or not values or any(isinstance(v, list | dict) for v in values):
            raise _Malformed(f"parameters: {key}: values must be a list of single values")
        return Parameter(key, tuple(values))
    low, high, step = given["min"], given["max"], given.get("q")
    kind = given.get("distribution", "int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform")
    if kind not in _RANGES:
        raise _Malformed(f"parameters: {key}: distribution={kind}: must be one of: {', '.join(_RANGES)}")
    numbers = [low, high] + ([] if step is None else [step])
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers):
        raise _Malformed(f"parameters: {key}: min, max and q must be numbers")
    if low > high or (kind == "log_uniform_values" and (low <= 0 or step is not None)) or (step or 1) <= 0:
        raise _Malformed(f"parameters: {key}: min={low}, max={high}, q={step} is no range for {kind}")
    if kind != "int_uniform":
        low, high = float(low), float(high)
    return Parameter(key, low=low, high=high, log=kind == "log_uniform_values", step=step)


def _word(value: Any) -> str:
    """A value as the command line writes it."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
