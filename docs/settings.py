"""Write the settings of a run into docs/settings.md, from the schema and its comments: python docs/settings.py"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alphatune import ranges
from alphatune.config import Config

PAGE = Path(__file__).resolve().parent / "settings.md"
HEAD = """# Settings of a run

Written by `docs/settings.py` from the schema, `alphatune/config.py`. Typed as they stand here:
`alphatune run quant.q=2 hparams.learning_rate=1e-3`. `task=`, `model=`, `method=`, `quant=`, `decode=`, `trainer=` and
`logger=` choose a file of `conf/`, and a task and model have published hyper-parameters in `conf/hparams/`: what these
files set goes before the defaults here, and what you type before everything. `alphatune run --cfg job ...` shows what a
run would take. A value that is not allowed ends in one line, before any work.
"""


def comments(settings: type) -> dict[str, str]:
    """The comment of each field: behind it, or in the lines above it."""
    found, above = {}, []
    for line in re.sub(r"one_of\(\s+(.*)\s+\)", r"one_of(\1)", inspect.getsource(settings)).splitlines():
        code, _, said = line.partition("  # ")
        if line.strip().startswith("# "):
            above.append(line.strip()[2:])
        elif name := re.match(r" {4}(\w+): ", code):
            found[name[1]] = " ".join([*above, said]).strip()
            above = []
        else:
            above = []
    return found


def table(prefix: str, settings: type) -> Iterator[str]:
    """The fields of one class as a markdown table, and after it those of the classes inside it."""
    said, inner = comments(settings), []
    about = " ".join((inspect.getdoc(settings) or "").split())
    yield f"\n## {prefix.rstrip('.')}\n\n{about}\n\n| setting | default | allowed | |\n|---|---|---|---|"
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(field.default_factory):
            inner.append((f"{prefix}{field.name}.", field.default_factory))
            continue
        value = _shown(field.default_factory() if callable(field.default_factory) else field.default)
        cells = [f"`{prefix}{field.name}`", f"`{value}`" if value else "", _allowed(field), said.get(field.name, "")]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    for name, kind in inner:
        yield from table(name, kind)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(field: ranges.Field) -> str:
    return "names to numbers" if str(field.type).startswith("dict") else ranges.wanted(field)


def page() -> str:
    """The whole page."""
    groups = [f for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.default_factory)]
    lines = [line for group in groups for line in table(f"{group.name}.", group.default_factory)]  # type: ignore[arg-type]
    seed = ranges.field(Config, "seed")
    return "\n".join([f"{HEAD}\n`seed`: {ranges.wanted(seed)}, default {seed.default}.", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
