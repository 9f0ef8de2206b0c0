"""A run on several processes: the first carries it out, the others take part in its training and write nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from alphatune.config import Config
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.learn import batches, ranks
from alphatune.run.pipeline import Run
from alphatune.store import ReadOnly


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """A block of the first process, at whose end the others are told that this run is over."""
    ranks.take_device()
    try:
        yield
    finally:
        ranks.words.say(ranks.DONE)


def follow(config: Config) -> None:
    """Take part in the trainings of one run until its leader says that it is over."""
    ranks.take_device()
    logging.getLogger("alphatune").setLevel(logging.ERROR)  # the leader tells
    config.runtime.progress = False
    while ranks.words.hear() == ranks.TRAIN:
        # by now the leader has data, backbone and codes: they are read without a turn
        run = Run(config, load(config.task, config.data), store=ReadOnly(config.runtime.artifacts))
        model, tokenizer = run.started()
        with contextlib.suppress(UserError):  # a loss that is no number: the leader's to tell
            run.trained(model, tokenizer, batches.Counts())
