"""The Stanford PTB tokenizer as coco-caption uses it, run on our own temporary files.

Same jar, options and removed punctuation as `pycocoevalcap.tokenizer.ptbtokenizer`, which itself writes into
site-packages and so fails on a read-only install.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alphatune.metrics.outside import java
from alphatune.metrics.outside.unavailable import Unavailable

JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

_LINE_ENDS = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")  # each would end a line for the tokenizer


def tokenize(texts: Sequence[str]) -> list[str]:
    """The lower-cased tokens of each text without punctuation, joined by single blanks.

    Raises:
        Unavailable: no Java runtime or no jar, or the tokenizer failed or did not end in time.
    """
    command = [java.runtime(), "-cp", str(java.jar(JAR)), "edu.stanford.nlp.process.PTBTokenizer"]
    with tempfile.TemporaryDirectory(prefix="alphatune-ptb-") as folder:
        source = Path(folder) / "texts.txt"
        source.write_bytes("\n".join(_LINE_ENDS.sub(" ", text) for text in texts).encode(errors="replace"))
        printed = java.output([*command, "-preserveLines", "-lowerCase", str(source)], "the PTB tokenizer")
    lines = printed.decode().split("\n")
    if not len(texts) <= len(lines) <= len(texts) + 1:
        raise Unavailable(f"the PTB tokenizer failed: {len(lines)} lines for {len(texts)} texts")
    return [" ".join(w for w in line.rstrip().split(" ") if w not in PUNCTUATION) for line in lines[: len(texts)]]
