"""What the site has beside docs/: README.md as its first page, and the files of other folders that pages point to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = [
    "results/tables/*.md",
    "results/tables/*.png",
    "results/forgetting/smollm2*",
    "results/reading/*.csv",
    "examples/general.txt",
]


def outside() -> list[str]:
    """The files outside docs/ that the site has, by their paths in the repository."""
    return [path.relative_to(ROOT).as_posix() for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]


def on_files(files: Any, config: Any) -> Any:
    """Add the files that lie outside docs/; called by mkdocs."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    for name in outside():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to other folders as the site has them; called by mkdocs."""
    return re.sub(r"\]\(\.\./(results|examples)/", r"](\1/", markdown)
