"""BLEU, by sacrebleu, in the recipes of the field. Scale 0 to 100."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alphatune.metrics.corpus import CHALLENGE_REFERENCES, EVALUATED_REFERENCES, MAX_REFERENCES, Corpus, Texts
from alphatune.metrics.metric import Groups, Metric
from alphatune.metrics.outside import unidecode

ORDER = 4  # the longest n-grams


def counts(texts: Texts, missing: str | None, **options: Any) -> NDArray[np.int64]:
    """What BLEU is made of, [inputs, 10]: n-grams of 1 to 4 that match, all of them, and the lengths of both texts.

    `missing` stands for each reference that an input has less than the others.
    """
    from sacrebleu.metrics import BLEU

    bleu = BLEU(smooth_method="none", force=True, **options)  # force: no remark about texts that look tokenised
    width = max(len(refs) for refs in texts.references)
    found = np.empty((len(texts.hypotheses), 2 * ORDER + 2), dtype=np.int64)
    for row, (text, refs) in enumerate(zip(texts.hypotheses, texts.references, strict=True)):
        padding = [] if missing is None else [missing] * (width - len(refs))
        score = bleu.corpus_score([text], [[ref] for ref in [*refs, *padding]])
        found[row] = [*score.counts, *score.totals, score.sys_len, score.ref_len]
    return found


def of_counts(total: NDArray[np.int64]) -> float:
    """Corpus BLEU without smoothing of summed `counts`."""
    from sacrebleu.metrics import BLEU

    matches, grams, (length, reference) = (part.tolist() for part in np.split(total, [ORDER, 2 * ORDER]))
    return float(BLEU.compute_bleu(matches, grams, length, reference, smooth_method="none").score)


def ratio_of_counts(total: NDArray[np.int64]) -> float:
    """How long the texts of summed `counts` are, as a share of the references that BLEU takes for each: the closest."""
    return float(total[-2] / total[-1]) if total[-1] else 0.0


def _metric(
    name: str,
    form: Callable[[Corpus], Texts],
    missing: str | None,
    recipe: str | Callable[[], str],
    value: Callable[[NDArray[np.int64]], float] = of_counts,
    **options: Any,
) -> Metric:
    def compute(corpus: Corpus, groups: Groups) -> list[float]:
        inputs = counts(form(corpus), missing, **options)
        return [value(inputs[rows].sum(axis=0)) for rows in groups]

    def signature() -> str:
        import sacrebleu

        case = "lc" if options.get("lowercase") else "mixed"
        tool = f"nrefs:var|case:{case}|eff:no|tok:{options['tokenize']}|smooth:none|sacrebleu:{sacrebleu.__version__}"
        return f"{name}|{recipe if isinstance(recipe, str) else recipe()}|{tool}"

    return Metric(name, compute, signature, summed=True)


METRICS = [
    # WebNLG and DART as in microsoft/LoRA: multi-bleu-detok.perl on the normalised texts.
    _metric("bleu", lambda c: c.normalised, None, f"text:lower,split-nonword|refs:{MAX_REFERENCES}", tokenize="13a"),
    # The WebNLG 2017 challenge: multi-bleu.perl -lc, where a missing reference is an empty line of a reference file.
    _metric(
        "bleu_official",
        lambda c: c.challenge,
        "",
        lambda: f"text:lower,ascii:{unidecode.version()},split-nonword|refs:{CHALLENGE_REFERENCES},missing-empty",
        tokenize="none",
        lowercase=True,
    ),
    # DART's own script: multi-bleu.perl on the texts as they are, a missing reference is an empty line there too.
    _metric("bleu_dart", lambda c: c.dart, "", f"text:raw|refs:{CHALLENGE_REFERENCES},missing-empty", tokenize="none"),
    # eval.py of GenerationEval: multi-bleu-detok.perl on the texts as they are.
    _metric(
        "bleu_ge", lambda c: c.evaluated, "", f"text:raw|refs:{EVALUATED_REFERENCES},missing-empty", tokenize="13a"
    ),
    # E2E: `measure_scores.py -p` of e2e-metrics, on the texts as they are.
    _metric("bleu_e2e", lambda c: c.raw, None, "text:raw|refs:all", tokenize="13a", lowercase=True),
    # Why a BLEU is low: below 1, its brevity penalty is exp(1 - 1 / length).
    _metric(
        "length",
        lambda c: c.normalised,
        None,
        f"text:lower,split-nonword|refs:{MAX_REFERENCES}",
        ratio_of_counts,
        tokenize="13a",
    ),
    _metric("length_e2e", lambda c: c.raw, None, "text:raw|refs:all", ratio_of_counts, tokenize="13a", lowercase=True),
]
"""The BLEU metrics."""
