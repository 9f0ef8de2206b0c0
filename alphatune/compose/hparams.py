"""The published hyper-parameters of a cell: its row of `conf/hparams/<task>.yaml`.

Such a file has a part per model (below the task's second name, for glue/rte and the like), in it one per method; names
divided by commas share one. A row is what all parts that name the model and the method say, after what `all` says:

    source: where the values come from: `hparams.provenance` of the run
    hparams, method, quant, trainer, decode: values, as in a preset
    by_q: such values for each published `quant.q`; a q that is missing takes those of the first
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alphatune import groups, ranges
from alphatune.config import field_of
from alphatune.errors import UserError

PROVENANCE = "hparams.provenance"
OTHER_Q = ", of another q"  # at the end of the origin of a value that is published for another q


@dataclass(frozen=True)
class PublishedRow:
    """What is published for one task, model and method: dotted keys and their values."""

    name: str  # e.g. "hparams/webnlg: gpt2-medium, lora"
    source: str
    values: dict[str, Any]
    by_q: dict[int, dict[str, Any]]

    def lay(
        self, put: Callable[[dict[str, Any]], None], q: Callable[[], int], fixed: Collection[str]
    ) -> dict[str, str]:
        """Write the row into a config, all but the `fixed` keys. Returns key -> origin of what it wrote.

        Args:
            put: writes values by dotted key.
            q: the config's `quant.q`, which may follow from values written before.
            fixed: dotted keys to leave alone.
        """
        laid = {key: value for key, value in self.values.items() if key not in fixed}
        put(laid)
        wanted, first = q(), next(iter(self.by_q), None)
        source, end = self.source, ""
        if first is not None and wanted not in self.by_q:
            table = source.removeprefix("paper, ")
            source, end = f"no published values for this q: those of q={first} ({table})", OTHER_Q
            wanted = first
        of_q = {PROVENANCE: source, **self.by_q.get(wanted, {})}
        of_q = {key: value for key, value in of_q.items() if key not in fixed}
        put(of_q)
        origin = f"{self.name} ({source})"
        return dict.fromkeys(laid, origin) | dict.fromkeys(of_q, origin + end)


def row(task: str, model: str, method: str) -> PublishedRow | None:
    """The row of a cell, by the names of its files in `conf/`; None if nothing is published for it.

    Raises:
        UserError: the file cannot be read, or says something that the schema does not allow.
    """
    file, *within = task.split("/")
    if not groups.has("hparams", file):
        return None
    content = groups.read("hparams", file)
    names = [*within, model, method]
    parts = list(_naming(content, names))
    if not parts:
        return None
    name = f"hparams/{file}: {', '.join(names)}"
    found = PublishedRow(name, "", {}, {})
    for part in [content.get("all", {}), *parts]:
        found = _and(found, _mapping(name, part))
    if not found.source:
        raise UserError(f"{name}: no word on where its values come from; give it a source")
    return found


def _and(row: PublishedRow, part: Mapping[Any, Any]) -> PublishedRow:
    """The row with one more part of its file."""
    own = {key: value for key, value in part.items() if key not in ("source", "by_q")}
    by_q = dict(row.by_q)
    for q, more in _mapping(f"{row.name}: by_q", part.get("by_q", {})).items():
        _checked(f"{row.name}: by_q", {"quant.q": q})
        by_q[q] = by_q.get(q, {}) | _checked(row.name, _mapping(f"{row.name}: by_q: {q}", more))
    return PublishedRow(row.name, str(part.get("source", row.source)), row.values | _checked(row.name, own), by_q)


def _naming(node: Any, names: list[str]) -> Iterator[Any]:
    """The parts of a file below keys that hold these names, one a level."""
    if not names:
        yield node
    elif isinstance(node, dict):
        for key, below in node.items():
            if names[0] in str(key).replace(" ", "").split(","):
                yield from _naming(below, names[1:])


def _mapping(name: str, content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: {content}: not of the form key: value")
    return content


def _checked(name: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Dotted key -> value, where the schema allows them."""
    flat = groups.flat(values)
    for key, value in flat.items():
        field = field_of(key)
        if field is None:
            raise UserError(f"{name}: {key}={value}: no such key")
        if "${" not in str(value) and not ranges.allows(field, value):
            raise UserError(f"{name}: {key}={value}: must be {ranges.wanted(field)}")
    return flat
