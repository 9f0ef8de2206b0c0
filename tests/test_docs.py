"""The pages say what is there: the picture of the rooms, the paths, the commands, and a page for every room."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT
from test_structure import ROOMS

from alphatune.__main__ import COMMANDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FOLDERS = "alphatune|conf|experiments|tests|examples|benchmarks|docs|results"
_PATH = re.compile(rf"(?<!ENTITY/)\b(?:{_FOLDERS})/[\w./*<>-]*[\w/>*]")  # ENTITY/alphatune: a project of W&B
_MODULE = re.compile(r"python -m (alphatune[\w.]*)")
_COMMAND = re.compile(r"(?:`|^ *(?:\$ )?|[|(&] ?)alphatune ([a-z]+)\b", re.MULTILINE)


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _paths(text: str) -> set[str]:
    """The paths of the repository that a text names; those with a part for the reader to fill in as patterns."""
    return {re.sub(r"<\w+>|\bNAME\b|\bSWEEP\b", "*", path) for path in _PATH.findall(text)}


def _exists(path: str) -> bool:
    return any(ROOT.glob(path.rstrip("/")))


def _commands(text: str) -> set[str]:
    return set(_COMMAND.findall(text))


def test_the_picture_of_the_rooms_is_that_of_the_code() -> None:
    rooms = _script("rooms")
    assert rooms.ROOMS == ROOMS
    assert rooms.draw() == rooms.PICTURE.read_text(encoding="utf-8"), "python docs/rooms.py draws it again"


def test_the_settings_are_those_of_the_schema() -> None:
    settings = _script("settings")
    page = settings.page()
    assert page == settings.PAGE.read_text(encoding="utf-8"), "python docs/settings.py writes it again"
    assert "| `quant.q` | `3` | a whole number from 1 to 8 | bits per weight |" in page
    assert (
        '`decode.stopping` | `length` | one of: length, bound, exact, first | "length" (LoRA)' in page
    )  # from 3 lines


def test_arrows_of_the_picture_are_imports() -> None:
    rooms = _script("rooms")
    assert rooms.arrows("quant") == ["ground", "native"]
    assert rooms.arrows("packed") == ["ground", "store", "native", "quant"]
    assert rooms.arrows("ground") == []
    assert rooms.sign("quant") == "Weight matrices to codes and scales, and back"
    upwards = [(room, other) for room in ROOMS for other in rooms.arrows(room)]
    assert all(ROOMS.index(other) < ROOMS.index(room) for room, other in upwards)
    assert rooms.draw().count("marker-end=") == len(upwards)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    made = ("results/records/", "results/tables/index.html", "results/tables/claims.html")  # by runs and commands
    assert not {path for path in _paths(text) if not path.startswith(made) and not _exists(path)}
    names = {name.replace(".", "/") for name in _MODULE.findall(text)}
    assert not {name for name in names if not _exists(f"{name}.py") and not _exists(f"{name}/__main__.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_without_a_folder_exist(page: Path) -> None:
    """`alphatune/run/sizes.py` of the package, also where only `sizes.py` is said; other projects' scripts excepted."""
    others = {"eval.py", "gpt2_decode.py", "measure_scores.py", "evaluation.py", "prepare_files.py", "pymteval.py"}
    named = set(re.findall(r"(?<![\w/])(\w+\.py)\b", page.read_text(encoding="utf-8")))
    assert not {name for name in named - others if not any((ROOT / f).rglob(name) for f in ("alphatune", "benchmarks"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_names_exist(page: Path) -> None:
    assert _commands(page.read_text(encoding="utf-8")) <= COMMANDS.keys()


def _anchors(text: str) -> set[str]:
    """Where a link into a page can lead: its headings, in lower case with dashes."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_in_the_checkout_and_on_the_site(page: Path) -> None:
    outside = _script("site").outside()
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        if name.startswith(("https:", "http:")):
            continue
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        there = target.relative_to(ROOT).as_posix()
        assert there.startswith("docs/") or there in outside, f"docs/site.py does not bring {link}"
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), link


def test_what_these_tests_look_at_is_found() -> None:
    text = "see `alphatune/gone.py`, `conf/hparams/<task>-x.yaml` and experiments/NAME.yaml\n    alphatune fly --high"
    assert _paths(text) == {"alphatune/gone.py", "conf/hparams/*-x.yaml", "experiments/*.yaml"}
    assert not _exists("alphatune/gone.py") and _exists("experiments/*.yaml")
    assert _commands(text) == {"fly"}
    assert _commands((ROOT / "docs" / "cli.md").read_text(encoding="utf-8")) == COMMANDS.keys()


def test_every_room_and_every_page_is_in_the_site() -> None:
    nav = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if f"'{page}'" not in nav]
    for room in ROOMS[1:]:  # with all their files: show_submodules
        assert f"::: alphatune.{room}\n" in (ROOT / "docs" / "api" / f"{room}.md").read_text(encoding="utf-8")
    ground = (ROOT / "docs" / "api" / "ground.md").read_text(encoding="utf-8")
    files = sorted(path.stem for path in (ROOT / "alphatune").glob("*.py"))
    assert [name for name in files if f"::: alphatune.{name}\n" not in ground] == ["__init__"]
    assert "::: alphatune\n" in ground
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(package.startswith("mkdocs-material") for package in extras["docs"])
