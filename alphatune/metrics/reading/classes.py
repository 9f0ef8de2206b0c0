"""A label as a file has it, to the number that a metric takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from alphatune.errors import UserError
from alphatune.metrics.labels import Label
from alphatune.metrics.reading.files import shown


def parse_labels(values: Sequence[str | int | float], names: Sequence[str], path: Path) -> list[Label]:
    """The class indices of labels said by name or by index; without `names`, the scores of a regression task.

    Raises:
        UserError: a label that the task does not have, or a score that is no finite number; told with file and line.
    """
    parse = _index if names else _score
    return [parse(value, names, f"{path}, line {line}") for line, value in enumerate(values, start=1)]


def _index(value: str | int | float, names: Sequence[str], where: str) -> int:
    said = value.strip() if isinstance(value, str) else value
    if said in names:  # before indices: classes may be called 1, 2, 3
        return names.index(said)
    for index in range(len(names)):
        # 1.0 == 1 in Python, but 1.0 is the output of a regression and no class
        if said == str(index) or (isinstance(said, int) and said == index):
            return index
    raise UserError(
        f"{where}: {shown(said)} is no label of the task; must be one of: {', '.join(names)}, "
        f"or the index of one, 0 to {len(names) - 1}"
    )


def _score(value: str | int | float, names: Sequence[str], where: str) -> float:
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError("Python reads 1_0 as a number, no file means it")
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {shown(value)} is not a finite number")
    return number
