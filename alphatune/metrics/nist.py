"""NIST of the E2E challenge, in its two variants, and nltk's under its own name. Scale: 0 up to about 10.

e2e-metrics has two programs for it, which agree up to the length penalty: the Python port (`measure_scores.py -p`,
what microsoft/LoRA runs) compares the output's length with the mean over inputs of the mean reference length, the
edited mteval-v13a Perl script (the scores published for the challenge) with the length of all references over the mean
number of references. Both are reproduced with their behaviour on empty and very short texts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from alphatune.metrics.corpus import Corpus
from alphatune.metrics.metric import Groups, Metric, take
from alphatune.metrics.outside.unavailable import Unavailable

ORDER = 5
_BETA = -math.log(0.5) / math.log(1.5) ** 2  # so that two thirds of the reference length halve the score

_ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SPLITS = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

Tokens = list[str]


def tokenize(text: str) -> Tokens:
    """The tokens of mteval-v13a; none for an empty text. Case is kept."""
    for old, new in _ENTITIES:
        text = text.replace(old, new)
    text = f" {text} "
    for pattern, split in _SPLITS:
        text = pattern.sub(split, text)
    return text.split()


def nist(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """NIST as `measure_scores.py -p` of e2e-metrics computes it."""
    # The port's empty text is one empty token; its lower-casing knows all letters.
    hyps = [[token.lower() for token in tokenize(text)] or [""] for text in hypotheses]
    refs = [[[token.lower() for token in tokenize(text)] or [""] for text in texts] for texts in references]
    # A text shorter than n adds a negative number of n-grams in the port.
    totals = [sum(len(hyp) - n for hyp in hyps) for n in range(ORDER)]
    reference_length = sum(sum(map(len, texts)) / len(texts) for texts in refs)
    return _score(hyps, refs, totals, reference_length, zero_is_total=False)


def nist_perl(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """NIST as the mteval-v13a-sig.pl of e2e-metrics computes it."""
    hyps = [tokenize(text.translate(_ASCII_LOWER)) for text in hypotheses]
    refs = [[tokenize(text.translate(_ASCII_LOWER)) for text in texts] for texts in references]
    totals = [max(1, sum(max(0, len(hyp) - n) for hyp in hyps)) for n in range(ORDER)]
    filled = sum(1 for texts in refs for ref in texts if ref)
    reference_length = sum(len(ref) for texts in refs for ref in texts) / (filled / len(refs)) if filled else 0.0
    return _score(hyps, refs, totals, reference_length, zero_is_total=True)


def _score(
    hyps: list[Tokens], refs: list[list[Tokens]], totals: list[int], reference_length: float, zero_is_total: bool
) -> float:
    known = Counter(gram for texts in refs for ref in texts for gram in _grams(ref))
    words = sum(len(ref) for texts in refs for ref in texts)
    known[()] = words
    found = [0.0] * ORDER  # information of the matched n-grams, per order
    for hyp, texts in zip(hyps, refs, strict=True):
        allowed: Counter[tuple[str, ...]] = Counter()
        for ref in texts:
            allowed |= Counter(_grams(ref))
        for gram, count in (Counter(_grams(hyp)) & allowed).items():
            # Perl takes the one-token prefix "0" for no prefix at all.
            before = words if zero_is_total and gram[:-1] == ("0",) else known[gram[:-1]]
            found[len(gram) - 1] += count * math.log2(before / known[gram])
    gain = sum(information / total for information, total in zip(found, totals, strict=True) if total)
    return gain * _length_penalty(sum(map(len, hyps)), reference_length)


def _grams(tokens: Tokens) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(tokens) - n + 1)]


def _length_penalty(length: int, reference_length: float) -> float:
    if reference_length <= 0 or length >= reference_length:
        return 1.0
    return math.exp(-_BETA * math.log(length / reference_length) ** 2) if length > 0 else 0.0


def nist_nltk(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """nltk's corpus NIST on the lower-cased mteval tokens; 1 to 1.6 below the scores of the E2E tools.

    Raises:
        Unavailable: nltk is not installed, or divides by zero, e.g. where no hypothesis has five tokens.
    """
    try:
        from nltk.translate.nist_score import corpus_nist  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unavailable("the package nltk is not installed") from error
    hyps = [tokenize(text.lower()) for text in hypotheses]
    refs = [[tokenize(text.lower()) for text in texts] for texts in references]
    try:
        return float(corpus_nist(refs, hyps, ORDER))
    except ZeroDivisionError as error:
        raise Unavailable("nltk's NIST is not defined for these texts: it divides by zero") from error


def _nltk_signature() -> str:
    import nltk  # type: ignore[import-untyped]

    return f"nist_nltk|tok:13a|case:lc|n:{ORDER}|nltk:{nltk.__version__}"


def _metric(name: str, function: Callable[[list[str], list[list[str]]], float], signature: Callable[[], str]) -> Metric:
    def compute(corpus: Corpus, groups: Groups) -> list[float]:
        parts = (take(corpus.raw, rows) for rows in groups)
        return [function(texts.hypotheses, texts.references) for texts in parts]

    return Metric(name, compute, signature)


METRICS = [
    _metric("nist", nist, lambda: f"nist|text:raw|tok:13a|case:lc|n:{ORDER}|length:mean-of-means|e2e-metrics -p"),
    _metric(
        "nist_perl",
        nist_perl,
        lambda: f"nist_perl|text:raw|tok:13a|case:lc-ascii|n:{ORDER}|length:all-over-mean-count|mteval-v13a-sig.pl",
    ),
    _metric("nist_nltk", nist_nltk, _nltk_signature),
]
"""The NIST metrics."""
