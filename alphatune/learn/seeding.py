"""The random generators of Python, numpy and torch: seeded for a piece of work, and left as they were by another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


def seed(value: int) -> None:
    """Seed all of them, those of GPUs too."""
    from transformers import set_seed

    set_seed(value)


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn or seeded inside the block, what follows it draws as if the block had not been there.

    For work that may be done or found done: nothing after it can then depend on which of the two it was.
    """
    import numpy
    import torch

    python, arrays = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)
