"""Malformed data files, made systematically: every field of every format takes every wrong kind, every file damage.

Each must end in one UserError line that names the file and, where a record is at fault, its number and field. The valid
files they are made from must read; random changes of their bytes give a data set or such a line, nothing else.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphatune.data import dart, e2e, glue, samsum, webnlg
from alphatune.data.example import Dataset
from alphatune.data.load import task_config
from alphatune.errors import UserError

Record = dict[str, Any]
ABSENT = object()
# What may stand where something else belongs, by the JSON kind of the value.
WRONG: list[Any] = [None, True, 7, 1.5, float("nan"), float("inf"), [], ["x", 1], {}, {"a": {"b": 1}}, "\ud800", "a\0b",
                    ABSENT]  # fmt: skip


def as_webnlg(records: list[Any]) -> bytes:
    return json.dumps({"entries": [{str(n): record} for n, record in enumerate(records, 1)]}).encode()


def as_json(records: list[Any]) -> bytes:
    return json.dumps(records).encode()


def as_jsonl(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def as_xml(records: list[Any]) -> bytes:
    entries = ""
    for record in records:
        triples = "".join(f"<mtriple>{escape(' | '.join(t.values()))}</mtriple>" for t in record["modifiedtripleset"])
        texts = "".join(
            f"<lex comment={quoteattr(x['comment'])}>{escape(x['lex'])}</lex>" for x in record["lexicalisations"]
        )
        triples = f"<modifiedtripleset>{triples}</modifiedtripleset>"
        entries += f"<entry category={quoteattr(record['category'])}>\n{triples}{texts}</entry>\n"
    return f"<benchmark><entries>{entries}</entries></benchmark>".encode()


def as_csv(records: list[Any]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, records[0])
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def as_tsv(records: list[Any]) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in [records[0], *(r.values() for r in records)]).encode()


def as_txt(records: list[Any]) -> bytes:
    return "".join(f"{r['context']}||{r['text']}\n" for r in records).encode()


def as_parquet(records: list[Any], metadata: bytes | None = None) -> bytes:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(records)
    out = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": metadata} if metadata else None), out)
    return out.getvalue()


WEBNLG: Record = {
    "category": "City",
    "modifiedtripleset": [{"subject": "Oak", "property": "is", "object": "a tree"}],
    "lexicalisations": [{"comment": "good", "lex": "Oak is a tree."}],
}
DART: Record = {"tripleset": [["Oak", "IS", "tree"]], "annotations": [{"source": "webnlg", "text": "A tree."}]}
FORMATTED: Record = {"context": "Oak : is : tree", "completion": "A tree.", "cate": True}
SAMSUM: Record = {"id": "1", "dialogue": "A: hi\nB: ho", "summary": "They greet."}
E2E_CSV: Record = {"mr": "name[Oak], food[French]", "ref": "Oak is French."}
E2E_TXT: Record = {"context": "name : Oak", "text": "Oak is open . "}


@dataclass(frozen=True)
class Format:
    """One layout of one task, with a valid record."""

    reader: ModuleType
    task: str
    file: str
    record: Record
    encode: Callable[[list[Any]], bytes]
    unit: str  # how messages number its records
    first: int = 1  # number of the first record

    def __str__(self) -> str:
        return f"{self.task}:{self.file}"

    def write(self, folder: Path, content: bytes) -> None:
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if self.task == "dart_partial":
            (folder / "reconstructed-partial-train.json").write_bytes(as_json([DART]))

    def read(self, folder: Path) -> Dataset:
        return self.reader.read(folder, TASKS[self.task])

    def valid(self) -> bytes:
        return self.encode([self.record, self.record])


def glue_formats() -> Iterator[Format]:
    for name in glue.TSV:
        task = f"glue/{name}"
        stem, hub_stem = ("dev_matched", "validation_matched") if name == "mnli" else ("dev", "validation")
        for columns, encode, file, unit, first in (
            (glue.TSV[name], as_tsv, f"{stem}.tsv", "line", 2),
            (glue.TSV[name], as_jsonl, f"{stem}.jsonl", "line", 1),
            (glue.HUB[name], as_jsonl, f"{hub_stem}.jsonl", "line", 1),
            (glue.HUB[name], as_parquet, f"{hub_stem}.parquet", "row", 1),
        ):
            pair = {columns.pair: "Another text."} if columns.pair else {}
            record: Record = {columns.text: "A text.", **pair, columns.label: 1}
            if encode is as_tsv and name == "cola":
                record, first = {"ab": "ab", "1": 1, "": "", "A text.": "A text."}, 2
            yield Format(glue, task, file, record, encode, unit, first)


TASKS = {name: task_config(name) for name in ("webnlg", "dart", "dart_partial", "e2e", "samsum")}
TASKS |= {f"glue/{name}": task_config(f"glue/{name}") for name in glue.TSV}
FORMATS = [
    Format(webnlg, "webnlg", "dev.json", WEBNLG, as_webnlg, "record"),
    Format(webnlg, "webnlg", "test/testdata_with_lex.xml", WEBNLG, as_xml, "record"),
    Format(webnlg, "webnlg", "valid_formatted.jsonl", FORMATTED, as_jsonl, "line"),
    Format(dart, "dart", "dart-v1.1.1-full-dev.json", DART, as_json, "record"),
    Format(dart, "dart_partial", "dart-v1.1.1-full-dev.json", DART, as_json, "record"),
    Format(dart, "dart", "train_formatted.jsonl", FORMATTED, as_jsonl, "line"),
    Format(e2e, "e2e", "test.txt", E2E_TXT, as_txt, "line"),
    Format(e2e, "e2e", "test_formatted.jsonl", FORMATTED, as_jsonl, "line"),
    Format(e2e, "e2e", "devset.csv", E2E_CSV, as_csv, "line", 2),
    Format(samsum, "samsum", "train.json", SAMSUM, as_json, "record"),
    Format(samsum, "samsum", "test.csv", SAMSUM | {"dialogue": "A: hi"}, as_csv, "line", 2),
    Format(samsum, "samsum", "validation.parquet", SAMSUM, as_parquet, "row"),
    *glue_formats(),
]
JSON_FORMATS = [f for f in FORMATS if f.encode in (as_webnlg, as_json, as_jsonl)]


def refusal(format: Format, folder: Path, case: object = "") -> str:
    """The one line that reading ends in; any other exception, or none, fails the test."""
    try:
        format.read(folder)
    except UserError as error:
        message = str(error)
    else:
        pytest.fail(f"{format} was read: {case}")
    assert len(message.splitlines()) == 1 and message.isprintable(), message
    assert format.file.rpartition("/")[2] in message or f"{format.file.partition('/')[0]}/" in message, message
    assert len(message) < 700, message
    return message


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a record, itself first."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from paths(value[key], (*path, key))


def changed(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The record with `value` at a place, or without the place."""
    if not path:
        return value
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    if value is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return record


