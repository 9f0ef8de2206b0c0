"""METEOR 1.5, by its jar, as WebNLG/DART and as coco-caption (E2E) run it, and nltk's under its own name. Scale 0 to 1.

The jar is used through its line protocol, one pass over the inputs for all groups: `SCORE ||| references |||
hypothesis` answers with the statistics of one input, `EVAL ||| statistics ...` with the score of any set of them. It is
the computation of file mode with `-r`, to the last digit, without aligning the same input again for each group.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from alphatune.metrics.corpus import CHALLENGE_REFERENCES, EVALUATED_REFERENCES, MAX_REFERENCES, Texts
from alphatune.metrics.metric import Groups, Metric, means
from alphatune.metrics.nist import tokenize
from alphatune.metrics.outside import java, unidecode, words
from alphatune.metrics.outside.paraphrases import Runs, cut
from alphatune.metrics.outside.unavailable import Unavailable

JAR = "meteor/meteor-1.5.jar"
PARAPHRASES = "data/paraphrase-en.gz"  # beside the jar
OPTIONS = ("-l", "en", "-norm")
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # the program ends before better code would pay
_LINE_ENDS = re.compile("[\r\n]+")


_one_at_a_time = threading.Lock()


class _Jar:
    """The running jar, with its table of paraphrases cut to the words of texts."""

    def __init__(self, runs: Runs) -> None:
        """Start it.

        Raises:
            Unavailable: no Java runtime or no jar.
        """
        self.runs = runs
        self._folder = tempfile.TemporaryDirectory(prefix="alphatune-meteor-")
        table = Path(self._folder.name) / "paraphrases.gz"
        program = (java.runtime(), "-Xmx2G", *QUICK, "-Dfile.encoding=UTF-8", "-jar", str(java.jar(JAR)))
        whole = Path(program[-1]).parent / PARAPHRASES
        paraphrases = ("-a", str(table)) if cut(whole, runs, table) else ()
        self.program = java.Conversation((*program, "-", "-", "-stdio", *OPTIONS, *paraphrases), "the METEOR jar")

    def close(self) -> None:
        """End it."""
        self.program.close()
        self._folder.cleanup()


_running: _Jar | None = None


def meteor(texts: Texts, groups: Groups) -> list[float]:
    """METEOR of each group of inputs. The jar is started once per process, and again where texts bring new words.

    Raises:
        Unavailable: no Java runtime or no jar, or the jar failed or did not answer.
    """
    global _running
    runs = Runs([*texts.hypotheses, *(ref for refs in texts.references for ref in refs)])
    with _one_at_a_time:
        if _running is not None and not runs <= _running.runs:
            runs |= _running.runs
            stop()
        _running = _running or _Jar(runs)
        try:
            return _converse(_running.program, texts, groups)
        except BaseException:
            stop()  # whatever it still says would be taken for the next answer
            raise


def stop() -> None:
    """End the jar, if it is running."""
    global _running
    if _running is not None:
        _running.close()
        _running = None


def _converse(jar: java.Conversation, texts: Texts, groups: Groups) -> list[float]:
    jar.send(_questions(texts))
    statistics = [_answer(jar) for _ in texts.hypotheses]
    scores = []
    for rows in groups:
        jar.send([f"EVAL ||| {' ||| '.join(statistics[row] for row in rows)}\n".encode()])
        answers = [_answer(jar) for _ in range(len(rows) + 1)]  # each input's own score, then that of all
        scores.append(float(answers[-1]))
    return scores


def _answer(jar: java.Conversation) -> str:
    line = jar.answer()
    if not line or line.startswith("Error"):
        raise Unavailable(f"the METEOR jar failed: {line or 'it gave an empty answer'}")
    return line


def _questions(texts: Texts) -> list[bytes]:
    questions = []
    for hypothesis, references in zip(texts.hypotheses, texts.references, strict=True):
        # A line is a message and ||| divides it, so neither may come from a text.
        parts = (_LINE_ENDS.sub(" ", text).replace("|||", "") for text in (*references, hypothesis))
        questions.append(f"SCORE ||| {' ||| '.join(parts)}\n".encode(errors="replace"))
    return questions


def _without_last_line_end(texts: Texts, groups: Groups) -> tuple[Texts, Groups]:
    """The texts and groups as the jar reads them from the files that eval.py of GenerationEval writes.

    eval.py ends no file with a line end. Where the last reference of the last input of a group is missing, the jar
    finds no line for it, makes the text "null" of Java's null, and compares with that: "nothing" is a synonym of it.
    """
    hypotheses, references, rows_read = list(texts.hypotheses), list(texts.references), []
    for rows in groups:
        width, last = max(len(texts.references[row]) for row in rows), texts.references[rows[-1]]
        if len(last) == width and last[-1]:
            rows_read.append(list(rows))
            continue
        rows_read.append([*rows[:-1], len(hypotheses)])
        hypotheses.append(texts.hypotheses[rows[-1]])
        references.append([*last[: width - 1], "null"])
    return Texts(hypotheses, references), rows_read


def meteor_nltk(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """nltk's METEOR of each input on the lower-cased mteval tokens, best reference; not comparable with the jar's.

    Raises:
        Unavailable: nltk or its WordNet data is not installed; nothing is downloaded.
    """
    try:
        from nltk.corpus import wordnet  # type: ignore[import-untyped]
        from nltk.translate.meteor_score import meteor_score  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unavailable("the package nltk is not installed") from error
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise Unavailable("nltk's WordNet data is not installed (python -m nltk.downloader wordnet)") from error
    pairs = zip(hypotheses, references, strict=True)
    return [meteor_score([tokenize(ref.lower()) for ref in refs], tokenize(hyp.lower())) for hyp, refs in pairs]


def _signature(recipe: str) -> str:
    return f"{recipe}|{' '.join(OPTIONS)}|METEOR 1.5 jar of pycocoevalcap:{java.package_version()}"


def _nltk_signature() -> str:
    import nltk  # type: ignore[import-untyped]

    return f"meteor_nltk|tok:13a|case:lc|mean|nltk:{nltk.__version__}"


METRICS = [
    # File mode of the reference repeats reference 0 where one is missing, which changes nothing: the best counts.
    Metric(
        "meteor",
        lambda corpus, groups: meteor(corpus.normalised, groups),
        lambda: _signature(f"meteor|text:lower,split-nonword|refs:{MAX_REFERENCES}"),
        external=True,
    ),
    # The same holds for the empty lines of the three below: no text is closer to nothing than to reference 0.
    Metric(
        "meteor_official",
        lambda corpus, groups: meteor(corpus.challenge, groups),
        lambda: _signature(
            f"meteor_official|text:lower,ascii:{unidecode.version()},split-nonword|refs:{CHALLENGE_REFERENCES}"
        ),
        external=True,
    ),
    Metric(
        "meteor_dart",
        lambda corpus, groups: meteor(corpus.dart, groups),
        lambda: _signature(f"meteor_dart|text:raw|refs:{CHALLENGE_REFERENCES}"),
        external=True,
    ),
    Metric(
        "meteor_ge",
        lambda corpus, groups: meteor(*_without_last_line_end(corpus.words, groups)),
        lambda: _signature(f"meteor_ge|tok:nltk-words:{words.version()}|refs:{EVALUATED_REFERENCES}"),
        external=True,
    ),
    Metric(
        "meteor_e2e",
        lambda corpus, groups: meteor(corpus.coco, groups),
        lambda: _signature("meteor_e2e|tok:ptb,no-punctuation|refs:all"),
        external=True,
    ),
    Metric(
        "meteor_nltk",
        lambda corpus, groups: means(meteor_nltk(corpus.raw.hypotheses, corpus.raw.references), groups),
        _nltk_signature,
    ),
]
"""The METEOR metrics."""
