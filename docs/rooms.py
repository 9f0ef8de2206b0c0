"""Draw docs/rooms.svg, the picture of the package's rooms, from the package's own imports: python docs/rooms.py

Every room is a box on the diagonal. An arrow runs from a room to each room that it imports from: left from its box to
the other's column, then up. As rooms import only rooms above them, no arrow ever has to point down.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "alphatune"
PICTURE = Path(__file__).with_name("rooms.svg")
GROUND = "ground"  # the files that stand in no room: the package's own folder
ROOMS = [GROUND, "store", "native", "quant", "packed", "hf", "data", "metrics", "learn", "compose", "run", "search",
         "tables", "pages", "tools"]  # fmt: skip
ON_THE_GROUND = "What every room stands on"

WIDTH, LEFT, TOP = 900, 24, 56
STEP, ROW = 41, 46  # from box to box, to the right and down
BOX, TALL = 138, 30
LANE = 20  # of a box, from its left side: where arrows come up to it
LETTER = 7.2  # width of a letter of the text beside a box, at most


def files(room: str) -> list[Path]:
    """The Python files of a room; the package's own `__init__`, its front door, is in none."""
    if room == GROUND:
        return sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
    return sorted((PACKAGE / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The rooms that a file imports from, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, inner = name.partition(".")
            if package == PACKAGE.name:
                head = inner.partition(".")[0]
                yield head if (PACKAGE / head).is_dir() and head else GROUND


def arrows(room: str) -> list[str]:
    """The other rooms that a room imports from, in order."""
    found = {other for path in files(room) for other in imported(path)} - {room}
    return sorted(found, key=ROOMS.index)


def sign(room: str) -> str:
    """What a room is for: the first words of its `__init__`."""
    if room == GROUND:
        return ON_THE_GROUND
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"[.:;]\s", " ".join(text.split()) + " ")[0]


def corner(room: str) -> tuple[int, int]:
    """Left and upper side of a room's box."""
    place = ROOMS.index(room)
    return LEFT + STEP * place, TOP + ROW * place


def draw() -> str:
    """The picture, as the text of an SVG file."""
    height = TOP + ROW * len(ROOMS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The rooms of the package and their imports</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5b6b7b"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="30" font-size="14" fill="#26323d">A room imports only from rooms above it: '
        "left along its own line, and at a dot up to the other room.</text>",
    ]
    for room in ROOMS:
        (x, y), others = corner(room), arrows(room)
        middle = y + TALL // 2
        for other in others:
            lane, under = corner(other)[0] + LANE, corner(other)[1] + TALL
            first = f"M{x} {middle}H{lane}V{under + 1}"
            lines.append(f'<path d="{first}" fill="none" stroke="#9aa8b5" stroke-width="1.3" marker-end="url(#head)"/>')
        lines += [f'<circle cx="{corner(other)[0] + LANE}" cy="{middle}" r="3.4" fill="#5b6b7b"/>' for other in others]
    for room in ROOMS:
        (x, y), count = corner(room), len(files(room))
        middle = y + TALL // 2
        fill = "#e9edf1" if room == GROUND else "#dcebfa"
        lines += [
            f'<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="4" fill="{fill}" stroke="#5b6b7b"/>',
            f'<text x="{x + 8}" y="{middle + 5}" font-size="14" font-weight="bold" fill="#14202b">{room}</text>',
            f'<text x="{x + BOX - 8}" y="{middle + 5}" font-size="12" text-anchor="end" fill="#14202b">'
            f"{count} files</text>",
        ]
        beside = x + BOX + 12
        said = textwrap.wrap(sign(room), int((WIDTH - 8 - beside) / LETTER))
        for number, words in enumerate(said):
            down = middle + 4 + 15 * number - 15 * (len(said) - 1) // 2
            lines.append(f'<text x="{beside}" y="{down}" font-size="12.5" fill="#26323d">{escape(words)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
