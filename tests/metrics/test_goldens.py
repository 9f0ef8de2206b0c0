"""Every metric against the number that the reference tool prints for sentences written for this test.

How the numbers were made (tools run as they are, on these sentences):
  bleu           perl multi-bleu-detok.perl (Moses; GenerationEval has the same) on lower-cased texts split at \\W, with
                 reference 0 in place of a missing one, as microsoft/LoRA writes the files; BLEU printed with %.12f
  bleu_e2e, nist BLEUScore and NISTScore of metrics/pymteval.py of e2e-metrics (`measure_scores.py -p`)
  nist_perl      the scoring routines of mteval-v13a-sig.pl of e2e-metrics
  ter            pyter3 0.3, minimum over references, mean over sentences, on the texts of `bleu`
  meteor         java -jar meteor-1.5.jar HYP REF -l en -norm -r 6, reference 0 in place of a missing one
  meteor_e2e, rouge_l_e2e, cider   PTBTokenizer, Meteor, Rouge and Cider of pycocoevalcap 1.2
  rouge1, rouge2, rougeL           rouge_score 0.1.2, F1, stemmer, best reference
"""

from __future__ import annotations

import shutil

import pytest

from alphatune.metrics import score

needs_java = [pytest.mark.java, pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on the PATH")]
needs_meteor = [*needs_java, pytest.mark.slow]  # the jar reads its paraphrase table for ten seconds at each start

HYPOTHESES = [
    "The Blue Harbour is a cheap fish restaurant near the old mill , with a rating of 3.5 .",
    "Marta Lindqvist , born in 1957 , led the (small) observatory of Visby - Gotland's only one - until 1998.",
    'It has "two" bridges; 1,200 people cross them & pay £ 0 .',
    "Café Étoile serves breakfast",
    "Children are not welcome , children are not welcome at the Blue Harbour .",
]
REFERENCES = [
    [
        "Near the old mill you find The Blue Harbour , a cheap fish restaurant rated 3.5 .",
        "The Blue Harbour , near the old mill , serves cheap fish and is rated 3.5 out of 5 .",
    ],
    ["Marta Lindqvist (born 1957) was head of Gotland's only observatory, in Visby, until 1998."],
    [
        "Two bridges, crossed by 1,200 people who pay £ 0 , stand there.",
        'There are "two" bridges and 1,200 people cross them for £0.',
        "1,200 people cross its two bridges & pay nothing.",
    ],
    ["Breakfast is served at café Étoile in the city centre .", "You can have breakfast at Café Étoile ."],
    ["The Blue Harbour is not for children .", "Children are not welcome at the Blue Harbour , a fish restaurant ."],
]

# Texts that tools treat in ways of their own: empty, one word, the token 0, entities, an empty reference.
ODD_HYPOTHESES = ["0 of 5 stars .", "", "Fine", "&quot;A&quot; costs 0 - 0 , <skipped>or less than that"]
ODD_REFERENCES = [
    ["0 of 5 stars .", "rated 0 of 5 stars"],
    ["nothing", "There is nothing ."],
    ["Fine .", "", "A fine place"],
    ['"A" costs 0 - 0 , or far less than that in 1999'],
]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("bleu", 41.04528544159),
        ("bleu_e2e", 35.08610225547234),
        ("nist", 4.891019002441513),
        ("nist_perl", 4.891019002442),
        ("ter", 0.5104219310101663),
        pytest.param("meteor", 0.41998318071036816, marks=needs_meteor),
        pytest.param("meteor_e2e", 0.4161712934364586, marks=needs_meteor),
        pytest.param("rouge_l_e2e", 0.5674803582195779, marks=needs_java),
        pytest.param("cider", 2.759537080113492, marks=needs_java),
        ("rouge1", 72.06220314212644),
        ("rouge2", 45.21825396825396),
        ("rougeL", 59.36352011160195),
    ],
)
def test_a_number_is_the_reference_tools_number(metric: str, expected: float) -> None:
    scores = score([metric], HYPOTHESES, REFERENCES, jobs=1)
    assert not scores.absent
    assert scores.values["all"][metric].value == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("bleu", 38.78405427725),
        ("nist", 4.033698463545521),
        ("nist_perl", 5.55751544166),
    ],
)
def test_odd_texts_score_as_in_the_reference_tool(metric: str, expected: float) -> None:
    scores = score([metric], ODD_HYPOTHESES, ODD_REFERENCES)
    assert scores.values["all"][metric].value == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    "metrics",
    [
        ["bleu", "bleu_dart", "bleu_ge", "bleu_e2e", "ter", "ter_dart", "nist", "nist_perl", "rouge1"],
        pytest.param(["rouge_l_e2e", "cider"], marks=needs_java),
        pytest.param(["meteor"], marks=needs_meteor),
    ],
)
def test_groups_get_the_score_of_a_run_on_them_alone(metrics: list[str]) -> None:
    subsets = ["a", "b", "a", "b", "a"]
    both = score(metrics, HYPOTHESES, REFERENCES, subsets=subsets, jobs=1)
    assert list(both.values) == ["all", "a", "b"]
    rows = [row for row, name in enumerate(subsets) if name == "a"]
    alone = score(metrics, [HYPOTHESES[row] for row in rows], [REFERENCES[row] for row in rows], jobs=1)
    assert both.values["a"] == alone.values["all"]
