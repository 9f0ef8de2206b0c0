"""The house: rooms in order, no circle between rooms or files, each with a door sign; and the rules of every file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "alphatune"

# A room imports only the ground and rooms before it. The command line names its commands by text, so it imports none.
ROOMS = ["ground", "store", "native", "quant", "packed", "hf", "data", "metrics", "learn", "compose", "run", "search",
         "tables", "pages", "tools"]  # fmt: skip
GROUND = {"errors", "terminal", "progress", "ranges", "settings", "config", "groups", "versions",
          "__main__", "score", "table"}  # fmt: skip


def _files() -> dict[str, Path]:
    """Module -> file, of all but the package itself."""
    return {
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p
        for p in PACKAGE.rglob("*.py")
        if p != PACKAGE / "__init__.py"
    }


FILES = _files()


def _room(module: str) -> str:
    head = module.split(".")[0]
    return head if (PACKAGE / head).is_dir() else "ground"


def _imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports, those within functions too."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alphatune":
            inner = (node.module or "").removeprefix("alphatune").removeprefix(".")
            for alias in node.names:
                name = f"{inner}.{alias.name}".removeprefix(".")
                found = name if name in FILES else inner
                if found and found != module:
                    yield found
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("alphatune.") for a in node.names if a.name.startswith("alphatune."))


def _circle(arrows: dict[str, set[str]]) -> list[str]:
    """Names that import one another in a circle; empty if there is none."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if found := follow(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := follow(name, []))), [])


def test_rooms_import_only_rooms_before_them() -> None:
    assert {_room(m) for m in FILES} == set(ROOMS)
    assert {m for m in FILES if _room(m) == "ground"} == GROUND
    wrong = [
        f"{module} imports {other}"
        for module in FILES
        for other in _imports(module)
        if ROOMS.index(_room(other)) > ROOMS.index(_room(module))
    ]
    assert not wrong


def test_no_files_and_no_rooms_import_one_another_in_a_circle() -> None:
    # a room's own __init__ hands on what its files define, so it stands for the room, not for a file
    inside = {m: {o for o in _imports(m) if not m.startswith(f"{o}.") and not o.startswith(f"{m}.")} for m in FILES}
    assert _circle(inside) == []
    rooms: dict[str, set[str]] = {}
    for module, others in inside.items():
        rooms.setdefault(_room(module), set()).update({_room(o) for o in others} - {_room(module)})
    assert _circle(rooms) == []
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def test_every_room_says_what_it_knows() -> None:
    for room in ROOMS[1:]:
        text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert len(re.findall(r"[.:](\s|$)", text)) >= 2, room


def test_a_name_of_a_class_means_one_thing() -> None:
    where: dict[str, list[str]] = {}
    for module, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


# Commands, and what they ask before torch is there: which run, which backbone, which cells; and kernels, which need a
# package that may not be there.
LATE = {
    "learn.models",
    "packed.head",
    "packed.product",
    "quant.alternating",
    "quant.feedback",
    "pages.publish",
    "run.execute",
    "search.search",
    "tables.cells",
    "tables.schedule",
    "tables.values",
}


def test_functions_import_within_themselves_only_where_a_command_must_not_wait() -> None:
    late = set()
    for module in FILES:
        for function in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alphatune")
                for node in ast.walk(function)
            ):
                late.add(module)
    assert {m for m in late if _room(m) != "tools"} == LATE


def test_no_pickle_no_remote_code_no_instantiation_by_name() -> None:
    for path in FILES.values():
        text = path.read_text()
        assert not re.search(
            r"\b(import pickle|torch\.load\(|torch\.save\(|trust_remote_code=True|yaml\.load\()", text
        ), path
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert "_target_" not in path.read_text(), path


def test_public_things_have_docstrings() -> None:
    missing = []
    for module, path in FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            missing.append(module)
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{module}.{node.name}")
    assert not missing


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "tests"])
def test_files_hold_one_noun(folder: Path) -> None:
    limit = 330 if folder == PACKAGE else 620
    long = {p.name: n for p in folder.rglob("*.py") if (n := len(p.read_text().splitlines())) > limit}
    assert not long


def test_tests_stand_in_rooms_of_the_same_names() -> None:
    folders = {p.parent.name for p in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == {*ROOMS[1:], "faults", "integration"}  # what breaks from outside; what runs as a whole
