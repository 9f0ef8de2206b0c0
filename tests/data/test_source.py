"""What every reader relies on: names stay inside their folder, bytes become text without being changed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphatune.data.source import Source, safe_name
from alphatune.errors import UserError


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "", ".", "a//b", "a\0b", "a\nb", "./x"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="not a file name inside a data folder"):
        safe_name(name)
    with pytest.raises(UserError):
        Source(tmp_path).bytes(name)


@given(st.text())
def test_an_accepted_name_stays_inside_its_folder(name):
    from pathlib import Path

    try:
        accepted = safe_name(name)
    except UserError:
        return
    assert Path("/data/task").joinpath(accepted).parts[:3] == ("/", "data", "task")
    assert ".." not in Path(accepted).parts


def test_text_keeps_its_unicode_and_loses_only_the_mark_at_the_start(tmp_path):
    decomposed = "Cafe\u0301 \u00e9 \u2028 \x85 &amp; \ufeff"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + decomposed.encode())
    source = Source(tmp_path)
    assert source.text("a.txt") == decomposed
    assert source.files == {"a.txt": hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()}


def test_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\u2028still one\x85\rtoo\r\ntwo\n\nfour".encode())
    lines = Source(tmp_path).lines("a.txt")
    assert [line.text() for line in lines] == ["one\u2028still one\x85\rtoo", "two", "", "four"]
    assert [line.place for line in lines] == [f"a.txt line {n}" for n in (1, 2, 3, 4)]


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.json").write_text('[\n{"a": 1}')
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{"a"')
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    source = Source(tmp_path)
    with pytest.raises(UserError, match=r"a\.json line 2: not JSON"):
        source.json("a.json")
    with pytest.raises(UserError, match=r"b\.jsonl line 2: not JSON"):
        source.jsonl("b.jsonl")
    with pytest.raises(UserError, match=r"c\.txt line 1: not UTF-8 at byte 3"):
        source.text("c.txt")
    with pytest.raises(UserError, match=r"d\.parquet: not a readable parquet"):
        source.parquet("d.parquet")
    with pytest.raises(UserError, match=r"e\.txt: cannot be read"):
        source.text("e.txt")
