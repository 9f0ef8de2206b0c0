"""The examples run without arguments or network, and what they print is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FACTS = {
    "quantize_and_adapt": [r"8 layers in 3 bits", r"loss \d+\.\d+ -> \d+\.\d+", r"after loading: True"],
    "two_adapters": [r"weather: switched in .* best at weather", r"kitchen: switched in .* best at kitchen",
                     r"adapter kitchen: \d+ bytes"],
    "peqa": [r"\d+ step sizes trained: loss", r"8 layers merged, codes unchanged: True"],
    "lut_gemm_export": [r"8 layers, \d+ bytes", r"kernel-ready layers: 8", r"weights: \d\.\de-0[6-9]|weights: 0\.0"],
}  # fmt: skip


def test_every_example_is_tested() -> None:
    assert {p.stem for p in (ROOT / "examples").glob("*.py")} == {*FACTS, "toy"}


@pytest.mark.parametrize("name", FACTS)
def test_an_example_runs_offline_and_says_what_it_should(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for fact in FACTS[name]:
        assert re.search(fact, done.stdout), done.stdout
    for first, last in re.findall(r"loss (\d+\.\d+) -> (\d+\.\d+)", done.stdout):
        assert float(last) < float(first)
    assert not list(tmp_path.iterdir())  # nothing is left behind
