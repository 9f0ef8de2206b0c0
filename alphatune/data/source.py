"""A folder being read: the bytes of its files, their sha256, and what reading found.

Readers go through `Source`, so every file that reached a data set is in `Dataset.files`, every oddity in
`Dataset.notes`, and a damaged file ends in one line that names it. Text is decoded as UTF-8 and otherwise left alone:
no Unicode normalisation, no HTML unescaping. Records come as `Field`s, which know their place.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from alphatune.data.example import Dataset, Example
from alphatune.data.fields import Field, Unusable, word
from alphatune.errors import UserError

_MAX_DIGITS = 4300  # of a whole number in JSON; Python refuses to convert longer ones


def safe_name(name: str) -> str:
    """`name` itself, when it is a relative path that stays inside its folder.

    Raises:
        UserError: absolute, empty, with a backslash, a colon, a character that does not print, or a `..` part.
    """
    parts = name.split("/")
    strange = not name.isprintable() or set(name) & set("\\:")
    if PurePosixPath(name).is_absolute() or strange or not {"", ".", ".."}.isdisjoint(parts):
        raise UserError(f"{name!r}: not a file name inside a data folder")
    return name


def header(names: list[str], name: str) -> list[str]:
    """The column names of a table, each once. One may be empty: pandas writes its row numbers so.

    Raises:
        UserError: a name stands there twice, so that it is unclear which column is meant.
    """
    for column, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{name}: {count} columns are called {word(column) or repr(column)}, must be one each")
    return names


class Source:
    """One folder of a task's files.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}  # name relative to the folder -> sha256, of the files read so far
        self.notes: Counter[str] = Counter()
        self._splits: dict[str, list[str]] = {}  # split -> its files that are here

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.folder / safe_name(name)

    def first(self, *names: str) -> str | None:
        """The first of `names` that is a file here."""
        return next((name for name in names if os.path.isfile(self.path(name))), None)

    def glob(self, pattern: str) -> list[str]:
        """Names of the files that match, sorted, relative to the folder."""
        found = self.folder.glob(safe_name(pattern))
        return sorted(p.relative_to(self.folder).as_posix() for p in found if os.path.isfile(p))

    def of(self, split: str, names: list[str]) -> list[str]:
        """Those of `names` that are files here. If there are any, the split must come to hold an example."""
        here = [name for name in names if self.first(name)]
        self._splits.setdefault(split, []).extend(here)
        return here

    def head(self, name: str, size: int = 4096) -> str:
        """The beginning of a file, for telling formats apart; does not count as having read it."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read(size).decode("utf-8-sig", errors="replace")
        except OSError as error:
            raise UserError(f"{name}: cannot be read: {error.strerror}") from error

    def bytes(self, name: str) -> bytes:
        """The content of a file; its sha256 is remembered."""
        try:
            content = self.path(name).read_bytes()
        except OSError as error:
            raise UserError(f"{name}: cannot be read: {error.strerror}") from error
        if not content.strip():
            raise UserError(f"{name}: the file is empty")
        self.files[name] = hashlib.sha256(content).hexdigest()
        return content

    def text(self, name: str) -> str:
        """The content as text. A byte-order mark at the start is no part of it (MRPC has one)."""
        content = self.bytes(name)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UserError(
                f"{name} line {line}: not UTF-8 at byte {error.start} of the file: a damaged or converted file"
            ) from error
        if not text:
            raise UserError(f"{name}: the file is empty")
        return text

    def lines(self, name: str) -> list[Field]:
        """The lines of a file, split at "\\n" alone: str.splitlines also breaks at characters that texts contain."""
        lines = [line.removesuffix("\r") for line in self.text(name).split("\n")]
        if lines[-1] == "":
            lines.pop()
        return [Field(line, f"{name} line {n}", "the line") for n, line in enumerate(lines, 1)]

    def json(self, name: str) -> Field:
        """The content as JSON."""
        return Field(_json(self.text(name), name), name)

    def jsonl(self, name: str) -> list[Field]:
        """One JSON value a line; empty lines are skipped."""
        lines = enumerate(self.lines(name), 1)
        return [Field(_json(line.value, name, n), f"{name} line {n}") for n, line in lines if line.value.strip()]

    def csv(self, name: str, delimiter: str = ",") -> list[Field]:
        """The rows of a CSV file with a header, as objects; empty lines are skipped."""
        reader = csv.reader(io.StringIO(self.text(name), newline=""), delimiter=delimiter, strict=True)
        rows = list(_csv_rows(reader, name))
        names = header(rows[0][1], name) if rows else []
        for line, cells in rows[1:]:
            if len(cells) != len(names):
                raise UserError(f"{name} line {line}: {len(cells)} fields, must be {len(names)} as in the header")
        return [Field(dict(zip(names, cells, strict=True)), f"{name} line {line}") for line, cells in rows[1:]]

    def tsv(self, name: str) -> list[Field]:
        """The same with tabs: quotation marks around a cell are no part of it."""
        return self.csv(name, "\t")

    def xml(self, name: str) -> ElementTree.Element:
        """The root of an XML file."""
        text = self.text(name)
        if "<!DOCTYPE" in text:  # entity definitions can make a small file huge; no release has any
            raise UserError(f"{name}: XML with a DOCTYPE is not read")
        try:
            return ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise UserError(f"{name} line {error.position[0]}: not XML ({error})") from error

    def parquet(self, name: str) -> tuple[list[Field], dict[str, list[str]]]:
        """The rows of a parquet file, and the class names of its label columns where the hub's metadata has them."""
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(self.bytes(name)))
            header(table.column_names, name)
            rows = table.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # all of these from damaged bytes
            raise _unreadable(name, error) from error
        fields = [Field(row, f"{name} row {n}") for n, row in enumerate(rows, 1)]
        return fields, _class_names((table.schema.metadata or {}).get(b"huggingface", b"{}"), name)

    def parquet_columns(self, name: str) -> list[str]:
        """The column names of a parquet file, for telling formats apart; does not count as having read it."""
        import pyarrow
        import pyarrow.parquet

        try:
            return list(pyarrow.parquet.read_schema(self.path(name)).names)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _unreadable(name, error) from error

    def note(self, what: str, count: int = 1) -> None:
        """Adds to a count of `Dataset.notes`; zero leaves no trace."""
        if count:
            self.notes[what] += count

    def dataset(self, train: list[Example], validation: list[Example], test: list[Example]) -> Dataset:
        """The finished data set, with the files and notes gathered so far.

        Raises:
            UserError: a split whose files are here has no example.
        """
        dataset = Dataset(train, validation, test, files=dict(self.files), notes=dict(self.notes))
        for split, names in self._splits.items():
            if names and not dataset.split(split):
                told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                notes = ", ".join(f"{what}: {count}" for what, count in self.notes.items() if what.startswith(split))
                raise UserError(f"{told}: no {split} example in it" + (f" ({notes})" if notes else ""))
        return dataset


