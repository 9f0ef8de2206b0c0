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
    "data": ["data.load", "data.toy", "data.webnlg", "data.dart", "data.e2e", "data.samsum", "data.glue"],
    "backbone": ["tiny"],
    "quantize": ["packed_file", "batches", "models"],
    "adapt": ["train", "methods", "models"],
    "evaluate": ["train", "methods", "models"],
    "decode": ["predict", "decode", "batches", "methods", "models"],
    "score": ["metrics", "metrics.files"],
}
# They carry results about, say things, or are told apart by a key of their own; they decide no value.
ASIDE = {"errors", "terminal", "progress", "artifacts", "versions", "config", "resume", "data.download",
         "data.catalogue", "data.files"}  # fmt: skip
# Tests whose golden values or references fix what the stages give.
GOLDEN = ["tests/test_train.py", "tests/test_bcq.py", "tests/test_uniform.py", "tests/test_calibrated.py",
          "tests/test_decode.py", "tests/test_metrics_goldens.py", "tests/test_data_real.py", "tests/test_layers.py",
          "tests/test_metrics_bleu.py", "tests/test_metrics_ter.py", "tests/test_metrics_nist.py"]  # fmt: skip


def files_of(stage: str) -> dict[str, str]:
    """Module -> hash of its code, for all modules that the stage's result depends on."""
    found: dict[str, str] = {}
    todo = list(ENTRIES[stage])
    while todo:
        name = todo.pop()
        path = _path(name)
        if path is None or name in found or name in ASIDE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += _imports(tree)
        found[name] = hashlib.sha256(_code(tree).encode()).hexdigest()[:16]
    return dict(sorted(found.items()))


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
