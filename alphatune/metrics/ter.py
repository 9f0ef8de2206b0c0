"""Translation edit rate as the WebNLG and DART scorers compute it: pyter's algorithm, exactly, but much faster.

TER of one pair = (block shifts + word edits) / reference length. pyter looks for shifts greedily: of all moves of a
run of matching words it takes the one that lowers the edit distance most, among equals the one whose shifted word list
sorts last, until no move helps. The value of a corpus is the mean over inputs of the minimum over references.

Three things make it fast without changing a digit. The moves of all pairs are tried side by side: numpy holds one
bit-parallel column of edit distances (Hyyro 2003) for each. A shift keeps the bag of words, so no candidate can get
below the bag distance: once that is reached, the search is over. And only the closest reference counts, so a pair that
can at best equal another reference of its input is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from alphatune.metrics.corpus import EVALUATED_REFERENCES, MAX_REFERENCES, Corpus, Texts
from alphatune.metrics.metric import Groups, Metric, means
from alphatune.metrics.outside import words

INPUTS = 500  # inputs whose references are searched side by side
MOVES = 4096  # columns side by side: as many as stay in the first caches
WORD = 63  # reference words whose bits fit into one machine word; longer ones take Python's numbers

Move = tuple[int, int, int, int]  # place of the pair; the run's start, its start once moved, its length


class _Pair:
    """A hypothesis on its way to one reference."""

    def __init__(self, owner: int, words: list[str], target: list[str]) -> None:
        self.owner, self.words, self.target = owner, words, target  # owner: the input's place
        self.floor = max(len(words), len(target)) - sum((Counter(words) & Counter(target)).values())
        self.places: dict[str, list[int]] = {}  # no order of these words is closer than `floor`
        for place, word in enumerate(target):
            self.places.setdefault(word, []).append(place)
        self.bits = {word: sum(1 << place for place in places) for word, places in self.places.items()}
        self.shifts = 0
        self.distance = 0

    def rate(self) -> float:
        """What TER is if no shift helps; a further one cannot make it worse."""
        return (self.shifts + self.distance) / len(self.target)

    def reach(self) -> float:
        """What TER is at best, after one more shift."""
        return (self.shifts + min(self.distance, 1 + self.floor)) / len(self.target)

    def moves(self, number: int) -> list[Move]:
        """The longest equal run from each pair of positions, to where the reference has it."""
        found, below, count = [], dict[int, int](), len(self.words)
        for i in reversed(range(count)):
            below = {j: below.get(j + 1, 0) + 1 for j in self.places.get(self.words[i], ())}
            # past the end: appended, as pyter does
            found += [(number, i, min(j, count - length), length) for j, length in below.items() if j != i]
        return found

    def moved(self, move: Move) -> list[str]:
        """The words after a move."""
        _, i, j, length = move
        rest = self.words[:i] + self.words[i + length :]
        return rest[:j] + self.words[i : i + length] + rest[j:]


def ter(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """TER of one word list against one reference; equals `pyter.ter(hypothesis, reference)`.

    An empty reference scores 1, as in the WebNLG scorer (pyter itself divides by zero there).
    """
    return _closest([(list(hypothesis), [list(reference)])])[0]


def closest(texts: Texts) -> list[float]:
    """The least TER of each input over its references, split at blanks."""
    inputs = [
        (hypothesis.split(), [ref.split() for ref in refs])
        for hypothesis, refs in zip(texts.hypotheses, texts.references, strict=True)
    ]
    return [rate for k in range(0, len(inputs), INPUTS) for rate in _closest(inputs[k : k + INPUTS])]


def _closest(inputs: Sequence[tuple[list[str], list[list[str]]]]) -> list[float]:
    best = [1.0 if [] in references else float("inf") for _, references in inputs]
    pairs = [_Pair(i, words, ref) for i, (words, references) in enumerate(inputs) for ref in references if ref]
    pairs.sort(key=lambda pair: -len(pair.words))
    parts = [[pair for pair in pairs if (len(pair.target) > WORD) == wide] for wide in (False, True)]
    for part in parts:
        for pair, distance in zip(part, _distances(part, [(k, 0, 0, 0) for k in range(len(part))]), strict=True):
            pair.distance = int(distance)
    while any(parts):
        for pair in (pair for part in parts for pair in part):
            best[pair.owner] = min(best[pair.owner], pair.rate())
        parts = [_shifted([pair for pair in part if pair.reach() < best[pair.owner]]) for part in parts]
    return best


def _shifted(pairs: list[_Pair]) -> list[_Pair]:
    """The pairs that a move brings closer, with their best one made."""
    tried = [(pair, moves) for pair in pairs if (moves := pair.moves(0))]
    pairs = [pair for pair, _ in tried]
    rows = [(number, *move[1:]) for number, (_, moves) in enumerate(tried) for move in moves]
    distances = _distances(pairs, rows)
    closer, start = [], 0
    for pair, moves in tried:
        reached = distances[start : start + len(moves)]
        start += len(moves)
        lowest = int(reached.min())
        if lowest < pair.distance:
            pair.words = max(pair.moved(moves[k]) for k in np.flatnonzero(reached == lowest))
            pair.distance, pair.shifts = lowest, pair.shifts + 1
            closer.append(pair)
    return closer


def _distances(pairs: Sequence[_Pair], moves: Sequence[Move]) -> np.ndarray:
    """The edit distance of each move's pair once it is made. Pairs with more words come first; none or all are wide."""
    rows = np.array(moves, dtype=np.int64).reshape(-1, 4)
    blocks = [rows[start : start + MOVES] for start in range(0, len(rows), MOVES)]
    found = [_columns(pairs[b[0, 0] : b[-1, 0] + 1], b - [b[0, 0], 0, 0, 0]) for b in blocks]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _columns(pairs: Sequence[_Pair], rows: np.ndarray) -> np.ndarray:
    """`_distances` of one block."""
    kind = object if any(len(pair.target) > WORD for pair in pairs) else np.uint64
    lengths = np.array([len(pair.words) for pair in pairs])
    equal = np.zeros((len(pairs), max(1, lengths[0])), dtype=kind)  # [pair, word]: where the reference has it
    for pair, row in zip(pairs, equal, strict=True):
        row[: len(pair.words)] = [pair.bits.get(word, 0) for word in pair.words]
    owner, i, j, length = rows.T[:, :, None]
    at = np.arange(equal.shape[1])
    before = np.where((at >= i) & (at < j), at + length, at)
    before = np.where((at >= j + length) & (at < i + length), at - length, before)
    before = np.where((at >= j) & (at < j + length), at - j + i, before)  # the place that a word comes from
    words = np.ascontiguousarray(equal[owner, before].T)  # [word, row]
    owner = owner[:, 0]
    distance = np.array([len(pair.target) for pair in pairs])[owner]
    full = np.array([(1 << len(pair.target)) - 1 for pair in pairs], dtype=kind)[owner]
    last = np.array([1 << (len(pair.target) - 1) for pair in pairs], dtype=kind)[owner]
    up, down = full.copy(), np.zeros_like(full)
    counts = (lengths[owner] > at[:, None]).sum(1)  # of the rows that have so many words; they come first
    for same, n in zip(words, counts.tolist(), strict=True):
        same, u, d, f, top = same[:n], up[:n], down[:n], full[:n], last[:n]
        diagonal = (((same & u) + u) ^ u) | same | d
        right_up = d | (f & ~(diagonal | u))
        right_down = u & diagonal
        distance[:n] += ((right_up & top) != 0).astype(np.int64) - ((right_down & top) != 0)
        right_up = (right_up << 1 | 1) & f  # the 1: deleting one more hypothesis word costs one
        right_down = right_down << 1 & f
        up[:n] = right_down | (f & ~(diagonal | right_up))
        down[:n] = right_up & diagonal
    return distance


def _lora(corpus: Corpus, groups: Groups) -> list[float]:
    return means(closest(corpus.normalised), groups)


def _evaluated(corpus: Corpus, groups: Groups) -> list[float]:
    """As eval.py has it where a missing reference is an empty line: that line costs 1, which may be the minimum."""
    rates, references = closest(corpus.words), corpus.words.references
    values = []
    for rows in groups:
        width = max(len(references[row]) for row in rows)
        best = (min(rates[row], 1.0) if len(references[row]) < width else rates[row] for row in rows)
        values.append(sum(best) / len(rows))
    return values


METRICS = [
    Metric(
        "ter",
        _lora,
        lambda: f"ter|text:lower,split-nonword|refs:{MAX_REFERENCES}|min-over-refs|mean|algorithm:pyter3-0.3",
        summed=True,
    ),
    Metric(
        "ter_ge",
        _evaluated,
        lambda: (
            f"ter_ge|tok:nltk-words:{words.version()}|refs:{EVALUATED_REFERENCES},missing-1|min-over-refs|mean|"
            "algorithm:pyter3-0.3"
        ),
        summed=True,
    ),
]
"""pyter's TER, scale 0 to 1 and above; lower is better."""
