"""What is released says the same everywhere: versions, locks, licences, the container and the workflow."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from typing import Any

import yaml
from conftest import ROOT

import alphatune

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_the_hashed_lock_is_the_lock_and_every_package_has_hashes() -> None:
    hashed = (ROOT / "requirements.hashes").read_text(encoding="utf-8")
    lock = _pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))

    def same(pins: dict[str, str]) -> dict[str, str]:
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}

    assert len(lock) > 100 and same(_pins(hashed)) == same(lock)
    blocks = re.split(r"\n(?=[\w.-]+==)", hashed.strip())
    assert len(blocks) == len(lock)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)


def test_a_version_is_one_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == PROJECT["version"] == alphatune.__version__ and cited["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format asks for
    assert f"\n## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_package_that_is_needed_has_its_licence_listed() -> None:
    extras = {name: needs for name, needs in PROJECT["optional-dependencies"].items()
              if name not in ("dev", "audit", "docs")}  # fmt: skip
    needed = {re.split(r"[<>=\[]", need)[0] for need in [*PROJECT["dependencies"], *chain(*extras.values())]}
    listed = re.findall(r"^\| ([\w-]+) \|", (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert needed - {"alphatune"} == set(listed) - {"package"} and len(listed) == len(set(listed))
    assert all((ROOT / file).is_file() for file in PROJECT["license-files"])


def test_the_workflow_runs_what_a_contributor_runs_on_every_python_that_is_promised() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["test"]["steps"]] and (ROOT / ".ci" / "run").is_file()
    promised = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if c.startswith("Programming Language")]
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    tests = [part for job in jobs.values() for step in job["steps"] for part in step.get("run", "").split()]
    assert all((ROOT / part).exists() for part in tests if part.startswith("tests/"))


def test_the_container_copies_what_is_there_and_installs_what_is_locked() -> None:
    copied = [name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    built_from = {*wheel["packages"], *wheel["force-include"], *PROJECT["license-files"], PROJECT["readme"]}
    assert built_from <= set(copied)  # or the wheel that is made in it lacks something
    assert "torch" in _pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert PROJECT["scripts"].keys() == {"alphatune"} and 'ENTRYPOINT ["alphatune"]' in DOCKERFILE
    assert re.findall(r"^ARG DEVICE=(\w+)$", DOCKERFILE, re.MULTILINE) == ["cpu"] and " gpu) " in DOCKERFILE


def test_types_are_told_to_those_who_import_the_package() -> None:
    assert (ROOT / "alphatune" / "py.typed").is_file() and "Typing :: Typed" in PROJECT["classifiers"]
