"""How a weight becomes codes: one settings class for each format, with the ranges of its fields.

The command line (`config.Quant`), Python and the config.json of a checkpoint all come to these classes, so they accept
the same values. Nothing heavy is imported here: what a value may be must be known before torch is there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

from alphatune import ranges
from alphatune.errors import UserError
from alphatune.ranges import between, judged, one_of

CALIBRATED = ("weighted", "hessian", "gptq")  # solvers that need the inputs of the layers on some texts
_BITS = (1, 8)
_MOST = 10**9  # weights that share a scale; no matrix has more
_MULTIPLE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})?h")


def multiple_of_width(size: str) -> Fraction | None:
    """The factor in "h" (1) or "0.5h"; None if that is not what `size` says."""
    match = _MULTIPLE.fullmatch(size)
    factor = Fraction(match[1] or 1) if match else None
    return factor or None  # 0h says nothing


def is_group_size(size: Any) -> bool:
    """Whether this is a group size: None (one row), a number of weights, or a multiple of the model's width."""
    if isinstance(size, str):
        return multiple_of_width(size) is not None
    return size is None or (isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= _MOST)


GROUP_SIZES = (
    f"null (None: one row), a whole number of weights from 1 to {_MOST}, or a multiple of the model width such as h or "
    "0.5h"
)


def check_group_size(size: Any) -> None:
    """Refuse what is no group size.

    Raises:
        UserError: names the value and what is allowed.
    """
    if not is_group_size(size):
        raise UserError(f"group_size={size}: must be {GROUP_SIZES}")


def check_solver(
    solver: str, bits: int, offset: bool, start: str = "greedy", prefix: str = "", name_of_bits: str = "bits"
) -> None:
    """Refuse what a solver cannot do, whatever the model.

    Raises:
        UserError: in the words of the caller: `prefix` stands before every field's name.
    """
    if solver == "optimal" and bits > 2:
        key = f"{prefix}{name_of_bits}"
        raise UserError(f"{prefix}solver=optimal: exact only for {key}=1 and 2, not {key}={bits}; use alternating")
    if solver == "optimal" and offset:
        raise UserError(f"{prefix}solver=optimal: not with {prefix}offset; use alternating")
    if solver in ("greedy", "optimal") and start != "greedy":
        raise UserError(
            f"{prefix}start={start}: {prefix}solver={solver} improves on no start; use {prefix}solver=alternating, "
            "weighted, hessian or gptq"
        )


