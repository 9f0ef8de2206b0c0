"""Words as nltk.word_tokenize finds them, by Punkt and the Treebank rules: what GenerationEval scores."""

from __future__ import annotations

from alphatune.metrics.outside.unavailable import Unavailable


def tokenize(text: str) -> str:
    """The words of a text, joined by single blanks.

    Raises:
        Unavailable: nltk or its Punkt data is not installed; nothing is downloaded.
    """
    try:
        from nltk import word_tokenize  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unavailable("the package nltk is not installed") from error
    try:
        return " ".join(word_tokenize(text))
    except LookupError as error:
        raise Unavailable("nltk's Punkt data is not installed (python -m nltk.downloader punkt_tab)") from error


def version() -> str:
    """The installed version of nltk; call it after `tokenize`."""
    import nltk  # type: ignore[import-untyped]

    return str(nltk.__version__)
