"""What code the result of each stage depends on, as hashes: `make stages` writes them to stages.json.

A stage's code is its entry modules and all of the package that they import, less docstrings, comments and imports, so
that moving or explaining code changes nothing. `test_versions.py` compares.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "alphatune"
STORED = Path(__file__).with_name("stages.json")

# Where the work of a stage begins.
ENTRIES = {
    "data": ["data.load", "data.toy", "data.webnlg", "data.dart", "data.e2e", "data.samsum", "data.glue", "data.own"],
    "backbone": ["learn.tiny"],
    "quantize": ["packed.disk", "learn.batches", "learn.models"],
    "adapt": ["learn.train", "learn.methods", "learn.models"],
    "evaluate": ["learn.train", "learn.methods", "learn.models"],
    "decode": ["learn.predict", "learn.methods", "learn.models"],
    "score": ["metrics"],
}
RUN = {"quantize", "adapt", "evaluate", "decode", "score"}  # stages whose inputs the pipeline chooses and orders
# They carry results about, say things, or are told apart by a key of their own; they decide no value.
ASIDE = {"errors", "terminal", "progress", "versions", "config", "settings", "ranges", "groups", "hf.hub",
         "learn.resume", "learn.partial", "learn.embedded", "data.remote.download", "data.remote.catalogue",
         "data.remote.files"}  # fmt: skip
# Code whose result has a number, and a part in the keys, of its own.
OWNERS = {"data": "data", "metrics": "score", "learn.tiny": "backbone"}
# Tests whose golden values or references fix what the stages give.
GOLDEN = ["tests/learn", "tests/quant", "tests/packed/test_linear.py", "tests/data/test_real.py",
          *(f"tests/metrics/test_{name}.py" for name in ("goldens", "bleu", "ter", "nist", "labels"))]  # fmt: skip


_NOTHING = "Module(body=[Pass()], type_ignores=[])"  # a room's __init__


def files_of(stage: str) -> dict[str, str]:
    """Module -> hash of its code, for all modules that the stage's result depends on."""
    found: dict[str, str] = {}
    todo = list(ENTRIES[stage])
    if stage in RUN:
        found["run.pipeline"] = _hash(_code(ast.parse((PACKAGE / "run" / "pipeline.py").read_text(encoding="utf-8"))))
    while todo:
        name = todo.pop()
        path = _path(name)
        owner = next((o for part, o in OWNERS.items() if f"{name}.".startswith(f"{part}.")), stage)
        if path is None or name in found or name in ASIDE or name.split(".")[0] == "store" or owner != stage:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += _imports(tree)
        code = _code(tree)
        if code != _NOTHING:
            found[name] = _hash(code)
    return dict(sorted(found.items()))


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _path(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alphatune":
            inner = (node.module or "").removeprefix("alphatune").removeprefix(".")
            names += [inner, *(f"{inner}.{a.name}".removeprefix(".") for a in node.names)]
    return [n for n in names if n]


def _code(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not _says_nothing(n)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _says_nothing(node: ast.AST) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Import | ast.ImportFrom)


def main() -> int:
    """Write stages.json; stages whose code changed under the same number need the golden tests to pass."""
    sys.path.insert(0, str(ROOT))
    from alphatune.versions import VERSIONS

    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    now = {stage: {"number": VERSIONS[stage], "files": files_of(stage)} for stage in ENTRIES}
    kept = [s for s in now if s in stored and stored[s] != now[s] and stored[s]["number"] == now[s]["number"]]
    if kept:
        print(f"code changed under the same number: {', '.join(kept)}; running the golden tests", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", "pytest", "-q", *GOLDEN], cwd=ROOT).returncode:
            print("results changed: raise the numbers in alphatune/versions.py", file=sys.stderr)
            return 1
    STORED.write_text(json.dumps(now, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
