"""The protocols besides the default one, against the numbers that their reference tools print.

The tools were run on the sentences of `test_metrics_goldens.py` and on `EXTRA`, on files as their scripts write them:
  webnlg2017      evaluation.py (with Unidecode 1.4), multi-bleu.perl -lc, METEOR 1.5 -r 3, tercom 0.7.25
  dart            prepare_files.py, multi-bleu.perl, METEOR 1.5 -r 8, tercom 0.7.25
  generationeval  multi-bleu-detok.perl, METEOR 1.5 and pyter3 0.3 on nltk's words, as eval.py has them
The Perl scripts printed 12 decimals instead of two.
"""

from __future__ import annotations

import shutil

import pytest
from test_goldens import HYPOTHESES, ODD_HYPOTHESES, ODD_REFERENCES, REFERENCES

from alphatune.metrics import meteor, score
from alphatune.metrics.corpus import Corpus, Texts
from alphatune.metrics.outside import unidecode, words
from alphatune.metrics.outside.unavailable import Unavailable

needs_meteor = [
    pytest.mark.java,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on the PATH"),
]

EXTRA_HYPOTHESES = ["→ Ünal's café costs ½ of £5 …", "A cat sat on the Mat .", "", "nothing here"]
EXTRA_REFERENCES = [
    ["Ünal's café → costs ½ of £5 …", "", "It costs half"],
    ["a cat sat on a mat", "The cat sat .", "A Cat on the mat"],
    ["Some text"],
    ["", "something else"],
]
SETS = {
    "main": (HYPOTHESES, REFERENCES),
    "odd": (ODD_HYPOTHESES, ODD_REFERENCES),
    "extra": (EXTRA_HYPOTHESES, EXTRA_REFERENCES),
}
PRINTED = {
    "main": {
        "bleu_official": 41.045285441590,
        "meteor_official": 0.41998318071036816,
        "ter_official": 0.4945770065075921,
        "bleu_dart": 32.682668845504,
        "meteor_dart": 0.4087804336479483,
        "ter_dart": 0.6614173228346457,
        "bleu_ge": 35.233836479409,
        "meteor_ge": 0.4107204603014766,
        "ter_ge": 0.566923076923077,
    },
    "odd": {
        "bleu_official": 38.784054277250,
        "meteor_official": 0.3563699650185416,
        "ter_official": 0.5793103448275863,
        "bleu_dart": 58.292150046937,
        "meteor_dart": 0.3563699650185416,
        "ter_dart": 0.30434782608695654,
        "bleu_ge": 77.900619321726,
        "meteor_ge": 0.3563699650185416,
        "ter_ge": 0.575,
    },
    "extra": {
        "bleu_official": 31.259354281561,
        "meteor_official": 0.36150746796984723,
        "ter_official": 1.1052631578947367,
        "bleu_dart": 44.159481401760,
        "meteor_dart": 0.45469742363496635,
        "ter_dart": 0.5185185185185185,
        "bleu_ge": 44.159481401760,
        "meteor_ge": 0.4532149695694454,
        "ter_ge": 0.6944444444444444,
    },
}


@pytest.fixture
def words_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk's words where its Punkt data is not installed: every text here is one sentence, which needs none."""
    try:
        words.tokenize("a")
    except Unavailable:
        import nltk

        monkeypatch.setattr(words, "tokenize", lambda text: " ".join(nltk.word_tokenize(text, preserve_line=True)))


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        pytest.param(name, metric, marks=needs_meteor if metric.startswith("meteor") else [])
        for name, printed in PRINTED.items()
        for metric in printed
    ],
)
@pytest.mark.usefixtures("words_without_data")
def test_a_number_is_the_reference_tools_number(name: str, metric: str) -> None:
    if metric.endswith("_official"):
        pytest.importorskip("unidecode")
    scores = score([metric], *SETS[name], jobs=1)
    assert not scores.absent
    assert scores.values["all"][metric].value == pytest.approx(PRINTED[name][metric], abs=1e-11)


