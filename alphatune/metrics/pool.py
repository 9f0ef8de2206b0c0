"""A function of each item, computed once per different item and, where that pays, in worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

FROM = 1000  # items from which starting worker processes pays
CHUNK = 50  # items per message to a worker

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> list[Result]:
    """The results of `function`, which a worker must be able to import, in the order of `items`.

    They do not depend on `jobs`. Workers are spawned, so a script that calls this with `jobs` above 1 needs the usual
    `if __name__ == "__main__"`.
    """
    unique = list(dict.fromkeys(items))
    if jobs <= 1 or len(unique) < FROM or multiprocessing.current_process().daemon:
        results = [function(item) for item in unique]
    else:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as workers:
            results = list(workers.map(function, unique, chunksize=CHUNK))
    known = dict(zip(unique, results, strict=True))
    return [known[item] for item in items]
