"""The house rules that can be read off the source: one-way flow, no pickle, no foreign code, small files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "alphatune"

# A module may import those of earlier lines only.
FLOW = [
    ["errors"],
    ["ranges", "groups"],
    ["settings"],
    ["terminal"],
    ["data.example"],
    ["config"],
    ["artifacts"],
    ["data", "metrics"],
    ["quoting", "hparams"],
    ["sources"],
    ["compose", "experiment", "sweep", "grid", "formats"],
    ["packing", "grouping", "bcq", "uniform"],
    ["weighted"],
    ["calibrated"],
    ["calibration"],
    ["layers"],
    ["quantize"],
    ["packed_lora"],
    ["hub", "tuner"],
    ["packed_file", "tiny"],
    ["models", "batches"],
    ["methods", "loss", "decode"],
    ["checkpoints"],
    ["outputs"],
    ["sizes", "train", "predict"],
    ["compression", "generation", "inspection", "export"],
    ["identity"],
    ["pipeline", "record", "track", "push"],
    ["preflight_model"],
    ["preflight"],
    ["run", "values", "card"],
    ["package"],
    ["aggregate", "cells"],
    ["tabulate", "schedule", "slurm"],
    ["render_layout", "plots_style"],
    ["render_markdown", "render_latex", "render_csv", "plots_bcq"],
    ["render", "plots", "report"],
    ["verdicts"],
    ["claims"],
    ["publish"],
    ["table", "score", "search", "completion"],
    ["cli"],
]
ORDER = {name: i for i, names in enumerate(FLOW) for name in names}


def _place(module: str) -> int:
    name = module.removeprefix("alphatune.").removeprefix("alphatune")
    if name in ORDER:
        return ORDER[name]
    return ORDER[name.split(".")[0]]


def _modules() -> dict[str, ast.Module]:
    return {
        "alphatune." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts): ast.parse(p.read_text())
        for p in PACKAGE.rglob("*.py")
        if p != PACKAGE / "__init__.py"
    }


def test_no_module_imports_one_that_stands_later_in_the_flow() -> None:
    wrong = []
    for module, tree in _modules().items():
        module = module.removesuffix(".__init__")
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alphatune"):
                known = [f"{node.module}.{a.name}".removeprefix("alphatune.") for a in node.names]
                names = [f"alphatune.{n}" if n.split(".")[0] in ORDER and node.module == "alphatune" else node.module
                         for n in known]  # fmt: skip
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names if a.name.startswith("alphatune.")]
            for name in names:
                if name and name != "alphatune" and _place(name) > _place(module):
                    wrong.append(f"{module} imports {name}")
    assert not wrong


def test_every_module_has_a_place_in_the_flow() -> None:
    for module in _modules():
        _place(module.removesuffix(".__init__"))


def test_no_pickle_no_remote_code_no_instantiation_by_name() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(
            r"\b(import pickle|torch\.load\(|torch\.save\(|trust_remote_code=True|yaml\.load\()", text
        ), path
    for path in (PACKAGE.parent / "conf").rglob("*.yaml"):
        assert "_target_" not in path.read_text(), path


def test_public_things_have_docstrings() -> None:
    missing = []
    for module, tree in _modules().items():
        if not ast.get_docstring(tree):
            missing.append(module)
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{module}.{node.name}")
    assert not missing


def test_files_hold_one_noun() -> None:
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 320}
    assert not long
