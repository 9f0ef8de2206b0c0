"""The weights that the package carries: where they are, and whether they are those that were released.

What they are and how they are made is `tiny.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

from alphatune.errors import UserError
from alphatune.store import file_sha256

FOLDER = Path(__file__).resolve().parent / "weights" / "tiny"
HASHES = "sha256.json"  # beside the files: name -> sha256
TOKENIZER_DOCUMENTS = 8000  # of the toy world, from which the tokenizer is made


def hashes(folder: Path = FOLDER) -> dict[str, str]:
    """The sha256 that each file must have, by name."""
    found: dict[str, str] = json.loads((folder / HASHES).read_text(encoding="utf-8"))
    return found


def seal(folder: Path) -> None:
    """Write down the hashes of the files in `folder`."""
    found = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != HASHES}
    (folder / HASHES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def verified(folder: Path = FOLDER) -> Path:
    """The folder, its files checked against their hashes.

    Raises:
        UserError: a file is missing or has changed.
    """
    try:
        wrong = [name for name, sha256 in hashes(folder).items() if file_sha256(folder / name) != sha256]
    except (OSError, ValueError) as error:
        raise UserError(f"the embedded weights cannot be read ({error}): install alphatune again") from error
    if wrong:
        raise UserError(f"the embedded weights are damaged ({', '.join(wrong)}): install alphatune again")
    return folder
