"""Our scores against the tools' own code on the real references, where these are at hand.

The data may not be redistributed: it is looked for in $ALPHATUNE_SHARED, else in `shared` beside the repository.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.metrics import score
from alphatune.metrics.corpus import Corpus, Texts
from alphatune.metrics.meteor import JAR
from alphatune.metrics.outside import java

SHARED = Path(os.environ.get("ALPHATUNE_SHARED") or ROOT.parent / "shared")
WEBNLG = SHARED / "data" / "webnlg_challenge_2017" / "test.json"
E2E = SHARED / "data" / "e2e" / "test.txt"

pytestmark = pytest.mark.slow
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on the PATH")


def webnlg(step: int) -> list[list[str]]:
    """The references of every `step`-th test input."""
    if not WEBNLG.is_file():
        pytest.skip(f"no WebNLG test data under {SHARED}")
    entries = [next(iter(entry.values())) for entry in json.loads(WEBNLG.read_text("utf-8"))["entries"]]
    kept = ([lex["lex"] for lex in entry["lexicalisations"] if lex["comment"] == "good"] for entry in entries)
    return list(kept)[::step]


def e2e(step: int) -> list[list[str]]:
    """The references of every `step`-th test input."""
    if not E2E.is_file():
        pytest.skip(f"no E2E test data under {SHARED}")
    groups: dict[str, list[str]] = {}
    for line in E2E.read_text("utf-8").splitlines():
        context, text = line.split("||")
        groups.setdefault(context, []).append(text.strip())
    return list(groups.values())[::step]


def perturbed(references: list[list[str]]) -> list[str]:
    """One reference of each input with words dropped, replaced and moved; every 20th text is empty or one word."""
    chance = random.Random(0)
    vocabulary = [word for refs in references for word in refs[0].split()]
    texts = []
    for number, refs in enumerate(references):
        words = [w if chance.random() > 0.1 else chance.choice(vocabulary) for w in chance.choice(refs).split()]
        words = [w for w in words if chance.random() > 0.1]
        cut = chance.randrange(len(words) + 1)
        texts.append(" ".join(words[cut:] + words[:cut] if chance.random() < 0.3 else words))
        if number % 20 == 0:
            texts[-1] = "" if number % 40 == 0 else "Yes"
    return texts


def test_ter_is_pyters() -> None:
    import pyter

    references = webnlg(25)
    hypotheses = perturbed(references)
    texts = Corpus.of(hypotheses, references).normalised
    rates = [
        min(pyter.ter(hyp.split(), ref.split()) for ref in refs)
        for hyp, refs in zip(texts.hypotheses, texts.references, strict=True)
    ]
    ours = score(["ter"], hypotheses, references, jobs=1).values["all"]["ter"].value
    assert ours == sum(rates) / len(rates)


@pytest.mark.java
@needs_java
def test_meteor_is_the_jars_file_mode(tmp_path: Path) -> None:
    references = webnlg(10)
    hypotheses = perturbed(references)
    subsets = ["even" if row % 2 == 0 else "odd" for row in range(len(references))]
    ours = score(["meteor"], hypotheses, references, subsets=subsets).values
    texts = Corpus.of(hypotheses, references).normalised
    for name in ("all", "even"):
        rows = [row for row, subset in enumerate(subsets) if name in ("all", subset)]
        part = Texts([texts.hypotheses[row] for row in rows], [texts.references[row] for row in rows])
        assert ours[name]["meteor"].value == _file_mode(part, tmp_path)


def _file_mode(texts: Texts, folder: Path) -> float:
    hypotheses, references = folder / "hypotheses", folder / "references"
    hypotheses.write_text("".join(f"{text}\n" for text in texts.hypotheses), "utf-8")
    padded = (ref for refs in texts.references for ref in [*refs, *[refs[0]] * (6 - len(refs))])
    references.write_text("".join(f"{text}\n" for text in padded), "utf-8")
    command = [java.runtime(), "-Xmx2G", "-jar", str(java.jar(JAR)), str(hypotheses), str(references)]
    done = subprocess.run([*command, "-l", "en", "-norm", "-r", "6"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@pytest.mark.java
@needs_java
def test_the_coco_metrics_are_pycocoevalcaps(capfd: pytest.CaptureFixture[str]) -> None:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer import ptbtokenizer

    if not os.access(Path(ptbtokenizer.__file__).parent, os.W_OK):
        pytest.skip("pycocoevalcap's own tokenizer needs a writable site-packages")
    references = e2e(8)
    hypotheses = perturbed(references)
    ours = score(["meteor_e2e", "rouge_l_e2e", "cider"], hypotheses, references).values["all"]
    assert capfd.readouterr().out == ""
    tokenizer = ptbtokenizer.PTBTokenizer()
    truth = tokenizer.tokenize({row: [{"caption": ref} for ref in refs] for row, refs in enumerate(references)})
    guess = tokenizer.tokenize({row: [{"caption": text}] for row, text in enumerate(hypotheses)})
    assert ours["meteor_e2e"].value == Meteor().compute_score(truth, guess)[0]
    assert ours["rouge_l_e2e"].value == pytest.approx(Rouge().compute_score(truth, guess)[0], abs=1e-12)
    assert ours["cider"].value == pytest.approx(Cider().compute_score(truth, guess)[0], abs=1e-12)


def test_bleu_e2e_and_nist_rank_a_reference_above_a_perturbed_one() -> None:
    references = e2e(8)
    metrics = ["bleu_e2e", "nist", "nist_perl"]
    exact = score(metrics, [refs[0] for refs in references], references).values["all"]
    worse = score(metrics, perturbed(references), references).values["all"]
    assert exact["bleu_e2e"].value == pytest.approx(100.0)
    assert all(exact[name].value > worse[name].value for name in metrics)