def is_right(format: Format, path: tuple[Any, ...], value: Any) -> bool:
    """Whether a value is no mistake at a place."""
    right = format.record
    for key in path:
        right = right[key]
    if format.task == "dart" and path and path[-1] == "source":
        return True  # only the reconstruction looks at it
    if value is ABSENT:  # a shorter list is right, unless it is a triple; other rows may lack the category
        in_list = bool(path) and isinstance(path[-1], int) and not (len(path) == 3 and path[0] == "tripleset")
        return not path or in_list or path[-1] == "cate"
    if format.reader is samsum and path == ("id",):
        return isinstance(value, int) and not isinstance(value, bool)
    if format.task == "glue/stsb" and path and path[-1] in ("score", "label"):
        return value == 1.5
    same_kind = type(right) is type(value)
    return same_kind and isinstance(value, bool | list) and (isinstance(value, bool) or not value)


WRONG_FIELDS = [
    (format, path, value)
    for format in JSON_FORMATS
    for path in paths(format.record)
    for value in WRONG
    if not is_right(format, path, value)
]


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_valid_file_reads(tmp_path: Path, format: Format) -> None:
    format.write(tmp_path, format.valid())
    dataset = format.read(tmp_path)
    texts = [e.text for e in (*dataset.train, *dataset.validation, *dataset.test)]
    assert texts and all(texts)


def test_every_wrong_kind_in_every_field(tmp_path: Path) -> None:
    """One test for all: a test each would cost more than the reading."""
    assert len(WRONG_FIELDS) > 1000
    for case in WRONG_FIELDS:
        format, path, value = case
        folder = tmp_path / str(format).replace("/", "-")  # made once
        format.write(folder, format.encode([format.record, changed(format.record, path, value)]))
        message = refusal(format, folder, case)
        number = format.first + 1
        assert f"{format.file} {format.unit} {number}: " in message, (case, message)
        assert ", must be " in message, (case, message)
        assert not path or str(path[-1]) in message or "its columns are" in message, (case, message)


LABELS = ["nan", "inf", "-inf", "99", "-1", "", " ", "maybe", "1_0", "+1e400", "١", "9" * 6000, "0x1", "None", "--1"]


