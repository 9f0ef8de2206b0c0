"""E2E: restaurant descriptions.

Layouts: LoRA's `train.txt`, `valid.txt`, `test.txt` with lines `context||text `, LoRA's `*_formatted.jsonl`, and the
CSV files of the challenge. LoRA's values and texts are space-tokenised ("£ 20 - 25", "good ."). From the CSV the
contexts come out the same, since their values are a closed set; the texts are tokenised by the rules of `e2e_tokens`,
which are close but not those of LoRA's makers, and a note says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from alphatune.config import Task
from alphatune.data import pairs
from alphatune.data.e2e_tokens import tokenise
from alphatune.data.example import Dataset
from alphatune.data.fields import Field
from alphatune.data.pairs import Pair
from alphatune.data.source import Source, holdings
from alphatune.errors import UserError

LAYOUTS = "train.txt, valid.txt, test.txt; or *_formatted.jsonl; or trainset.csv, devset.csv, testset_w_refs.csv"
CSV_NOTE = "texts of the CSV, tokenised by our rules: equal to LoRA's for all but a few lines"
_TXT = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
_CSV = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}
# Slots of the CSV under the names, and in the order, of LoRA's files.
_SLOTS = {
    "name": "name",
    "eatType": "Type",
    "food": "food",
    "priceRange": "price",
    "customer rating": "customer rating",
    "area": "area",
    "familyFriendly": "family friendly",
    "near": "near",
}
_SLOT = re.compile(r"([^\[\],]+)\[([^\[\]]*)\]")


def fits(folder: Path, task: Task) -> bool:
    """Whether `folder` holds one of the layouts."""
    return _layout(Source(folder)) is not None


def read(folder: Path, task: Task) -> Dataset:
    """Reads whichever layout `folder` holds.

    Raises:
        UserError: no layout fits, or a file is damaged.
    """
    source = Source(folder)
    layout = _layout(source)
    if layout == "txt":
        return pairs.dataset(source, {split: _read_txt(source, split, name) for split, name in _TXT.items()})
    if layout == "formatted":
        return pairs.dataset(source, pairs.read_formatted(source))
    if layout == "csv":
        found = {split: _read_csv(source, split, name) for split, name in _CSV.items()}
        source.note(CSV_NOTE, sum(map(len, found.values())))
        return pairs.dataset(source, found)
    raise UserError(f"{folder}: no E2E files here; accepted: {LAYOUTS}; {holdings(folder)}")


def context_of(mr: str) -> str | None:
    """A meaning representation of the CSV as LoRA writes it.

    `name[X], priceRange[less than £20]` becomes `name : X | price : less than £ 20`.

    Returns:
        The context; None for an unknown or repeated slot, or text between the slots.
    """
    found = [(key.strip(), value) for key, value in _SLOT.findall(mr)]
    slots = dict(found)
    if not slots or len(slots) < len(found) or not slots.keys() <= _SLOTS.keys() or _SLOT.sub("", mr).strip(", "):
        return None
    return " | ".join(f"{shown} : {_tokenise(slots[key])}" for key, shown in _SLOTS.items() if key in slots)


def _tokenise(value: str) -> str:
    # Prices are the only values that the tokeniser of LoRA's files took apart: "£20-25", "less than £20".
    value = re.sub(r"£\s*", "£ ", value)
    return re.sub(r"(£ \d+)\s*-\s*(\d+)", r"\1 - \2", value)


def _layout(source: Source) -> str | None:
    name = source.first(*_TXT.values())
    if name and "||" in source.head(name):
        return "txt"
    if source.first(*pairs.FORMATTED.values()):
        return "formatted"
    return "csv" if source.first(*_CSV.values()) else None


def _read_txt(source: Source, split: str, name: str) -> list[Pair]:
    found = []
    for line in [line for here in source.of(split, [name]) for line in source.lines(here)]:
        context, bar, text = line.text().strip().partition("||")
        if not bar:
            raise line.refused("context||text")
        found.append(Pair(context, text))
    return found


def _read_csv(source: Source, split: str, name: str) -> list[Pair]:
    rows = [row for here in source.of(split, [name]) for row in source.csv(here)]
    return [Pair(_context(row["mr"]), tokenise(row["ref"].text())) for row in rows]


def _context(mr: Field) -> str:
    context = context_of(mr.text())
    if context is None:
        raise mr.refused(f"slot[value], ... with each slot at most once and of: {', '.join(_SLOTS)}")
    return context