class _Settings:
    """What both formats share: the check, the layers, and the way through JSON that transformers asks for."""

    quant_method: ClassVar[str]
    modules: Iterable[str] | Mapping[str, int] | None

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """Refuse a name that is no field before the generated `__init__` sees it."""
        unknown = named.keys() - {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown:
            raise UserError(f"{cls.__name__}: no such setting: {', '.join(sorted(unknown))}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", _layers(self.modules))
        ranges.check(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings in `quantization_config` of a checkpoint's config.json.

        Raises:
            UserError: they are of another format, or a name or value is not allowed.
        """
        named = dict(values)
        if named.pop("quant_method", cls.quant_method) != cls.quant_method:
            raise UserError(f"this checkpoint was not written as {cls.quant_method}")
        return cls(**named)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the format's name, ready for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        layers = dict(self.modules) if isinstance(self.modules, Mapping) else self.modules and list(self.modules)
        return {**values, "modules": layers, "quant_method": self.quant_method}


@dataclass(frozen=True)
class BCQConfig(_Settings):
    """Binary codes: `bits` planes of signs per weight, one scale per plane and group.

    `group_size` is the number of weights per scale: None for one row, a number, or "h" / "0.5h" of the model's width.
    `solver` is "greedy" (Eq. 6-7), "alternating" (Eq. 8 and nearest codes, `iterations` times), or "optimal" (the
    global optimum of the squared error, for one or two bits). `start` is what "alternating" starts from: "greedy" as in
    the paper, a searched "uniform" grid, or the "best" of both for each group; the calibrated solvers start likewise.

    Three more solvers are not the paper's and need calibration inputs: they minimise the error of the layer's output.
    "weighted" is "alternating" with each weight's error weighted by its input's mean square; "hessian" then solves
    the scales exactly for the output error; "gptq" also chooses the codes with GPTQ's error feedback, `rounds` times.
    `damping` is what they add to the diagonal of the inputs' second moments, as a fraction of its mean. `offset` adds
    a constant per group to the sum of planes.

    `modules` are names (or last parts of names) of the layers to quantise; None: every linear layer inside the
    transformer blocks. In a quantised model: the packed layers' names with their weights per scale.

    Raises:
        UserError: a value that is not allowed.
    """

    quant_method: ClassVar[str] = "alphatune_bcq"

    bits: int = between(*_BITS, 3)
    group_size: int | str | None = judged(is_group_size, GROUP_SIZES, None)
    solver: str = one_of("greedy", "alternating", "optimal", *CALIBRATED)
    iterations: int = between(1, 1000, 15)
    modules: Iterable[str] | Mapping[str, int] | None = None
    offset: bool = False
    rounds: int = between(1, 1000, 3)
    damping: float = between(1e-6, 10.0, 0.01)
    start: str = one_of("greedy", "uniform", "best")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_solver(self.solver, self.bits, self.offset, self.start)

    @property
    def has_offset(self) -> bool:
        """Whether layers carry an offset beside their scales."""
        return self.offset


@dataclass(frozen=True)
class UniformConfig(_Settings):
    """PEQA's uniform codes: `bits` per weight, one step and one zero point per group.

    `group_size` and `modules` are as for `BCQConfig`.

    Raises:
        UserError: a value that is not allowed.
    """

    quant_method: ClassVar[str] = "alphatune_uniform"

    bits: int = between(*_BITS, 4)
    group_size: int | str | None = judged(is_group_size, GROUP_SIZES, None)
    modules: Iterable[str] | Mapping[str, int] | None = None

    @property
    def has_offset(self) -> bool:
        """Whether layers carry an offset beside their scales: uniform codes always do."""
        return True


@dataclass(frozen=True)
class NF4Codes:
    """QLoRA's codes (Dettmers et al. 2023) as bitsandbytes makes them: 4 bits a weight, no choice of our own.

    A block of `block` weights shares its largest magnitude, stored in 8 bits; `nested` of those share a float32.
    """

    block: int = 64
    nested: int = 256

    def blocks(self, weights: int) -> int:
        """How many blocks a matrix of so many weights has."""
        return -(-weights // self.block)

    def bytes(self, weights: int) -> int:
        """Bytes of the codes and magnitudes of a matrix; its 4 KB of tables are not counted."""
        blocks = self.blocks(weights)
        return -(-weights // 2) + blocks + 4 * -(-blocks // self.nested)


NF4 = NF4Codes()
NF4_NEEDS = "needs bitsandbytes: pip install 'alphatune[qlora]'"
Quantization = BCQConfig | UniformConfig
FORMATS: dict[str, type[Quantization]] = {"bcq": BCQConfig, "uniform": UniformConfig}


def _layers(modules: Any) -> tuple[str, ...] | dict[str, int] | None:
    """A copy of `modules` that belongs to the settings alone."""
    if modules is None:
        return None
    if isinstance(modules, Mapping):
        for name, size in modules.items():
            if not isinstance(size, int) or not is_group_size(size):
                raise UserError(f"modules: gives no number of weights per scale for {name}, but {size}")
        return dict(modules)
    form = 'must be a list of names, such as ["c_attn"]'
    if isinstance(modules, str):
        raise UserError(f'modules="{modules}": must be a list of names, such as ["{modules}"]')
    if not isinstance(modules, Iterable):
        raise UserError(f"modules={modules}: {form}")
    names = tuple(modules)
    if not names:
        raise UserError("modules=[]: names no layer; None means every linear layer inside the blocks")
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"modules={list(names)}: {form}")
    return names
