"""Up to how many rows which path is the fastest on this machine: measured once, kept in the cache folder.

Measured are, in turns, the three paths to the same product on random bits of two sizes; the quickest of five times
counts, so other work on the machine disturbs little.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from alphatune.native import machine
from alphatune.packed.kernels import native
from alphatune.quant.grouping import Grouping

LARGE = 1 << 21  # weights from which on a layer counts as large
FEW, MANY = (1, 2, 3, 4), (8, 16, 32, 64, 128, 256, 512)
SMALLEST_GROUP = 24  # below it, words shared between groups cost triples more than they save


@dataclass(frozen=True)
class Limits:
    """The largest number of rows that triples, and above it tiles, are the fastest path for."""

    triples: int
    tiles: int


@functools.cache
def limits(planes: int, large: bool, threads: int) -> Limits:
    """Those of this machine, for layers of so many planes, with so many threads in torch's own products."""
    path = machine.folder() / f"rows-{planes}-{'large' if large else 'small'}-{threads}-{machine.identity()[:24]}.json"
    try:
        kept = json.loads(path.read_text())
        return Limits(min(int(kept["triples"]), FEW[-1]), min(int(kept["tiles"]), MANY[-1]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not measured yet, or not a file of ours
        found = measure(planes, large)
    machine.keep(path, json.dumps({**asdict(found), "cpu": machine.name()}).encode())
    return found


@torch.no_grad()
def measure(planes: int, large: bool) -> Limits:
    """Time the paths against one another."""
    side = 2048 if large else 768
    random = torch.Generator().manual_seed(0)
    copies = [
        torch.randint(-(2**31), 2**31, (side // 32, planes, side), dtype=torch.int32, generator=random)
        for _ in range(2 if large else 4)
    ]
    alpha, grouping = torch.rand(1, planes, side, generator=random), Grouping.of(side, side, None)

    def over(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], None]:
        def run(x: Tensor) -> None:
            for qweight in copies:
                product(x, qweight)

        return run

    def by(kernel: Callable[..., native.Product], rows: int) -> Callable[[Tensor], None]:
        product = kernel(rows, planes, False, grouping)
        return over(lambda x, bits: product(x, bits, alpha, None))

    rebuilt = over(lambda x, bits: x @ native.rebuild(bits, alpha, None, grouping, reuse=True))

    def triples_gain(rows: int) -> float:
        x = torch.randn(rows, side, generator=random)
        return _gain(x, by(native.by_triples, rows), by(native.by_tiles, rows))

    def tiles_gain(rows: int) -> float:
        return _gain(torch.randn(rows, side, generator=random), by(native.by_tiles, rows), rebuilt)

    few = {rows: triples_gain(rows) for rows in FEW if native.permutes()}
    return Limits(_best_limit(few), _best_limit({rows: tiles_gain(rows) for rows in MANY}))


def _best_limit(gains: dict[int, float]) -> int:
    """The number of rows up to which the gains add up to the most: one disturbed measurement does not decide."""
    best, limit, total = 0.0, 0, 0.0
    for rows, gain in gains.items():
        total += gain
        if total > best:
            best, limit = total, rows
    return limit


def _gain(x: Tensor, one: Callable[[Tensor], None], other: Callable[[Tensor], None]) -> float:
    """The logarithm of how many times faster `one` is than `other`, in wall time: threads count for what they save."""
    times: dict[Callable[[Tensor], None], list[float]] = {one: [], other: []}
    for turn in range(6):
        for call in (one, other) if turn % 2 else (other, one):
            started = time.perf_counter()
            call(x)
            times[call].append(time.perf_counter() - started)
    return math.log(min(times[other][1:]) / min(times[one][1:]))
