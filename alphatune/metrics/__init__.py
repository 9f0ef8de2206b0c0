"""Scores of generated texts and predicted labels: pure functions, no model, no downloads.

`score` is for texts, `score_labels` for GLUE. Which metric is which tool with which recipe, and what was compared with
what, is in docs/scoring.md. Importing this package imports none of the tools.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from alphatune.errors import UserError
from alphatune.metrics import bleu, coco, labels, meteor, nist, rouge, ter, tercom
from alphatune.metrics.corpus import Corpus
from alphatune.metrics.labels import Label, LabelMetric
from alphatune.metrics.metric import Groups, Metric
from alphatune.metrics.outside.unavailable import Unavailable
from alphatune.metrics.protocols import protocol_of

TEXT_METRICS: dict[str, Metric] = {
    metric.name: metric for family in (bleu, meteor, ter, tercom, nist, coco, rouge) for metric in family.METRICS
}
LABEL_METRICS: dict[str, LabelMetric] = {metric.name: metric for metric in labels.METRICS}

M = TypeVar("M")

log = logging.getLogger(__name__)

ALL = "all"
"""The group of every input."""


@dataclass(frozen=True)
class Score:
    """A value, unrounded, on the scale that the field prints, and how it was computed."""

    value: float
    signature: str


@dataclass(frozen=True)
class Scores:
    """The scores of each group, and why a metric is absent."""

    values: dict[str, dict[str, Score]]  # group ("all", then the subsets) -> metric -> score
    absent: dict[str, str] = field(default_factory=dict)  # metric -> reason, one line


def score(
    metrics: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    subsets: Sequence[str] | None = None,
    jobs: int | None = None,
) -> Scores:
    """Score texts.

    Args:
        metrics: names of `TEXT_METRICS`.
        hypotheses: one text per input.
        references: one or more texts per input.
        subsets: the subset of each input, e.g. "seen"; each gets scores of its own besides "all".
        jobs: worker processes for TER; None: the processors of this machine, at most 8. Cannot change a value.

    Raises:
        UserError: an unknown metric, lengths that differ, no input, or an input without reference.
    """
    chosen = _known(metrics, TEXT_METRICS)
    corpus = Corpus.of(hypotheses, references, processors() if jobs is None else jobs)
    for caveat in dict.fromkeys(metric.caveat(corpus) for metric in chosen):
        if caveat:
            log.warning(caveat)
    names, groups = groups_of(len(hypotheses), subsets)
    values: dict[str, dict[str, Score]] = {name: {} for name in names}
    absent: dict[str, str] = {}
    for metric, result in zip(chosen, _compute(chosen, corpus, groups), strict=True):
        if isinstance(result, Unavailable):
            absent[metric.name] = str(result)
        else:
            numbers, signature = result
            if not all(map(math.isfinite, numbers)):  # no JSON has such a value, and no table should
                absent[metric.name] = (
                    f"{metric.name} is not defined for these texts: the tool returned no finite number"
                )
                continue
            for name, number in zip(names, numbers, strict=True):
                values[name][metric.name] = Score(number, _named(metric.name, signature))
    return Scores(values, absent)


def score_labels(
    metrics: Sequence[str],
    predictions: Sequence[Label],
    labels: Sequence[Label],
    *,
    subsets: Sequence[str] | None = None,
) -> Scores:
    """Score predicted labels; every value is times 100.

    `metrics` are names of `LABEL_METRICS`, `subsets` is as in `score`. A correlation that is not defined, because one
    side is constant, is absent with the reason.

    Raises:
        UserError: an unknown metric, lengths that differ, nothing to score, or labels that a metric cannot take.
    """
    chosen = _known(metrics, LABEL_METRICS)
    if len(predictions) != len(labels):
        raise UserError(f"{len(predictions)} predictions but {len(labels)} labels")
    if not len(labels):
        raise UserError("nothing to score: no labels")
    names, groups = groups_of(len(labels), subsets)
    values: dict[str, dict[str, Score]] = {name: {} for name in names}
    absent: dict[str, str] = {}
    for metric in chosen:
        for name, rows in zip(names, groups, strict=True):
            try:
                number = metric.compute([predictions[row] for row in rows], [labels[row] for row in rows])
            except Unavailable as reason:
                absent.setdefault(metric.name, str(reason) if name == ALL else f"{reason}, in subset {name}")
            else:
                values[name][metric.name] = Score(number, _named(metric.name, metric.signature()))
    return Scores(values, absent)


def _named(metric: str, signature: str) -> str:
    """The signature with the protocol that the metric belongs to."""
    return f"{signature}|protocol:{protocol_of(metric).name}"


def _known(names: Sequence[str], known: Mapping[str, M]) -> list[M]:
    unique = list(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in unique:
        if name not in known:
            raise UserError(f"unknown metric {name}: must be one of: {', '.join(known)}")
    if not unique:
        raise UserError(f"no metric named: choose from {', '.join(known)}")
    return [known[name] for name in unique]


def groups_of(count: int, subsets: Sequence[str] | None) -> tuple[list[str], Groups]:
    """All inputs, and those of each subset: the names, and the positions of their inputs."""
    names, groups = [ALL], [list(range(count))]
    if subsets is None:
        return names, groups
    if len(subsets) != count:
        raise UserError(f"{count} inputs but {len(subsets)} subset names")
    for name in dict.fromkeys(subsets):
        if name != ALL:
            names.append(name)
            groups.append([row for row, subset in enumerate(subsets) if subset == name])
    return names, groups


def _compute(metrics: Sequence[Metric], corpus: Corpus, groups: Groups) -> list[tuple[list[float], str] | Unavailable]:
    """The result of each metric; those that wait for another program run beside the rest."""

    def run(metric: Metric) -> tuple[list[float], str] | Unavailable:
        try:
            return metric.compute(corpus, groups), metric.signature()
        except Unavailable as reason:
            return reason

    with ThreadPoolExecutor(max_workers=1) as beside:
        waiting = {metric.name: beside.submit(run, metric) for metric in metrics if metric.external}
        done = {metric.name: run(metric) for metric in metrics if not metric.external}
        return [waiting[m.name].result() if m.external else done[m.name] for m in metrics]


def processors() -> int:
    """The processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)