def holdings(folder: Path) -> str:
    """What a folder holds, for a message: its first files with their sizes."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return "it cannot be listed"
    told = [f"{word(p.name)} ({p.stat().st_size:,} bytes)" if p.is_file() else f"{word(p.name)}/" for p in found[:6]]
    return f"it holds {', '.join(told)}{' and more' if len(found) > 6 else ''}" if told else "it is empty"


def _csv_rows(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line that it starts on."""
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name} line {line}: not CSV ({error}): is a quotation mark left open?") from error


def _json(text: str, name: str, line: int = 1) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        where = f"{name} line {line + error.lineno - 1}"
        raise UserError(
            f"{where}: not JSON ({error.msg} at column {error.colno}): a damaged or partial file"
        ) from error
    except RecursionError as error:
        where = f"{name} line {line}" if line > 1 else name
        raise UserError(f"{where}: JSON nested too deeply: not a data file of this task") from error


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return Unusable(f"an object with {word(twice)} in it twice")


def _whole_number(digits: str) -> Any:
    return int(digits) if len(digits) <= _MAX_DIGITS else Unusable(f"a number of {len(digits):,} digits")


def _unreadable(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: not a readable parquet file: {' '.join(str(error).split())[:300]}")


def _class_names(metadata: bytes, name: str) -> dict[str, list[str]]:
    place = f"{name}, its huggingface metadata"
    try:
        hub = Field(_json(metadata.decode("utf-8"), place), place)
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8") from error
    if "info" not in hub or "features" not in hub["info"]:
        return {}
    features = hub["info"]["features"]
    labelled = {key: f["names"] for key, f in features.items() if isinstance(f.value, dict) and "names" in f}
    return {key: [label.text() for label in names.entries()] for key, names in labelled.items()}
