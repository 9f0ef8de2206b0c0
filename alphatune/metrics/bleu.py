"""BLEU, by sacrebleu, in the recipes of the field. Scale 0 to 100."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alphatune.metrics.corpus import CHALLENGE_REFERENCES, EVALUATED_REFERENCES, MAX_REFERENCES, Corpus, Texts
from alphatune.metrics.metric import Groups, Metric, take
from alphatune.metrics.outside import unidecode


def corpus_bleu(texts: Texts, missing: str | None, **options: Any) -> float:
    """Corpus BLEU without smoothing; `missing` stands for each reference that an input has less than the others."""
    from sacrebleu.metrics import BLEU

    width = max(len(refs) for refs in texts.references)
    padded: list[list[str | None]] = [[*refs, *[missing] * (width - len(refs))] for refs in texts.references]
    streams = [list(stream) for stream in zip(*padded, strict=True)]
    # force: no remark about texts that look tokenised, which is what these recipes want
    return float(BLEU(smooth_method="none", force=True, **options).corpus_score(texts.hypotheses, streams).score)


def _metric(
    name: str, form: Callable[[Corpus], Texts], missing: str | None, recipe: str | Callable[[], str], **options: Any
) -> Metric:
    def compute(corpus: Corpus, groups: Groups) -> list[float]:
        texts = form(corpus)
        return [corpus_bleu(take(texts, rows), missing, **options) for rows in groups]

    def signature() -> str:
        import sacrebleu

        case = "lc" if options.get("lowercase") else "mixed"
        tool = f"nrefs:var|case:{case}|eff:no|tok:{options['tokenize']}|smooth:none|sacrebleu:{sacrebleu.__version__}"
        return f"{name}|{recipe if isinstance(recipe, str) else recipe()}|{tool}"

    return Metric(name, compute, signature)


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
]
"""The BLEU metrics."""
