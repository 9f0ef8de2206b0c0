"""How a model is quantised, as transformers keeps it in a checkpoint's config.json.

The solver's settings come from `bcq.BCQConfig` and `quantize.UniformConfig`; these classes add what a checkpoint needs
besides: which layers are packed, and over how many weights each of their scales reaches.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from alphatune import bcq, quantize
from alphatune.config import Quant
from alphatune.errors import UserError
from alphatune.grouping import Grouping

BCQ, UNIFORM = "alphatune_bcq", "alphatune_uniform"  # values of `quant_method` in config.json


class _Packed(QuantizationConfigMixin):
    """What both formats share: the layers, and the way through JSON."""

    bits: int
    group_size: int | str | None
    modules: list[str] | dict[str, int] | None

    def _set_up(self, modules: Iterable[str] | dict[str, int] | None, method: str, read: dict[str, Any]) -> None:
        if read.pop("quant_method", method) != method:
            raise UserError(f"this checkpoint was not written as {method}")
        if read:
            raise UserError(f"{type(self).__name__}: no such setting: {', '.join(sorted(read))}")
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise UserError(f"bits={self.bits}: must be a whole number from 1 to 8")
        _check_group_size(self.group_size)
        if isinstance(modules, str):
            raise UserError(f'modules="{modules}": must be a list of names, such as ["{modules}"]')
        if modules is not None and not isinstance(modules, dict):
            modules = list(modules)
            if not modules:
                raise UserError("modules=[]: names no layer; None means every linear layer inside the blocks")
        self.modules = modules
        self.quant_method = method  # type: ignore[assignment]  # transformers' enum is closed; it takes any string

    @property
    def has_offset(self) -> bool:
        """Whether layers carry an offset beside their scales."""
        raise NotImplementedError

    def grouping(self, name: str, rows: int, columns: int) -> Grouping:
        """The groups of the packed layer `name`, an [out, in] = [`rows`, `columns`] matrix.

        Raises:
            UserError: this config comes from no checkpoint, or its numbers do not fit the layer.
        """
        size = self.modules.get(name) if isinstance(self.modules, dict) else None
        if not isinstance(size, int) or isinstance(size, bool):
            raise UserError(f"quantization_config.modules: gives no number of weights per scale for {name}")
        return Grouping.of(rows, columns, size)


def _check_group_size(size: Any) -> None:
    """None, a number of weights, or a multiple of the width as text."""
    whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
    if size is None or whole or (isinstance(size, str) and re.fullmatch(r"(\d+\.?\d*|\.\d+)?h", size)):
        return
    raise UserError(f'group_size={size}: must be None (one row), a whole number of weights, or "h" or "0.5h"')


def _check_solver(config: bcq.BCQConfig) -> None:
    """The solver's name and numbers against those that a run allows."""
    allowed = {field.name: field.metadata for field in dataclasses.fields(Quant)}
    if config.solver not in allowed["solver"]["one_of"]:
        raise UserError(f"solver={config.solver}: must be one of: {', '.join(allowed['solver']['one_of'])}")
    for name, kind in (("iterations", int), ("rounds", int), ("damping", float | int)):
        value, (low, high) = getattr(config, name), allowed[name]["range"]
        if not isinstance(value, kind) or not low <= value <= high:
            raise UserError(f"{name}={value}: must be a number from {low} to {high}")
    if config.solver == "optimal" and config.bits > 2:
        raise UserError(f"solver=optimal: exact only for bits=1 and 2, not bits={config.bits}; use alternating")


class BCQConfig(bcq.BCQConfig, _Packed):
    """Binary codes: `bits` planes of signs per weight, one scale per plane and group.

    Args:
        bits: planes, 1 to 8.
        group_size: weights per scale: None for one row, a number, or "h" / "0.5h" of the model's width.
        solver: "greedy" (AlphaTuning, Eq. 6-7), "alternating" (Eq. 8), "optimal" (one or two bits); with calibration
            inputs also "weighted", "hessian" and "gptq" (docs/solvers.md).
        iterations: of the alternating solver.
        modules: names (or last parts of names) of the layers to quantise; None: every linear layer inside the
            transformer blocks. In a quantised model: the packed layers' names with their weights per scale.
        more: further settings of `alphatune.bcq.BCQConfig`.

    Raises:
        UserError: a value that is not allowed.
    """

    def __init__(
        self,
        bits: int = 3,
        group_size: int | str | None = None,
        solver: str = "greedy",
        iterations: int = 15,
        modules: Iterable[str] | dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        known = {f.name for f in dataclasses.fields(bcq.BCQConfig)} & more.keys()
        bcq.BCQConfig.__init__(self, bits, group_size, solver, iterations, **{k: more.pop(k) for k in known})
        self._set_up(modules, BCQ, more)
        _check_solver(self)

    @property
    def has_offset(self) -> bool:
        """Whether layers carry an offset beside their scales."""
        return bool(getattr(self, "offset", False))


class UniformConfig(quantize.UniformConfig, _Packed):
    """Uniform codes as in PEQA: one step and one zero point per group.

    Args:
        bits: per weight, 1 to 8.
        group_size, modules: as for `BCQConfig`.

    Raises:
        UserError: a value that is not allowed.
    """

    def __init__(
        self,
        bits: int = 4,
        group_size: int | str | None = None,
        modules: Iterable[str] | dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        known = {f.name for f in dataclasses.fields(quantize.UniformConfig)} & more.keys()
        quantize.UniformConfig.__init__(self, bits, group_size, **{k: more.pop(k) for k in known})
        self._set_up(modules, UNIFORM, more)

    @property
    def has_offset(self) -> bool:
        """Whether layers carry an offset beside their scales: uniform codes always do."""
        return True
