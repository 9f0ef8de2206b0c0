"""What every test shares: one thread, no network, a tiny backbone made once."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
if not Path("/proc/driver/nvidia").exists():  # before anything imports triton, whose kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

SMALL = ["model.tiny.layers=2", "model.tiny.width=32", "model.tiny.heads=2", "model.tiny.vocabulary=300",
         "model.tiny.steps=40", "model.tiny.positions=400", "model.tiny.batch_size=8"]  # fmt: skip
QUICK = [*SMALL, "data.train_limit=24", "data.eval_limit=8", "hparams.epochs=1", "hparams.batch_size=8",
         "decode.beam=2", "decode.max_new_tokens=8", "runtime.progress=false", "runtime.device=cpu"]  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """What a test's command did to the project's log ends with the test."""
    yield
    log = logging.getLogger("alphatune")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that keeps the small backbone for the whole session."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def quick(shared_store: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run that takes a second or two; records go to a folder of the test's own."""
    return [*QUICK, f"runtime.artifacts={shared_store}", f"runtime.records={tmp_path / 'records'}"]
