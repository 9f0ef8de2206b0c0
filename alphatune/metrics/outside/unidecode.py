"""Unicode to ASCII as the WebNLG 2017 challenge did it: by the package Unidecode itself, whose tables are a choice.

The package is under the GPL, so it is no requirement of this one: install it to score by that protocol.
"""

from __future__ import annotations

import importlib.metadata

from alphatune.metrics.outside.unavailable import Unavailable


def fold(text: str) -> str:
    """The text in ASCII letters and signs, e.g. "Ø" as "O" and an arrow as "-".

    Raises:
        Unavailable: the package is not installed.
    """
    try:
        from unidecode import unidecode  # type: ignore[import-not-found]
    except ImportError as error:
        raise Unavailable("the package Unidecode is not installed (pip install Unidecode)") from error
    return str(unidecode(text))


def version() -> str:
    """The installed version of the package; call it after `fold`."""
    return importlib.metadata.version("Unidecode")
