"""`alphatune.metrics.score`: what it refuses, what it leaves out with a reason, what it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from alphatune.errors import UserError
from alphatune.metrics import TEXT_METRICS, meteor, score
from alphatune.metrics.corpus import Corpus
from alphatune.metrics.outside import java

JAVA_METRICS = ["meteor", "meteor_dart", "meteor_e2e", "rouge_l_e2e", "cider"]


@pytest.mark.parametrize(
    ("metrics", "hypotheses", "references", "message"),
    [
        (["blue"], ["a"], [["a"]], "unknown metric blue: must be one of: bleu, bleu_official"),
        ([], ["a"], [["a"]], "no metric named"),
        (["bleu"], ["a", "b"], [["a"]], "2 hypotheses but 1 inputs with references"),
        (["bleu"], [], [], "nothing to score"),
        (["bleu"], ["a", "b"], [["a"], []], "input 2 has no reference"),
        (["bleu"], ["a"], ["a"], "references a list of lists"),
    ],
)
def test_mistakes_are_told(metrics, hypotheses, references, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        score(metrics, hypotheses, references)


def test_subset_names_must_match_the_inputs() -> None:
    with pytest.raises(UserError, match="1 inputs but 2 subset names"):
        score(["bleu"], ["a"], [["a"]], subsets=["seen", "unseen"])


def test_without_java_its_metrics_are_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    scores = score([*JAVA_METRICS, "bleu"], ["a b c d"], [["a b c d"]])
    assert list(scores.values["all"]) == ["bleu"]
    assert scores.absent == dict.fromkeys(JAVA_METRICS, "no Java runtime: no program `java` on the PATH")


def test_without_pycocoevalcap_its_metrics_are_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "runtime", lambda: "java")
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    scores = score(["meteor"], ["a"], [["a"]])
    assert scores.absent == {"meteor": "the package pycocoevalcap is not installed"}


@pytest.mark.parametrize("metric", ["meteor", "cider"])
def test_a_java_that_fails_is_a_reason_not_a_crash(metric: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(java, "runtime", lambda: str(fake))
    monkeypatch.setattr(java, "jar", lambda relative: tmp_path / "some.jar")
    scores = score([metric], ["a b"] * 3000, [["a b"]] * 3000)
    assert scores.values == {"all": {}}
    assert scores.absent[metric].endswith("failed: Unable to locate a Java Runtime.")


def test_nltks_meteor_without_its_data_is_absent_and_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_: pytest.fail("tried to download"))
    try:
        nltk.data.find("corpora/wordnet")
    except LookupError:
        scores = score(["meteor_nltk"], ["a"], [["a"]])
        assert "WordNet" in scores.absent["meteor_nltk"]


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on the PATH")
def test_texts_that_could_break_the_jars_protocol() -> None:
    hypotheses = ["", "a ||| b", "a\nb\r\nc", "\u2028 \x85 x", "£ \ud800 ok"]
    references = [["a b", ""], ["a b"], ["a b c"], ["x"], ["ok"]]
    scores = score(["meteor", "meteor_e2e", "rouge_l_e2e"], hypotheses, references)
    assert not scores.absent
    lone = meteor.meteor(Corpus.of(["a b c"], [["a b c"]]).normalised, [[0]])
    assert lone == pytest.approx([1.0])


def test_standard_output_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    score([name for name, metric in TEXT_METRICS.items() if not metric.external], ["a b c d"], [["a b c e"]])
    assert capfd.readouterr().out == ""


def test_bleu_alone_imports_no_other_tool() -> None:
    program = (
        "import sys, json, alphatune.metrics as m; before = list(sys.modules);"
        "m.score(['bleu'], ['a b c d'], [['a b c d']]);"
        "print(json.dumps([[name.split('.')[0] for name in names] for names in (before, list(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(set, json.loads(done.stdout))
    heavy = {"torch", "transformers", "pycocoevalcap", "nltk", "sklearn", "scipy", "rouge_score", "pyter"}
    assert not before & (heavy | {"sacrebleu"})
    assert not after & heavy
