"""Translation edit rate as the WebNLG and DART scorers compute it: pyter's algorithm, exactly, but much faster.

TER of one pair = (block shifts + word edits) / reference length. pyter looks for shifts greedily: of all moves of a
run of matching words it takes the one that lowers the edit distance most, among equals the one whose shifted word list
sorts last, until no move helps. The value of a corpus is the mean over inputs of the minimum over references.

Two things make it fast without changing a digit. The edit distance is computed with bit-parallel columns (Hyyro 2003),
resumed behind the words that a shift leaves in place. And a shift keeps the bag of words, so no candidate can get below
the bag distance: once that is reached, the search is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from alphatune.metrics.corpus import EVALUATED_REFERENCES, MAX_REFERENCES, Corpus, Texts
from alphatune.metrics.metric import Groups, Metric, means
from alphatune.metrics.outside import words
from alphatune.metrics.pool import spread

Column = tuple[int, int, int]  # vertical +1 deltas, vertical -1 deltas, distance to the whole reference


class _Distance:
    """Edit distances from word lists to one reference."""

    def __init__(self, reference: Sequence[str]) -> None:
        self.length = len(reference)
        self.full = (1 << self.length) - 1
        self.last = 1 << (self.length - 1)
        self.where: dict[str, int] = {}
        for position, word in enumerate(reference):
            self.where[word] = self.where.get(word, 0) | 1 << position

    def start(self) -> Column:
        """The column before the first word: distance = length of the reference."""
        return self.full, 0, self.length

    def extend(self, column: Column, words: Sequence[str]) -> Column:
        """The column after `words` more words."""
        up, down, distance = column
        full, last, where = self.full, self.last, self.where
        for word in words:
            equal = where.get(word, 0)
            diagonal = (((equal & up) + up) ^ up) | equal | down
            right_up = down | (full & ~(diagonal | up))
            right_down = up & diagonal
            if right_up & last:
                distance += 1
            elif right_down & last:
                distance -= 1
            right_up = (right_up << 1 | 1) & full  # the 1: deleting one more hypothesis word costs one
            right_down = right_down << 1 & full
            up = right_down | (full & ~(diagonal | right_up))
            down = right_up & diagonal
        return up, down, distance


def _runs(hypothesis: Sequence[str], reference: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(start in hypothesis, start in reference, length) of the longest equal run from each pair of positions."""
    n, m = len(hypothesis), len(reference)
    for i in range(n):
        for j in range(m):
            if i != j and hypothesis[i] == reference[j]:
                length = 1
                while i + length < n and j + length < m and hypothesis[i + length] == reference[j + length]:
                    length += 1
                yield i, j, length


def ter(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """TER of one word list against one reference; equals `pyter.ter(hypothesis, reference)`.

    An empty reference scores 1, as in the WebNLG scorer (pyter itself divides by zero there).
    """
    words, target = list(hypothesis), list(reference)
    if not target:
        return 1.0
    distance = _Distance(target)
    shared = sum((Counter(words) & Counter(target)).values())
    floor = max(len(words), len(target)) - shared  # no order of these words is closer than this
    shifts = 0
    columns = _prefixes(distance, words)
    while columns[-1][2] > floor:
        best = _best_shift(words, target, distance, columns, floor)
        if best is None:
            break
        words = best
        shifts += 1
        columns = _prefixes(distance, words)
    return (shifts + columns[-1][2]) / len(target)


def _prefixes(distance: _Distance, words: Sequence[str]) -> list[Column]:
    columns = [distance.start()]
    for word in words:
        columns.append(distance.extend(columns[-1], (word,)))
    return columns


def _best_shift(
    words: list[str], target: list[str], distance: _Distance, columns: list[Column], floor: int
) -> list[str] | None:
    """The word list after the best shift, or None where none lowers the distance."""
    lowest, best = columns[-1][2], None
    for i, j, length in _runs(words, target):
        shifted = words[:i] + words[i + length :]
        shifted[j:j] = words[i : i + length]  # past the end: appended, as pyter does
        kept = min(i, j, len(words) - length)  # words in front of both places
        reached = distance.extend(columns[kept], shifted[kept:])[2]
        if reached < lowest or (best is not None and reached == lowest and shifted > best):
            lowest, best = reached, shifted
            if lowest == floor:
                return best  # the next round stops whichever of the equals it is
    return best


def _ter_of_texts(pair: tuple[str, str]) -> float:
    return ter(pair[0].split(), pair[1].split())


def ter_of_pairs(pairs: Sequence[tuple[str, str]], jobs: int = 1) -> list[float]:
    """TER of (hypothesis, reference) texts, split at blanks; equal pairs are scored once. See `pool.spread`."""
    return spread(_ter_of_texts, pairs, jobs)


def _rates(texts: Texts, jobs: int) -> list[list[float]]:
    """The TER of each input against each of its references."""
    pairs = [(hyp, ref) for hyp, refs in zip(texts.hypotheses, texts.references, strict=True) for ref in refs]
    rates = iter(ter_of_pairs(pairs, jobs))
    return [[next(rates) for _ in refs] for refs in texts.references]


def _lora(corpus: Corpus, groups: Groups) -> list[float]:
    return means([min(rates) for rates in _rates(corpus.normalised, corpus.jobs)], groups)


def _evaluated(corpus: Corpus, groups: Groups) -> list[float]:
    """As eval.py has it where a missing reference is an empty line: that line costs 1, which may be the minimum."""
    rates = _rates(corpus.words, corpus.jobs)
    values = []
    for rows in groups:
        width = max(len(rates[row]) for row in rows)
        best = (min([*rates[row], *([1.0] if len(rates[row]) < width else [])]) for row in rows)
        values.append(sum(best) / len(rows))
    return values


METRICS = [
    Metric(
        "ter",
        _lora,
        lambda: f"ter|text:lower,split-nonword|refs:{MAX_REFERENCES}|min-over-refs|mean|algorithm:pyter3-0.3",
    ),
    Metric(
        "ter_ge",
        _evaluated,
        lambda: (
            f"ter_ge|tok:nltk-words:{words.version()}|refs:{EVALUATED_REFERENCES},missing-1|min-over-refs|mean|"
            "algorithm:pyter3-0.3"
        ),
    ),
]
"""pyter's TER, scale 0 to 1 and above; lower is better."""
