"""Up to how many rows which path is the fastest on this machine: measured once, kept in the cache folder.

Measured are, in turns, the three paths to the same product on random bits of two sizes, and the product with a dense
weight; the quickest of five times, or of two for many rows, counts, so other work on the machine disturbs little. It
does disturb threads that wait for one another: what was measured with several while the system kept taking processors
away from them serves this process alone.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from alphatune.native import machine
from alphatune.packed.kernels import native
from alphatune.quant.grouping import Grouping
from alphatune.store import cache

LARGE = 1 << 21  # weights from which on a layer counts as large
FEW, MANY = (1, 2, 3, 4, 6, 8), (16, 32, 64, 128, 256, 512)
FEW_ENOUGH = 16  # rows up to which reading weights is what counts
SIZES = (8, 16, 32, 64)  # group sizes that stand for those up to the next; then whole rows
DISTURBED = 50  # times a second that a thread loses its processor: below 20 on a quiet machine, above 75 on a busy one
CACHE = 64 << 20  # bytes of dense weights that do not stay in a cache from one call to the next, as a model's do not


@dataclass(frozen=True)
class Limits:
    """The largest number of rows that lookups, and above it tiles, are the fastest path for, and where none is fast.

    At the measured numbers of rows in `slow`, every path takes longer than the dense product.
    """

    lookup: int
    tiles: int
    slow: tuple[int, ...] = ()

    def want_dense(self, rows: int) -> bool:
        """Whether so many rows want a dense weight: as the next larger number that was measured."""
        return next((measured for measured in (*FEW, *MANY) if measured >= rows), MANY[-1]) in self.slow


def limits_for(planes: int, grouping: Grouping, threads: int) -> Limits:
    """Those of this machine for layers of so many planes and such groups, with so many threads in torch's products."""
    standing = max((size for size in SIZES if size <= grouping.size), default=SIZES[0])
    size = None if grouping.size >= 2 * SIZES[-1] else standing
    return limits(planes, grouping.rows * grouping.columns >= LARGE, threads, size)


@functools.cache
def limits(planes: int, large: bool, threads: int, size: int | None) -> Limits:
    """Those for groups of `size` weights, or for whole rows."""
    path = machine.folder() / (
        f"rows-{planes}-{'large' if large else 'small'}-{threads}-g{size or 'row'}-{machine.identity()[:24]}.json"
    )
    try:
        kept = json.loads(path.read_text())
        lookup, tiles = min(int(kept["lookup"]), FEW[-1]), min(int(kept["tiles"]), MANY[-1])
        return Limits(lookup, tiles, tuple(map(int, kept["slow"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not measured yet, or not a file of ours
        before = _so_far()
        found = measure(planes, large, size)
        seconds, taken = (now - then for now, then in zip(_so_far(), before, strict=True))
    if threads == 1 or taken <= DISTURBED * threads * seconds:
        cache.keep(path, json.dumps({**asdict(found), "cpu": machine.name()}).encode())
    return found


def _so_far() -> tuple[float, int]:
    """Seconds, and how often the system has given this process's processors to others; 0 where it does not tell."""
    if importlib.util.find_spec("resource") is None:  # Windows
        return time.perf_counter(), 0
    import resource

    return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


_REAL: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are: kernels read it


@torch.no_grad()
def measure(planes: int, large: bool, size: int | None) -> Limits:
    """Time the paths against one another."""
    side = 2048 if large else 768
    random = torch.Generator().manual_seed(0)
    copies = [
        torch.randint(-(2**31), 2**31, (side // 32, planes, side), dtype=torch.int32, generator=random, device="cpu")
        for _ in range(CACHE // (4 * side * side))
    ]
    some = 2 if large else 4
    grouping = Grouping.of(side, side, size)
    layers = [(bits, torch.rand(grouping.per_row, planes, side, generator=random, **_REAL)) for bits in copies]

    def over(product: Callable[[Tensor, Tensor, Tensor], Tensor], all_copies: bool = False) -> Callable[[Tensor], None]:
        def run(x: Tensor) -> None:
            for layer in layers if all_copies else layers[:some]:
                product(x, *layer)

        return run

    def by(kernel: Callable[..., native.Product], rows: int, all_copies: bool = False) -> Callable[[Tensor], None]:
        product = kernel(rows, planes, False, grouping)
        return over(lambda x, bits, alpha: product(x, bits, alpha, None), all_copies)

    rebuilt = over(lambda x, bits, alpha: x @ native.rebuild(bits, alpha, None, grouping, reuse=True))

    def gain(rows: int, one: Callable[[Tensor], None], other: Callable[[Tensor], None]) -> float:
        return _gain(torch.randn(rows, side, generator=random, **_REAL), one, other)

    few = FEW if native.registers() and grouping.size >= native.SMALLEST_GROUP else ()
    lookup = _best_limit({rows: gain(rows, by(native.by_lookup, rows), by(native.by_tiles, rows)) for rows in few})
    tiles = _best_limit({rows: gain(rows, by(native.by_tiles, rows), rebuilt) for rows in (1, FEW[-1], *MANY)})
    weights = [native.rebuild(*layer, None, grouping, reuse=False).T.contiguous() for layer in layers]

    def over_dense(rows: int) -> float:
        def dense(x: Tensor) -> None:
            for weight in weights if rows <= FEW_ENOUGH else weights[:some]:
                linear(x, weight)

        fastest = native.by_lookup if rows <= lookup else native.by_tiles
        ours = by(fastest, rows, rows <= FEW_ENOUGH) if rows <= max(lookup, tiles) else rebuilt
        return gain(rows, ours, dense)

    # a dense weight costs memory, so one disturbed measurement must not ask for it
    slow = [n for n in (*FEW, *MANY) if median(over_dense(n) for _ in range(3)) < 0]
    return Limits(lookup, tiles, tuple(slow))


def _best_limit(gains: dict[int, float]) -> int:
    """The number of rows up to which the gains add up to the most: one disturbed measurement does not decide."""
    best, limit, total = 0.0, 0, 0.0
    for rows, gain in gains.items():
        total += gain
        if total > best:
            best, limit = total, rows
    return limit


def _gain(x: Tensor, one: Callable[[Tensor], None], other: Callable[[Tensor], None]) -> float:
    """The logarithm of how many times faster `one` is than `other`: in time of this thread, which other work disturbs
    less, or where torch has more threads in wall time: they count for what they save."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[Callable[[Tensor], None], list[float]] = {one: [], other: []}
    for turn in range(6 if len(x) <= 128 else 3):  # long products are disturbed less
        for call in (one, other) if turn % 2 else (other, one):
            started = clock()
            call(x)
            times[call].append(clock() - started)
    return math.log(min(times[other][1:]) / min(times[one][1:]))
