"""DART v1.1.1: triples from several sources to text.

Layouts: `dart-v1.1.1-full-{train,dev,test}.json` of either release (July 2020, where 1,862 test entries have no
annotation because their twins carry them; April 2021, without those), and LoRA's `*_formatted.jsonl`. The relation is
lower-cased, as in microsoft/LoRA, examples/NLG/src/format_converting_dart.py; HTML escapes in the texts stay, because
the published numbers were obtained with them.

The variant `reconstructed` trains on `reconstructed-partial-train.json`, which is not the official file: it has the
WebNLG and E2E sources only, so validation and test are restricted to these.
"""

from __future__ import annotations

from pathlib import Path

from alphatune.config import Task
from alphatune.data import pairs
from alphatune.data.example import Dataset
from alphatune.data.pairs import Pair
from alphatune.data.source import Source, holdings
from alphatune.data.webnlg import linearise
from alphatune.errors import UserError

LAYOUTS = "dart-v1.1.1-full-train.json, -dev.json, -test.json; or *_formatted.jsonl"
_JSON = {
    "train": "dart-v1.1.1-full-train.json",
    "validation": "dart-v1.1.1-full-dev.json",
    "test": "dart-v1.1.1-full-test.json",
}
RECONSTRUCTED = "reconstructed-partial-train.json"
RECONSTRUCTED_SOURCES = frozenset({"webnlg", "e2e"})


def fits(folder: Path, task: Task) -> bool:
    """Whether `folder` holds one of the layouts, and the reconstructed file where the variant asks for it."""
    source = Source(folder)
    if task.variant == "reconstructed":
        return source.first(RECONSTRUCTED) is not None
    return source.first(*_JSON.values(), *pairs.FORMATTED.values()) is not None


def read(folder: Path, task: Task) -> Dataset:
    """Reads whichever layout `folder` holds.

    Raises:
        UserError: no layout fits, a file is damaged, or an unknown variant.
    """
    source = Source(folder)
    if task.variant not in ("", "reconstructed"):
        raise UserError(f"task.variant={task.variant}: DART has the variants '' and reconstructed")
    if not fits(folder, task):
        wanted = RECONSTRUCTED if task.variant else LAYOUTS
        raise UserError(f"{folder}: no DART files here; accepted: {wanted}; {holdings(folder)}")
    if task.variant == "reconstructed":
        found = {s: _read_json(source, s, RECONSTRUCTED if s == "train" else n, True) for s, n in _JSON.items()}
        source.note("train: texts of the reconstructed file, not the official one", len(found["train"]))
    elif source.first(*_JSON.values()):
        found = {s: _read_json(source, s, n, False) for s, n in _JSON.items()}
        if not found["train"] and source.first(RECONSTRUCTED):
            source.note(f"{RECONSTRUCTED} left unread (task=dart_partial reads it)")
    else:
        found = pairs.read_formatted(source)
    return pairs.dataset(source, found)


def _read_json(source: Source, split: str, name: str, restricted: bool) -> list[Pair]:
    found = []
    for entry in [entry for here in source.of(split, [name]) for entry in source.json(here).records()]:
        triples = [[part.text() for part in triple.entries(3)] for triple in entry["tripleset"].entries()]
        context = linearise((s, relation.lower(), o) for s, relation, o in triples)
        annotations = entry["annotations"].entries()
        source.note(f"{split}: entries without annotations", not annotations)
        for annotation in annotations:
            if restricted and annotation["source"].text() not in RECONSTRUCTED_SOURCES:
                source.note(f"{split}: texts of other sources left out")
            else:
                found.append(Pair(context, annotation["text"].text()))
    return found
