"""ROUGE-1, ROUGE-2 and ROUGE-L of SAMSum by rouge_score: mean F1 with stemmer, best reference. Scale 0 to 100.

The paper does not name its ROUGE; this is the implementation in common use for SAMSum, and a choice.
"""

from __future__ import annotations

from alphatune.metrics.corpus import Corpus
from alphatune.metrics.metric import Groups, Metric, means


def rouge(name: str, hypotheses: list[str], references: list[list[str]]) -> list[float]:
    """The F1 of each input, times 100; `name` is rouge1, rouge2 or rougeL."""
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer([name], use_stemmer=True)
    pairs = zip(hypotheses, references, strict=True)
    return [100.0 * float(scorer.score_multi(refs, hyp)[name].fmeasure) for hyp, refs in pairs]


def dropped(text: str) -> bool:
    """Whether the tokeniser of rouge_score, which keeps a-z and 0-9, drops more than half of a text's letters."""
    letters = [letter for letter in text.lower() if letter.isalpha()]
    return 2 * sum("a" <= letter <= "z" for letter in letters) < len(letters)


def caveat(corpus: Corpus) -> str:
    """What to know about the scores of texts in a script that the tokeniser drops; empty for others."""
    texts = [ref for refs in corpus.raw.references for ref in refs]
    lost = sum(map(dropped, texts))
    if not lost:
        return ""
    return (
        f"ROUGE: {lost} of {len(texts)} references are in a script that the tokeniser of rouge_score drops (it keeps "
        "a-z and 0-9), so their scores are about 0, whatever the hypotheses say"
    )


def _metric(name: str) -> Metric:
    def compute(corpus: Corpus, groups: Groups) -> list[float]:
        return means(rouge(name, corpus.raw.hypotheses, corpus.raw.references), groups)

    def signature() -> str:
        import importlib.metadata

        return f"{name}|F1|stemmer|best-ref|mean|rouge_score:{importlib.metadata.version('rouge_score')}"

    return Metric(name, compute, signature, caveat=caveat, summed=True)


METRICS = [_metric("rouge1"), _metric("rouge2"), _metric("rougeL")]
"""The ROUGE metrics of SAMSum."""