def test_unicode_is_folded_by_the_organisers_own_library() -> None:
    pytest.importorskip("unidecode")
    assert unidecode.fold("Café Ångström – “Øl” → ½") == 'Cafe Angstrom - "Ol" -  1/2'
    texts = Corpus.of(["→ Łódź"], [["Łódź →"]]).challenge
    assert (texts.hypotheses, texts.references) == (["- lodz"], [["lodz -"]])


def test_without_the_library_the_scores_are_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "unidecode", None)
    scores = score(["bleu_official", "bleu"], ["a b c d"], [["a b c d"]])
    assert list(scores.values["all"]) == ["bleu"]
    assert scores.absent == {"bleu_official": "the package Unidecode is not installed (pip install Unidecode)"}


def test_missing_references_count_as_empty_lines() -> None:
    hypotheses = ["a cat sat on the mat today and yesterday", "it sat on"]
    references = [["a cat sat on the mat today and yesterday", "x"], ["it sat on a very long mat of nine words"]]
    values = score(["bleu", "bleu_dart", "bleu_ge"], hypotheses, references).values["all"]
    assert values["bleu"].value == pytest.approx(55.803514577005, abs=1e-11)
    # no brevity penalty: the empty line is closer to "it sat on" than the nine words are
    assert values["bleu_dart"].value == pytest.approx(100.0, abs=1e-11)
    assert values["bleu_ge"].value == pytest.approx(100.0, abs=1e-11)


@pytest.mark.usefixtures("words_without_data")
def test_an_empty_line_costs_one_in_generationeval() -> None:
    # three words for one that none of them is: 3 edits over 1 word; an empty line costs 1 and is the minimum
    far, near = ["x y z"], ["a b"]
    assert score(["ter_ge"], far, [["a"]], jobs=1).values["all"]["ter_ge"].value == 3.0
    both = score(["ter_ge"], far + near, [["a"], ["a b", "c"]], subsets=["one", "two"], jobs=1).values
    assert {name: row["ter_ge"].value for name, row in both.items()} == {"all": 0.5, "one": 3.0, "two": 0.0}


def test_a_missing_last_line_is_java_s_null_in_generationeval() -> None:
    texts = Texts(["h0", "h1", "h2"], [["a", "b"], ["c"], ["d", ""]])
    read, groups = meteor._without_last_line_end(texts, [[0, 1, 2], [0, 1], [0], [1]])
    assert (read.hypotheses[3:], read.references[3:]) == (["h2", "h1"], [["d", "null"], ["c", "null"]])
    assert groups == [[0, 1, 3], [0, 4], [0], [1]]  # the last group has one reference each: none is missing


@pytest.mark.parametrize(
    ("metric", "used"), [("bleu_official", 3), ("bleu_dart", 3), ("bleu_ge", 4), ("bleu", 6), ("bleu_e2e", 9)]
)
def test_how_many_references_count(metric: str, used: int) -> None:
    if metric == "bleu_official":
        pytest.importorskip("unidecode")
    others = [f"nothing of that kind {n}" for n in range(9)]
    for place in range(9):
        references = [*others[:place], "one two three four five", *others[place:]]
        value = score([metric], ["one two three four five"], [references]).values["all"][metric].value
        assert (value == pytest.approx(100.0)) is (place < used)


def test_case_counts_where_the_tool_lets_it() -> None:
    texts = ["A CAT Sat on The Mat"], [["a cat sat on the mat"]]
    values = {name: s.value for name, s in score(["bleu_dart", "bleu", "ter_dart"], *texts).values["all"].items()}
    assert values == {"bleu_dart": 0.0, "bleu": pytest.approx(100.0), "ter_dart": 0.0}


def test_tercom_sums_before_it_divides() -> None:
    # 1 edit; 0 edits to the closer one: over mean lengths 2 and (4 + 2) / 2
    values = score(["ter_dart"], ["a b", "c d e f"], [["a x"], ["c d e f", "c d"]]).values["all"]
    assert values["ter_dart"].value == pytest.approx(1 / (2 + 3))
