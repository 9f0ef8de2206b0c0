"""torchrun: one run on two processes has the losses of one process at the same global batch, and one writer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from alphatune.run.execute import main

HERE = Path(__file__).parent
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--master-port",
    "0",
    "--standalone",
]


def together(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command on two processes that meet on this machine."""
    alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, timeout=300,
                          env=alone | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})  # fmt: skip


@pytest.mark.slow
def test_every_method_has_the_losses_of_one_process(tmp_path: Path) -> None:
    out = tmp_path / "losses.json"
    golden = json.loads((ROOT / "tests" / "goldens" / "losses.json").read_text())
    done = together(str(HERE / "trained_together.py"), str(out), str(tmp_path / "scratch"), ",".join(golden))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found.keys() == golden.keys() and all(len(losses) == 20 for losses in found.values())
    for method, losses in golden.items():  # sums in another order: float32 rounding, grown over 20 steps
        assert found[method] == pytest.approx(losses, abs=2e-5), method


@pytest.mark.slow
def test_a_model_in_parts_has_the_losses_of_a_whole_one(tmp_path: Path) -> None:
    out = tmp_path / "losses.json"
    golden = json.loads((ROOT / "tests" / "goldens" / "losses.json").read_text())["full_ft"]
    script = [str(HERE / "trained_together.py"), str(out), str(tmp_path / "scratch"), "full_ft", "runtime.shard=true"]
    done = together(*script)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["full_ft"] == pytest.approx(golden, abs=2e-5)


@pytest.mark.slow
def test_a_run_in_parts_is_stopped_and_continued_and_leaves_whole_weights(quick: list[str], tmp_path: Path) -> None:
    """Its adapter is that of one process, also when it continues from a checkpoint, which one process can do too."""
    places = [o for o in quick if not o.startswith("runtime.artifacts=")]
    asked = ["method=full_ft", "trainer.max_steps=6", "trainer.evals=6", "trainer.saves=2", "hparams.batch_size=4",
             "hparams.max_grad_norm=1", "decode.batch_size=2"]  # fmt: skip

    def call(name: str) -> list[str]:
        return [*places, *asked, f"runtime.artifacts={tmp_path / name}", f"runtime.records={tmp_path / name}-records"]

    assert main(call("one")) == 0
    (tmp_path / "stop.py").write_text(_STOP)
    assert together(str(tmp_path / "stop.py"), *call("parts"), "runtime.shard=true").returncode != 0
    (_,) = (tmp_path / "parts" / "adapt").glob("*.partial/checkpoint-4")
    shutil.copytree(tmp_path / "parts", tmp_path / "alone")
    done = together("-m", "alphatune.run", *call("parts"), "runtime.shard=true")
    assert done.returncode == 0 and "adapt: continuing from step 4" in done.stderr, done.stderr
    assert main(call("alone")) == 0  # from the checkpoint of two
    expected = _tensors(tmp_path / "one" / "adapt")
    for name in ("parts", "alone"):
        found = _tensors(tmp_path / name / "adapt")
        assert found.keys() == expected.keys()
        assert all(t.shape == expected[n].shape and torch.allclose(t, expected[n], atol=1e-4) for n, t in found.items())
    parts, one = _record(tmp_path / "parts-records"), _record(tmp_path / "one-records")
    assert parts["run_id"] == one["run_id"] and parts["environment"]["shard"] is True
    for curve in ("train", "validation"):
        assert [v for _, v in parts["curves"][curve]] == pytest.approx([v for _, v in one["curves"][curve]], abs=2e-5)


_STOP = """
import os, sys
from transformers import TrainerCallback
from alphatune.learn import train
from alphatune.run.execute import main

class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        if state.global_step == 5:
            os._exit(1)

train.Shown.on_step_end = Stop.on_step_end
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["alphatuning", "ptq_w_plus_lora"])
def test_a_run_on_two_processes_is_that_of_one(method: str, quick: list[str], tmp_path: Path) -> None:
    places = [o for o in quick if not o.startswith("runtime.artifacts=")]
    asked = [f"method={method}", "trainer.max_steps=5", "trainer.evals=5", "trainer.saves=2", "seed=5",
             "hparams.batch_size=5"]  # fmt: skip

    def call(name: str) -> list[str]:
        return [*places, *asked, f"runtime.artifacts={tmp_path / name}", f"runtime.records={tmp_path / name}-records"]

    done = together("-m", "alphatune.run", *call("two"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nrecord: ") == 1 and done.stderr.count("adapt     made") == 1  # one tells
    assert main(call("one")) == 0
    two, one = _record(tmp_path / "two-records"), _record(tmp_path / "one-records")
    assert two["run_id"] == one["run_id"] and two["environment"]["processes"] == 2
    assert "processes" not in one["environment"]
    for curve in ("train", "validation"):
        assert [s for s, _ in two["curves"][curve]] == [s for s, _ in one["curves"][curve]]
        assert [v for _, v in two["curves"][curve]] == pytest.approx([v for _, v in one["curves"][curve]], abs=2e-5)
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=2e-5)
    assert two["scores"].keys() == one["scores"].keys()
    adapters = [_tensors(tmp_path / name / "adapt") for name in ("two", "one")]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.allclose(t, adapters[1][name], atol=1e-4) for name, t in adapters[0].items())
    files = [sorted(p.relative_to(tmp_path / n).as_posix() for p in (tmp_path / n).rglob("*")) for n in ("two", "one")]
    assert files[0] == files[1]  # nothing is left of the second process


@pytest.mark.slow
def test_validation_and_decoding_on_two_processes_have_the_bytes_of_one(quick: list[str], tmp_path: Path) -> None:
    places = [o for o in quick if not o.startswith("runtime.artifacts=")]

    def call(name: str) -> list[str]:
        own = [f"runtime.artifacts={tmp_path / name}", f"runtime.records={tmp_path / name}-records"]
        metrics = "task.metrics=[bleu,meteor,ter,loss]"
        return [*places, "method=lora", "trainer.max_steps=5", "decode.batch_size=2", metrics, *own]

    assert main(call("one")) == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for stage in ("evaluate", "measure", "decode", "score"):
        shutil.rmtree(tmp_path / "two" / stage)
    done = together("-m", "alphatune.run", *call("two"))
    assert done.returncode == 0, done.stderr
    assert [done.stderr.count(f"{stage} made ") for stage in ("evaluate ", "decode   ", "adapt    ")] == [1, 1, 0]
    kept = [{p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()
             and p.suffix != ".lock"} for n in ("one", "two")]  # fmt: skip
    assert kept[0] == kept[1]


def test_torchrun_of_anything_else_is_refused_once(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from alphatune.__main__ import main as command

    for name, value in {"MASTER_ADDR": "localhost", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        for call, said in ((["table", "demo"], "--jobs N"), (["run", "-m", "seed=0,1"], "leave torchrun away")):
            assert command(call) == 2
            told = capsys.readouterr().err
            assert told.count("error: torchrun carries out one") == lines == told.count("\n")
            assert said in told or not lines


def _record(folder: Path) -> dict[str, Any]:
    (found,) = folder.rglob("*.json")
    return json.loads(found.read_text(encoding="utf-8"))


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    (found,) = folder.rglob("*.safetensors")
    return load_file(found)
