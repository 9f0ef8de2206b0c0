"""The command line's `--set`: what it may change without making a table's labels, or a page's claims, untrue."""

from __future__ import annotations

import re

from alphatune.compose import compose
from alphatune.errors import UserError
from alphatune.store import digest
from alphatune.tables.experiment import Experiment

_NEUTRAL = ("runtime", "logger", "data.dir", "data.offline")  # what cannot change a result
_RATE = "hparams.learning_rate"


def check(given: list[str], table: Experiment) -> None:
    """Refuse what would make rows or columns something else than their labels say.

    Raises:
        UserError: seeds, what rows or columns set themselves, or a learning rate that rows search for.
    """
    parts = [(row.id, row.set) for row in table.rows] + [(column.key, column.set) for column in table.columns]
    shown_apart = {_key(o) for column in table.columns for o in column.set}
    for override in given:
        key = _key(override)
        if key == "seed":
            raise UserError(f"--set {override}: seeds are given by --seeds")
        own = [name for name, several in parts if any(_key(o) == key for o in several)]
        if own and (key not in ("model", "task") or key in shown_apart):  # for all rows these are labelled as such
            raise UserError(f"--set {override}: parts of this table set {key} themselves: {', '.join(own)}")
        searching = [row.id for row in table.rows if row.search or row.search_as]
        if key == _RATE and searching:
            raise UserError(f"--set {override}: rows of this table search it: {', '.join(searching)}")


def changed(given: list[str], table: Experiment) -> list[str]:
    """The overrides that can change a result: a table with any is one of its own, labelled with them."""
    return [o for o in given if not _neutral(o, list(table.needs))]


def check_neutral(given: list[str]) -> None:
    """Refuse, for pages that have no label for it, what can change a result; and what is no setting at all.

    Raises:
        UserError: there is such an override.
    """
    for override in given:
        if not _neutral(override, []):
            raise UserError(
                f"--set {override}: can change results, which this page could not say; allowed: "
                f"{', '.join(_NEUTRAL)}. `alphatune table NAME --set` makes a table of its own"
            )
    compose.config_of(given)


def slug(overrides: list[str]) -> str:
    """A file name's part that tells settings apart: readable while short, else its start and a hash."""
    text = "--".join(re.sub(r"[^\w.=-]+", "-", o) for o in overrides)
    return text if len(text) <= 80 else f"{text[:60]}--{digest(overrides)[:8]}"


def _neutral(override: str, needs: list[str]) -> bool:
    key = _key(override)
    return key in needs or any(key == n or key.startswith(f"{n}.") for n in _NEUTRAL)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
