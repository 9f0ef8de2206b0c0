"""A run on several processes: the first carries it out, the others do their shares and make no artefacts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from alphatune.config import Config
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.learn import batches, predict, ranks
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
    """Do this process's share of one run's work until its leader says that it is over."""
    ranks.take_device()
    logging.getLogger("alphatune").setLevel(logging.ERROR)  # the leader tells
    config.runtime.progress = False
    run: Run | None = None
    while (word := ranks.words.hear()) != ranks.DONE:
        # by now the leader has data, backbone and what it has made: they are read without a turn
        run = run or Run(config, load(config.task, config.data), store=ReadOnly(config.runtime.artifacts))
        if word == ranks.TRAIN:
            model, tokenizer = run.started()
            with contextlib.suppress(UserError):  # a loss that is no number: the leader's to tell
                run.trained(model, tokenizer, batches.Counts())
            del model
        elif word == ranks.VALIDATE:
            with contextlib.suppress(UserError):  # likewise
                run.final_loss()
        elif word == ranks.MEASURE:
            with contextlib.suppress(UserError):
                run.reference_losses(batches.Counts())
        else:
            ranks.words.gathered(_decoded(run))


def _decoded(run: Run) -> str:
    """Decode this process's share; what went wrong is told to the leader, or "" if nothing did."""
    scratch = run.store.scratch("decode", run.plan.decoded)
    try:
        predict.share(*run.final, run.test_examples, run.config, scratch)
    except UserError as error:
        return str(error)
    except OSError as error:
        if told := run.store.trouble(error, scratch):
            return told
        raise
    return ""
