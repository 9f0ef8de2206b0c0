"""What a whole record holds: the parts that tables, pages and searches read, and of which kind each is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Kind = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return _number(value) and isinstance(value, int)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _points(value: Any) -> bool:
    return _list(value) and all(_list(p) and len(p) == 2 and all(map(_number, p)) for p in value)


def _or_none(kind: Kind) -> Kind:
    return lambda value: value is None or kind(value)


EACH = "*"  # in the place of a key: every key that is there
_WORDS: dict[Kind, str] = {_text: "a text", _number: "a number", _whole: "a whole number", _list: "a list",
          _mapping: "an object", _truth: "true or false", _points: "a list of [step, loss]"}  # fmt: skip
_SHAPE: dict[str, Any] = {
    "run_id": _text, "status": _text, "seed": _whole, "started": _text, "finished": _text,
    "config": {
        "task": {"name": _text, "counts": {EACH: _whole}, "evaluate_on": _text}, "model": {"name": _text},
        "method": {"name": _text, "quantize": _text, "train": _text}, "quant": {"q": _whole},
        "hparams": {"epochs": _number, "batch_size": _whole}, "trainer": {"max_steps": _or_none(_number)},
        "decode": {"beam": _whole},
        "data": {"train_limit": _or_none(_number), "eval_limit": _or_none(_number)},
    },
    "validation_loss": _or_none(_number), "scores": {EACH: {EACH: {"value": _number}}}, "absent_metrics": {EACH: _text},
    "sizes": {"trainable_parameters": _or_none(_number), "total_bytes": _number, "checkpoint_bytes": _number},
    "curves": {"train": _points, "validation": _points},
    "model": {"identity": _mapping, "weights_sha256": {EACH: _text}},
    "data": {"files": {EACH: _text}, "train": _whole, "validation": _whole, "test": _whole},
    "stages": {EACH: _text}, "timings": {EACH: _number},
    "environment": {"packages": {"torch": _or_none(_text)}, "cpu": _text, "gpu": _or_none(_text)},
    "git": {"commit": _or_none(_text), "dirty": _or_none(_truth)},
}  # fmt: skip


def lacks(record: dict[str, Any]) -> str | None:
    """The first part of a record that is missing or of another kind, in words; None for a whole record."""
    found = next(_wrong(record, _SHAPE, ""), None)
    if found is None and "weights_sha256" in record["model"]["identity"]:
        found = next(_wrong(record["model"]["identity"], {"weights_sha256": {EACH: _text}}, "model.identity."), None)
    if found is None and record["validation_loss"] is None and record["curves"]["validation"]:
        found = "validation_loss is missing"
    return found


def _wrong(value: Any, shape: dict[str, Any], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path.rstrip('.') or 'the record'} is no object"
        return
    for key, kind in shape.items():
        for name in value if key == EACH else [key]:
            where = f"{path}{name}"
            if name not in value:
                yield f"{where} is missing"
            elif isinstance(kind, dict):
                yield from _wrong(value[name], kind, f"{where}.")
            elif not kind(value[name]):
                yield f"{where} is not {_WORDS.get(kind, 'of its kind')}"
