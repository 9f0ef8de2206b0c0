"""The texts to be scored, in the forms that the metrics need; each form is made once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from alphatune.errors import UserError
from alphatune.metrics.outside import ptb, unidecode, words

MAX_REFERENCES = 6  # of an input of WebNLG or DART; the others are not looked at (microsoft/LoRA: --ref_num 6)
CHALLENGE_REFERENCES = 3  # the same, in the WebNLG 2017 challenge (bleu_eval_3ref.sh) and in run_eval_on_dart.sh
EVALUATED_REFERENCES = 4  # the same, in eval.py of GenerationEval, where nothing else is asked for (-nr)


def split(text: str) -> str:
    """The text with blanks around every non-word character."""
    return " ".join(" ".join(re.split(r"(\W)", text)).split())


def normalise(text: str) -> str:
    """The form in which WebNLG and DART are scored: lower-case, every non-word character a token of its own."""
    return split(text.lower())


@dataclass(frozen=True)
class Texts:
    """Hypotheses with their references, one entry per input."""

    hypotheses: list[str]
    references: list[list[str]]


@dataclass(frozen=True)
class Corpus:
    """Hypotheses and references as given, with the number of worker processes that may be used on them."""

    raw: Texts
    jobs: int = 1

    @classmethod
    def of(cls, hypotheses: Sequence[str], references: Sequence[Sequence[str]], jobs: int = 1) -> Corpus:
        """Check and wrap.

        Raises:
            UserError: nothing to score, different numbers of hypotheses and reference lists, or an input without
                any reference.
        """
        if isinstance(hypotheses, str) or any(isinstance(refs, str) for refs in references):
            raise UserError("hypotheses must be a list of texts and references a list of lists of texts")
        if len(hypotheses) != len(references):
            raise UserError(f"{len(hypotheses)} hypotheses but {len(references)} inputs with references")
        if not hypotheses:
            raise UserError("nothing to score: no hypotheses")
        for number, refs in enumerate(references, start=1):
            if not refs:
                raise UserError(f"input {number} has no reference")
        return cls(Texts(list(hypotheses), [list(refs) for refs in references]), jobs)

    @cached_property
    def normalised(self) -> Texts:
        """Lower-cased and split at non-word characters, at most six references: WebNLG and DART."""
        hypotheses = [normalise(hypothesis) for hypothesis in self.raw.hypotheses]
        return Texts(hypotheses, [[normalise(ref) for ref in refs[:MAX_REFERENCES]] for refs in self.raw.references])

    @cached_property
    def challenge(self) -> Texts:
        """As evaluation.py of the WebNLG 2017 challenge writes it: lower-case, ASCII, split, three references.

        As there, hypotheses are folded to ASCII before they are made lower-case and split, references after, which
        matters for an ellipsis or a capital dotted I.

        Raises:
            Unavailable: the package Unidecode is not installed.
        """
        hypotheses = [normalise(unidecode.fold(hypothesis.strip())) for hypothesis in self.raw.hypotheses]
        references = [
            [unidecode.fold(split(ref).lower()) for ref in refs[:CHALLENGE_REFERENCES]] for refs in self.raw.references
        ]
        return Texts(hypotheses, references)

    @cached_property
    def dart(self) -> Texts:
        """As run_eval_on_dart.sh takes it: the texts as they are, the first three references, empty ones among them."""
        return Texts(self.raw.hypotheses, [refs[:CHALLENGE_REFERENCES] for refs in self.raw.references])

    @cached_property
    def evaluated(self) -> Texts:
        """As eval.py of GenerationEval takes it: the texts as they are, the first four references."""
        return Texts(self.raw.hypotheses, [refs[:EVALUATED_REFERENCES] for refs in self.raw.references])

    @cached_property
    def words(self) -> Texts:
        """`evaluated` as nltk.word_tokenize splits it: METEOR and TER of GenerationEval.

        Raises:
            Unavailable: nltk, or its Punkt data, is not installed.
        """
        texts = self.evaluated
        hypotheses = [words.tokenize(hypothesis) for hypothesis in texts.hypotheses]
        return Texts(hypotheses, [[words.tokenize(ref) for ref in refs] for refs in texts.references])

    @cached_property
    def coco(self) -> Texts:
        """Tokens of the PTB tokenizer without punctuation, joined by blanks: the coco-caption metrics of E2E.

        Raises:
            Unavailable: no Java runtime, or pycocoevalcap is not installed.
        """
        lines = ptb.tokenize([ref for refs in self.raw.references for ref in refs])
        rest = iter(lines)
        references = [[next(rest) for _ in refs] for refs in self.raw.references]
        return Texts(ptb.tokenize(self.raw.hypotheses), references)
