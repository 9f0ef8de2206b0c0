"""What the site has beside docs/: README.md as its first page, and the tables and pictures that pages point to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "results" / "tables"


def on_files(files: Any, config: Any) -> Any:
    """Add the files that lie outside docs/; called by mkdocs."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    for path in sorted(TABLES.iterdir()):
        if path.suffix in (".md", ".png"):
            files.append(File.generated(config, f"results/tables/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to results/ as the site has them; called by mkdocs."""
    return re.sub(r"\]\(\.\./results/", "](results/", markdown)
