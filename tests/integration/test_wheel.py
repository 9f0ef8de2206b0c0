"""The wheel in an environment of its own: a run ends in a record outside a checkout, with its own files read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from alphatune import groups

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode and "hatchling" in done.stdout + done.stderr:
        pytest.skip("the build backend, hatchling, cannot be fetched here")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_all_that_a_run_reads(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"alphatune/{p.relative_to(ROOT).as_posix()}" for folder in (groups.folder(), groups.experiments())
               for p in folder.rglob("*.yaml")}  # fmt: skip
    weights = {p.relative_to(ROOT).as_posix() for p in (ROOT / "alphatune" / "learn" / "weights").rglob("*.*")}
    assert len(configs) > 60 and len(weights) > 4
    assert configs | weights | {"alphatune/py.typed"} <= held
    assert [name.rsplit("/", 1)[-1] for name in sorted(held) if "/licenses/" in name] == ["LICENSE", "THIRD_PARTY.md"]
    assert not [name for name in held if "/tests/" in name or name.startswith(("tests", "conf/", "experiments/"))]


def test_an_installed_wheel_runs_outside_a_checkout_and_read_only(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    packages = next(environment.glob("lib/python3*/site-packages"))
    # what it needs is taken from here: the wheel alone is new
    (packages / "others.pth").write_text(f"{Path(torch.__file__).resolve().parents[1]}\n")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
                    "--no-index", str(wheel)], check=True)  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)  # a project of the user's around it
    before = sorted(p for p in packages.rglob("*"))
    command = [str(environment / "bin" / "alphatune"), "run", "experiment=smoke", "runtime.device=cpu"]
    kept_out = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    variables = {k: v for k, v in os.environ.items() if k not in kept_out} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*_read_only(packages), *command], cwd=elsewhere, env=variables,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = list((elsewhere / "results" / "records").rglob("*.json"))
    assert len(records) == 1
    made = json.loads(records[0].read_text(encoding="utf-8"))
    assert made["status"] == "completed" and made["validation_loss"] > 0 and made["scores"]["all"]["bleu"]["value"] > 0
    assert made["git"] == {"commit": None, "dirty": None}  # not that of the repository it is installed in
    assert sorted(p.name for p in elsewhere.iterdir()) == ["outputs", "results"]
    assert sorted(p for p in packages.rglob("*")) == before
    where = "import alphatune; print(alphatune.__file__)"
    found = subprocess.run([str(python), "-c", where], cwd=elsewhere, env=variables, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(packages)


def _read_only(folder: Path) -> list[str]:
    """What to put before a command that shall not be able to write to `folder`: rights do not bind root, mounts do."""
    if os.geteuid() != 0:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        return []
    bound = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", bound, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("root without the right to mount: nothing here can be made read-only")
    return command