@pytest.mark.parametrize("format", [f for f in FORMATS if f.reader is glue], ids=str)
def test_labels_outside_the_task_s(tmp_path: Path, format: Format) -> None:
    column = "1" if "1" in format.record else list(format.record)[-1]
    for label in LABELS:
        # a column of a parquet file has one type
        records = [format.record | {column: "1" if format.encode is as_parquet else 1}, format.record | {column: label}]
        format.write(tmp_path, format.encode(records))
        message = refusal(format, tmp_path)
        assert f"{format.file} {format.unit} {format.first + 1}: " in message and ", must be " in message
    if format.encode is as_parquet:
        for wrong in (True, 1.25e9, float("nan"), [1], {"a": 1}, b"1", None):
            format.write(tmp_path, as_parquet([format.record | {column: wrong}]))
            assert f"{format.file} row 1: label is " in refusal(format, tmp_path)


@pytest.mark.parametrize("format", [f for f in FORMATS if f.encode is as_parquet], ids=str)
def test_columns_of_a_wrong_type(tmp_path: Path, format: Format) -> None:
    for column, right in format.record.items():
        for wrong in (None, True, 7, 1.5, [right], {"a": right}, b"\xff", ABSENT):
            nullable = format.reader is samsum and column != "id"  # an empty cell of a CSV file that was converted
            if (wrong is None and nullable) or (wrong == 7 and column == "id") or (column, wrong) == ("label", 1.5):
                continue
            format.write(tmp_path, as_parquet([changed(format.record, (column,), wrong)]))
            message = refusal(format, tmp_path)
            if wrong is ABSENT and format.reader is glue:  # then it is no file of this task
                assert f"no files of GLUE {format.task[5:]} here" in message
            else:
                assert f"{format.file} row 1: {column} is " in message and ", must be " in message


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b"null", b"\xff", b"7", b'{"info": []}', b'{"info": {"features": 3}}', b"[" * 20_000,
     b'{"info": {"features": {"label": {"names": 3}}}}', b'{"info": {"features": {"label": {"names": [1]}}}}',
     b'{"info": null}', b'{"info": {"features": {"label": {"names": ["a"]}}}}', b"1" * 6000],
)  # fmt: skip
def test_broken_metadata_of_the_hub(tmp_path: Path, metadata: bytes) -> None:
    format = next(f for f in FORMATS if f.task == "glue/sst2" and f.encode is as_parquet)
    format.write(tmp_path, as_parquet([format.record], metadata))
    refusal(format, tmp_path)
    format.write(tmp_path, as_parquet([format.record], b'{"info": {"features": {"sentence": {"dtype": "string"}}}}'))
    assert format.read(tmp_path).validation


