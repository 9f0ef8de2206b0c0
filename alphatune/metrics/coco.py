"""ROUGE_L and CIDEr of coco-caption, as e2e-metrics runs them for E2E: pycocoevalcap's own classes on PTB tokens.

ROUGE_L (beta 1.2) is on a scale of 0 to 1, CIDEr of 0 to 10. Both need a Java runtime for the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable

from alphatune.metrics.corpus import Corpus, Texts
from alphatune.metrics.metric import Groups, Metric, means, take
from alphatune.metrics.outside import java


def rouge_l(texts: Texts) -> list[float]:
    """ROUGE_L of each input: F with the best precision and the best recall over the references."""
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

    scorer = Rouge()
    pairs = zip(texts.hypotheses, texts.references, strict=True)
    return [float(scorer.calc_score([hyp], refs)) for hyp, refs in pairs]


def cider(texts: Texts) -> float:
    """CIDEr of the inputs as one corpus, whose references also give the word weights."""
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]

    if not any(ref for refs in texts.references for ref in refs):
        return 0.0  # no word has a weight; the tool stops there
    hypotheses = {row: [hyp] for row, hyp in enumerate(texts.hypotheses)}
    return float(Cider().compute_score(dict(enumerate(texts.references)), hypotheses)[0])


def _rouge_l(corpus: Corpus, groups: Groups) -> list[float]:
    java.package_version()  # a missing package is a reason, not an ImportError
    return means(rouge_l(corpus.coco), groups)


def _cider(corpus: Corpus, groups: Groups) -> list[float]:
    java.package_version()
    return [cider(take(corpus.coco, rows)) for rows in groups]


def _signature(name: str) -> Callable[[], str]:
    return lambda: f"{name}|tok:ptb,no-punctuation|refs:all|pycocoevalcap:{java.package_version()}"


METRICS = [
    Metric("rouge_l_e2e", _rouge_l, _signature("rouge_l_e2e|beta:1.2"), external=True, summed=True),
    Metric("cider", _cider, _signature("cider|n:4|sigma:6"), external=True),
]
"""The coco-caption metrics besides METEOR."""
