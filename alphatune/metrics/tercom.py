"""Translation edit rate as tercom computes it, by sacrebleu, whose TER is a port of it. Scale 0 to 1 and above.

The WebNLG 2017 challenge and DART's own script run tercom 0.7.25: the edits to the closest reference, summed over the
inputs, over the sum of the mean reference lengths. pyter's, in `ter.py`, is another search and another mean.
"""

from __future__ import annotations

from collections.abc import Callable

from alphatune.metrics.corpus import CHALLENGE_REFERENCES, Corpus, Texts
from alphatune.metrics.metric import Groups, Metric
from alphatune.metrics.outside import unidecode
from alphatune.metrics.pool import spread


def tercom(texts: Texts, groups: Groups, jobs: int = 1) -> list[float]:
    """TER of each group; case is ignored."""
    pairs = zip(texts.hypotheses, texts.references, strict=True)
    counts = spread(_edits_and_length, [(hypothesis, *refs) for hypothesis, refs in pairs], jobs)
    values = []
    for rows in groups:
        edits, length = (sum(counts[row][which] for row in rows) for which in (0, 1))
        values.append(edits / length if length else float(edits > 0))
    return values


def _without_missing(texts: Texts) -> Texts:
    """As prepare_files.py of DART has it: an empty reference after the first is a missing one."""
    return Texts(texts.hypotheses, [[refs[0], *filter(str.strip, refs[1:])] for refs in texts.references])


def _edits_and_length(texts: tuple[str, ...]) -> tuple[float, float]:
    """The edits from a hypothesis to the closest of its references, and the mean length of these."""
    from sacrebleu.metrics import TER

    score = TER().sentence_score(texts[0], texts[1:])
    return score.num_edits, score.ref_length


def _metric(name: str, form: Callable[[Corpus], Texts], recipe: Callable[[], str]) -> Metric:
    def signature() -> str:
        import sacrebleu

        return (
            f"{name}|{recipe()}|refs:{CHALLENGE_REFERENCES}|case:lc|tok:none|tercom|sacrebleu:{sacrebleu.__version__}"
        )

    return Metric(name, lambda corpus, groups: tercom(form(corpus), groups, corpus.jobs), signature, summed=True)


METRICS = [
    _metric("ter_official", lambda c: c.challenge, lambda: f"text:lower,ascii:{unidecode.version()},split-nonword"),
    _metric("ter_dart", lambda c: _without_missing(c.dart), lambda: "text:raw"),
]
"""tercom's TER; lower is better."""