def damages(format: Format) -> Iterator[tuple[str, bytes]]:
    """File-level damages of a format, each with a name."""
    valid = format.valid()
    yield "empty", b""
    yield "blank", b" \n\n\t\n"
    yield "only a byte-order mark", b"\xef\xbb\xbf"
    yield "binary", bytes(range(256)) * 4
    yield "UTF-16", "".join(map(chr, valid)).encode("utf-16")
    if format.encode is as_parquet:
        yield "half", valid[: len(valid) // 2]
        yield "no rows", as_parquet([format.record]).replace(b"PAR1", b"PARX")
        return
    middle = valid.rindex(b".")
    yield "not UTF-8", valid[:middle] + b"\xe9" + valid[middle:]
    yield "a surrogate in UTF-8", valid[:middle] + b"\xed\xa0\x80" + valid[middle:]
    yield "NUL", valid[:middle] + b"\0" + valid[middle:]
    if format.encode in (as_webnlg, as_json):
        start, end = (b'{"entries": [', b"]}") if format.encode is as_webnlg else (b"[", b"]")
        yield "no record", start + end
        yield "half", valid[: len(valid) // 2]
        yield "nested", start + b"[" * 20_000 + b"]" * 20_000 + end
        yield "nested objects", start + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + end
        yield "digits", start + b"9" * 6000 + end
        yield "another root", b'"entries dialogue summary"'
    if format.encode is as_jsonl:
        yield "half", valid[: len(valid) * 3 // 4]
        yield "nested", valid + b"[" * 20_000 + b"]" * 20_000
        yield "digits", valid + b"9" * 6000
        yield "a key twice", valid + valid.split(b"\n")[0][:-1] + b", " + valid.split(b"\n")[0][1:] + b"\n"
        yield "a list", valid + b"[1, 2]\n"
    if format.encode is as_xml:
        bomb = b'<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY c "&a;&a;&a;&a;&a;&a;">]>'
        yield "entities", bomb + valid.replace(b"a tree", b"&c;")
        yield "an unknown entity", valid.replace(b"a tree", b"&c;")
        yield "half", valid[: len(valid) // 2]
        yield "no record", b"<benchmark><entries/></benchmark>"
        yield "nested", b"<a>" * 20_000 + b"</a>" * 20_000
        yield "no category", valid.replace(b' category="City"', b"")
        yield "no comment", valid.replace(b' comment="good"', b"")
        yield "a tag in a text", valid.replace(b"Oak is a", b"Oak <b>is</b> a")
        yield "a triple of two", valid.replace(b"Oak | is", b"Oak is")
        yield "unknown encoding", b'<?xml version="1.0" encoding="nope"?>' + b"<a>"
        yield "nothing good", valid.replace(b"good", b"toFix")
    if format.encode is as_csv:
        names, row = valid.split(b"\r\n")[:2]
        yield "no record", names + b"\r\n"
        yield "a column twice", names + b"," + names.split(b",")[0] + b"\r\n" + row + b",x\r\n"
        yield "short row", valid + b"x\r\n"
        yield "long row", valid + row + b",x\r\n"
        yield "long field", valid + row[:-1] + b"x" * 140_000 + b"\r\n"
        yield "open quotation", valid + b'"' + row.replace(b'"', b"")
        yield "no header", row + b"\r\n" + row + b"\r\n"
    if format.encode is as_tsv:
        names, row = valid.split(b"\n")[:2]
        if format.task != "glue/cola":
            yield "no record", names + b"\n"
            yield "a column twice", names + b"\t" + names.split(b"\t")[0] + b"\n" + row + b"\tx\n"
        if format.task != "glue/qqp":  # it is distributed with broken lines
            yield "short row", valid + b"x\n"
            yield "long row", valid + row + b"\tx\n"
            yield "blank row", valid + b"\n" + row + b"\n"
        else:
            yield "broken rows only", names + b"\n" + row + b"\tx\n"
    if format.encode is as_txt:
        yield "no separator", valid + b"name : Oak\n"
        yield "blank line", valid + b"\n" + valid
        yield "no texts", b"name : Oak||\n" * 2


DAMAGES = [(f, what, content) for f in FORMATS for what, content in damages(f)]


def test_every_damage_of_every_file(tmp_path: Path) -> None:
    assert len(DAMAGES) > 400
    for format, what, content in DAMAGES:
        folder = tmp_path / str(format).replace("/", "-")
        format.write(folder, content)
        message = refusal(format, folder, what)
        if what in ("NUL", "not UTF-8", "a surrogate in UTF-8", "short row", "long row", "blank row", "blank line",
                    "long field", "no separator", "a tag in a text", "no category", "digits", "a list") and not (
                    format.encode in (as_webnlg, as_json) and what == "digits"):  # fmt: skip
            assert re.search(r" (line|record|row) \d+: ", message), (str(format), what, message)


def test_a_split_without_an_example_names_its_files(tmp_path: Path) -> None:
    format = FORMATS[0]
    format.write(tmp_path, as_webnlg([changed(WEBNLG, ("lexicalisations", 0, "comment"), "toFix")]))
    with pytest.raises(UserError, match=r"^dev\.json: no validation example in it \(validation: texts not marked good"):
        format.read(tmp_path)


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(b"")
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(UserError, match=r"no files of GLUE rte here; .*; it holds 'a\\nb'/, dev\.tsv \(0 bytes\)$"):
        glue.read(tmp_path, task_config("glue/rte"))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Format, bytes]:
    """A format with random bytes, or with its valid file after a few random edits."""
    format = draw(st.sampled_from(FORMATS))
    if draw(st.integers(0, 9)) == 0:
        return format, draw(st.binary(max_size=200))
    content = format.valid()
    pieces = st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [b'"', b"\n", b"\t", b",", b"||", b"null", b"[", b"{", b"}", b"]", b"<", b"&", b"\0", b"\\u", b"1"]
        ),
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 5, 40])))
        content = content[:start] + draw(pieces) + content[end:]
    return format, content


@given(damaged())
@settings(max_examples=250, deadline=None)
def test_random_damage_gives_a_data_set_or_one_line(case: tuple[Format, bytes]) -> None:
    format, content = case
    with tempfile.TemporaryDirectory() as folder:
        format.write(Path(folder), content)
        try:
            dataset = format.read(Path(folder))
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
    examples = [e for split in ("train", "validation", "test") for e in dataset.split(split)]
    assert examples
    for example in examples:
        for text in (example.text, *example.targets, example.text_pair or ""):
            assert isinstance(text, str) and "\0" not in text and text.encode() is not None
        assert example.label is None or 0 <= example.label <= 5
