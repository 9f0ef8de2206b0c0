"""Rows that another model for all of them makes the same run: one is kept, under the model's own name."""

from __future__ import annotations

import dataclasses

from alphatune.compose import compose
from alphatune.tables.experiment import Experiment, Row


def of_model(overrides: list[str]) -> bool:
    """Whether one of the overrides puts another model in the place of those of the rows."""
    return any(o.lstrip("+~").partition("=")[0].split(".")[0] == "model" for o in overrides)


def merged(table: Experiment, overrides: list[str]) -> tuple[Experiment, str]:
    """The table with rows of the same run once, and a line that says so; the table itself and "" if there are none.

    The heading is the model that runs, with whose settings where labels would not tell the rows apart.
    """
    kept: dict[str, Row] = {}
    alike: dict[str, str] = {}  # id of a row -> id of the row that stands for it
    model = ""
    for row in table.rows:
        config = compose.config_of([*table.base, *row.set, *overrides])
        model = config.model.name
        searched = alike.get(row.search_as, row.search_as)
        key = repr((config, row.search, searched, row.layer))
        first = kept.get(key, row)
        if first.seeds or row.seeds:  # those of both
            first = dataclasses.replace(first, seeds=sorted({*table.seeds_of(first), *table.seeds_of(row)}))
        kept[key] = first
        alike[row.id] = first.id
    if len(kept) == len(table.rows):
        return table, ""
    groups = list(dict.fromkeys(row.group for row in kept.values()))
    apart = len({row.label for row in kept.values()}) == len(kept)  # labels alone tell the rows apart
    names = {g: model if apart or not g else f"{model}, settings of {g}" for g in groups}
    rows = [
        dataclasses.replace(row, group=names[row.group], search_as=alike.get(row.search_as, row.search_as))
        for row in kept.values()
    ]
    claims = [
        dataclasses.replace(claim, left=alike[claim.left], right=alike[claim.right])
        for claim in table.claims
        if alike[claim.left] != alike[claim.right]
    ]
    lost = len(table.rows) - len(kept)
    line = f"{lost} of {len(table.rows)} rows are left out: on {model} they are the same runs as rows that stay"
    return dataclasses.replace(table, rows=rows, claims=claims), line
