"""Text files as people have them for scoring: hypotheses, references in three layouts, subset names.

A file is UTF-8 (a byte-order mark is dropped), a line ends with LF or CRLF, and the end of the last line is no further
line. Everything else is text: an empty line among hypotheses is an empty hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alphatune.errors import UserError

LAYOUTS = ("auto", "lines", "groups", "parallel")
SHOWN = 60  # characters of a wrong value in a message


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        UserError: no such file, not a file, empty, not UTF-8, or with a NUL, which no text has.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8: byte 0x{data[error.start]:02x}") from error
    if not text:
        raise UserError(f"{path}: the file is empty")
    if "\0" in text:
        raise UserError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def shown(value: object) -> str:
    """A value of a file in a message: on one line and not longer than a line takes."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read_references(
    paths: Sequence[Path], inputs: int, layout: str = "auto", keep_empty: bool = False
) -> list[list[str]]:
    """The references of each of `inputs` inputs.

    Layouts: "lines", one reference per line; "groups", the references of an input on consecutive lines, inputs divided
    by empty lines (e2e-metrics); "parallel", line i of every file is a reference of input i and an empty line stands
    for a missing one, the files being listed, or reference0, reference1, ... of a folder, or <prefix>0, <prefix>1, ...
    "auto": several paths, a folder or a prefix are parallel; one file is "groups" if it has an empty line and not
    exactly `inputs` lines, else "lines". With `keep_empty` an empty line of a parallel file is an empty reference, as
    tools that read line by line take it.

    Raises:
        UserError: an unreadable file, a layout that does not fit the paths, or another number of inputs than `inputs`.
    """
    files = [file for path in paths for file in _files(path)]
    if layout == "auto" and len(files) > 1:
        layout = "parallel"
    if layout == "parallel":
        return _parallel(files, inputs, keep_empty)
    if len(files) != 1:
        raise UserError(f"layout {layout} takes one reference file, not {len(files)}")
    lines = read_lines(files[0])
    if layout == "auto":
        layout = "groups" if len(lines) != inputs and "" in map(str.strip, lines) else "lines"
    references = _grouped(lines) if layout == "groups" else [[line] for line in lines]
    _check_count(files[0], "groups of references" if layout == "groups" else "lines", len(references), inputs)
    return references


def _files(path: Path) -> list[Path]:
    """A file itself, or the numbered files of a folder or prefix."""
    if path.is_file():
        return [path]
    prefix = path / "reference" if path.is_dir() else path
    files: list[Path] = []
    while (file := Path(f"{prefix}{len(files)}")).is_file():
        files.append(file)
    if not files:
        raise UserError(f"{path}: no such file, and no {prefix}0, {prefix}1, ...")
    return files


def _parallel(files: Sequence[Path], inputs: int, keep_empty: bool) -> list[list[str]]:
    columns = [read_lines(file) for file in files]
    for file, lines in zip(files, columns, strict=True):
        _check_count(file, "lines", len(lines), inputs)
    if keep_empty:
        return [list(row) for row in zip(*columns, strict=True)]
    # An input whose lines are all empty has one reference, the empty text.
    return [[line for line in row if line.strip()] or [""] for row in zip(*columns, strict=True)]


def _grouped(lines: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        if fresh:
            groups.append([])
            fresh = False
        groups[-1].append(line)
    return groups


def _check_count(file: Path, what: str, found: int, inputs: int) -> None:
    if found != inputs:
        raise UserError(f"{file}: {found} {what}, but there are {inputs} hypotheses")
