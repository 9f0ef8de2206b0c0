"""The page of the paper's claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alphatune.pages import html
from alphatune.store import write_atomically
from alphatune.tables.aggregate import NOT, NOT_RUN, REPRODUCED, UNDECIDED
from alphatune.tables.verdicts import HOLDS, Claim, Judged, Outcome, judge, load

MODELS = "runs on the paper's models"


def summary(judged: Judged) -> tuple[list[str], list[tuple[Claim, list[str]]]]:
    """Headings, and for each claim what its tests say there, e.g. "2 reproduced".

    The paper's printed means come first, then runs on the paper's models, then every substitute that has any.
    """
    tables = dict.fromkeys(_place(o) for _, found in judged for o in found if o.verdict != NOT_RUN)
    places = [MODELS, *sorted(tables.keys() - {MODELS})]
    rows = []
    for claim, found in judged:
        cells = [o.paper for o in found if o.paper]
        printed = f"{sum(text.endswith(HOLDS) for text in cells)} of {len(cells)} hold" if cells else "-"
        by_place = [[o.verdict for o in found if _place(o) == place] for place in places]
        rows.append((claim, [printed, *map(_counts, by_place)]))
    return ["the paper's printed cells", *places], rows


def _place(outcome: Outcome) -> str:
    return outcome.table if outcome.substitute else MODELS


def _counts(words: Sequence[str]) -> str:
    counts = Counter(words)
    if counts.keys() == {NOT_RUN}:
        return NOT_RUN
    return ", ".join(f"{counts[word]} {word}" for word in (REPRODUCED, NOT, UNDECIDED, NOT_RUN) if counts[word]) or "-"


def overview(judged: Judged) -> str:
    """The summary as a markdown table."""
    places, rows = summary(judged)
    lines = [f"| # | claim | {' | '.join(places)} |", f"|--:|---|{'---|' * len(places)}"]
    lines += [f"| {claim.number} | {claim.text} | {' | '.join(counts)} |" for claim, counts in rows]
    return "\n".join(lines)


def markdown(judged: Judged) -> str:
    """All claims with their verdicts."""
    lines = [
        "# The paper's claims, as the records of this project decide them", "",
        "Verdicts rest on paired differences over seeds and their 95 % t-interval; `alphatune/tables/aggregate.py` has "
        "the rule. What was found on a substitute model says nothing certain about the paper's models. Counts are "
        "comparisons.", "", overview(judged), "",
    ]  # fmt: skip
    for claim, found in judged:
        lines += [
            f"## {claim.number}. {claim.text}",
            "",
            f"AlphaTuning, {claim.where}. The paper's cells: {claim.printed}.",
            "",
        ]
        lines += [f"- {outcome.text}" for outcome in found] or [f"- not tested: {claim.untested}"]
        lines.append("")
    return "\n".join(lines)


def write(extra: list[str], out: Path) -> Judged:
    """Render the claims to <out>/claims.md and claims.html."""
    judged = judge(load(), extra)
    write_atomically(out / "claims.md", markdown(judged))
    places, rows = summary(judged)
    write_atomically(out / "claims.html", html.fill("claims.html", judged=judged, places=places, rows=rows))
    return judged
