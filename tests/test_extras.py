"""The library without the packages of the experiments: it works, and a command that lacks one says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.__main__ import COMMANDS, EXTRAS

# An interpreter in which the modules of the extras cannot be found, as in an environment without them.
HIDING = """
import sys
from importlib.machinery import PathFinder
hidden = set(sys.argv.pop(1).split(","))
class Hiding:
    find_distributions = PathFinder.find_distributions
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding if f is PathFinder else f for f in sys.meta_path]
from alphatune.__main__ import main
"""
# torch and transformers bring these themselves
THEIRS = {"filelock", "jinja2", "yaml", "requests"}


def run(hidden: set[str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDING + code, ",".join(sorted(hidden)), *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


ALL = set().union(*EXTRAS.values()) - THEIRS

USE = """
from pathlib import Path
from toy_checkpoint import write_dense
folder = Path(sys.argv[1])
write_dense(folder / "dense")
dense, packed, out = (str(folder / name) for name in ("dense", "packed", "out"))
for argv in (
    ["quantize", dense, packed, "--bits", "2"], ["inspect", packed],
    ["generate", dense, "--prompt", "a", "--max-new-tokens", "2"], ["export", packed, out, "--to", "dense"],
):
    assert main(argv) == 0, argv
print("done")
"""


def test_checkpoints_are_quantised_and_used_without_any_extra(tmp_path: Path) -> None:
    done = run(ALL, USE, tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "done", done.stderr


@pytest.mark.parametrize(("command", "hidden"), [
    (["run"], "hydra"), (["table", "demo", "--plan"], "omegaconf"), (["score", "--task", "toy"], "omegaconf"),
    (["search", "toy-tiny-alphatuning"], "optuna"),
])  # fmt: skip
def test_a_command_that_lacks_its_extra_says_what_to_install(command: list[str], hidden: str, tmp_path: Path) -> None:
    more = [f"runtime.records={tmp_path}"] if command == ["run"] else []
    done = run({hidden}, "sys.exit(main(sys.argv[1:]))", *command, *more)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    extra = next(name for name, modules in EXTRAS.items() if hidden in modules)
    assert f"pip install 'alphatune[{extra}]'" in done.stderr and command[0] in COMMANDS


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) <= set(project["optional-dependencies"])
    named = " ".join(project["optional-dependencies"]["experiments"]).replace("-", "_").lower()
    modules = {"hydra": "hydra_core", "sklearn": "scikit_learn", "pyter": "pyter3", "yaml": "pyyaml"}
    assert all(modules.get(m, m) in named for m in EXTRAS["experiments"])
