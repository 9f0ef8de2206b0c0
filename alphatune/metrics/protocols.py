"""Whose way of scoring has which metrics: every metric belongs to one protocol, and its signature names it.

A protocol is a reference tool with its options and with what it does to texts and to missing references. What was
compared with the tool is in docs/scoring.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """A named way of scoring."""

    name: str
    readers: tuple[str, ...]  # the formats of `alphatune.data` whose tasks are scored so (`task.reader`)
    metrics: tuple[str, ...]
    source: str  # the reference tool, at a commit where it has one
    keeps_empty: bool = False  # an empty line in a reference file is an empty reference, not a missing one


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "lora",
            ("webnlg", "dart", "toy", "own"),
            ("bleu", "meteor", "ter"),
            "microsoft/LoRA@c4593f0 examples/NLG: gpt2_decode.py --tokenize --lower --ref_num 6, eval.py -nr 6",
        ),
        Protocol(
            "webnlg2017",
            ("webnlg",),
            ("bleu_official", "meteor_official", "ter_official"),
            "the organisers of the 2017 challenge: webnlg-automatic-evaluation, as in Yale-LILY/dart@bb644b1",
        ),
        Protocol(
            "dart",
            ("dart",),
            ("bleu_dart", "meteor_dart", "ter_dart"),
            "Yale-LILY/dart@bb644b1: run_eval_on_dart.sh",
            keeps_empty=True,
        ),
        Protocol(
            "generationeval",
            ("webnlg", "dart"),
            ("bleu_ge", "meteor_ge", "ter_ge"),
            "WebNLG/GenerationEval@8067849: eval.py -nr 4",
            keeps_empty=True,
        ),
        Protocol(
            "e2e",
            ("e2e", "own"),
            ("bleu_e2e", "nist", "meteor_e2e", "rouge_l_e2e", "cider"),
            "tuetschek/e2e-metrics: measure_scores.py -p",
        ),
        Protocol("e2e-perl", ("e2e", "own"), ("nist_perl",), "tuetschek/e2e-metrics: mteval-v13a-sig.pl"),
        Protocol(
            "rouge", ("samsum", "own"), ("rouge1", "rouge2", "rougeL"), "google-research rouge_score, with stemmer"
        ),
        Protocol(
            "glue",
            ("glue", "own"),
            ("accuracy", "f1", "matthews", "pearson", "spearman"),
            "the metrics of GLUE (Wang et al. 2019), by scikit-learn and scipy",
        ),
        Protocol(
            "lengths",
            ("webnlg", "dart", "toy", "e2e", "own"),
            ("length", "length_e2e"),
            "sacrebleu: the lengths that the brevity penalty of bleu and bleu_e2e compares",
        ),
        Protocol(
            "nltk",
            ("webnlg", "dart", "toy", "e2e", "own"),
            ("meteor_nltk", "nist_nltk"),
            "nltk, for machines without Java; comparable with no published number",
        ),
    )
}
"""Every protocol by its name."""

_OF = {metric: protocol for protocol in PROTOCOLS.values() for metric in protocol.metrics}


def protocol_of(metric: str) -> Protocol:
    """The protocol that a metric belongs to."""
    return _OF[metric]


def protocols_of(metrics: Sequence[str]) -> list[Protocol]:
    """The protocols of some metrics, each once."""
    return list({protocol_of(name).name: protocol_of(name) for name in metrics}.values())
