"""Text files for scoring: line ends, encodings and the three layouts of references."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphatune.errors import UserError
from alphatune.metrics.reading.files import read_lines, read_references


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("a\n\n", ["a", ""]),
        ("\n", [""]),
        ("\ufeffa\n", ["a"]),
        ("a\u2028b\x0cc\n", ["a\u2028b\x0cc"]),
    ],
)
def test_lines(tmp_path: Path, content: str, lines: list[str]) -> None:
    assert read_lines(write(tmp_path / "f", content)) == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"ok\ncaf\xe9\n", "f, line 2: not UTF-8: byte 0xe9"),
        (b"ok\n\xed\xa0\x80\n", "f, line 2: not UTF-8: byte 0xed"),  # half of a surrogate pair
        (b"ok\nok\n\0\n", "f, line 3: a NUL character"),
        ("ab".encode("utf-16"), "not UTF-8"),
    ],
)
def test_unreadable_content_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_lines(write(tmp_path / "f", content))


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_lines(tmp_path / "f")
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("content", "inputs", "expected"),
    [
        ("a\nb\n", 2, [["a"], ["b"]]),
        ("a\nb\n\nc\n", 2, [["a", "b"], ["c"]]),
        ("a\nb\n\n\nc\n\n", 2, [["a", "b"], ["c"]]),
        ("a\n\nc\n", 3, [["a"], [""], ["c"]]),  # as many lines as inputs: one reference per line
        ("a\n\nc\n", 2, [["a"], ["c"]]),
        ("a\r\nb\r\n\r\nc\r\n", 2, [["a", "b"], ["c"]]),
    ],
)
def test_one_file(tmp_path: Path, content: str, inputs: int, expected: list[list[str]]) -> None:
    assert read_references([write(tmp_path / "f", content)], inputs) == expected


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    file = write(tmp_path / "f", "a\n\nc\n")
    assert read_references([file], 2, "groups") == [["a"], ["c"]]
    assert read_references([file], 3, "parallel") == [["a"], [""], ["c"]]
    with pytest.raises(UserError, match="3 lines, but there are 2 hypotheses"):
        read_references([file], 2, "lines")


def test_parallel_files_a_folder_and_a_prefix(tmp_path: Path) -> None:
    files = [write(tmp_path / f"reference{n}", content) for n, content in enumerate(["a\nb\n", "c\n\n"])]
    expected = [["a", "c"], ["b"]]
    assert read_references(files, 2) == expected
    assert read_references([tmp_path], 2) == expected
    assert read_references([tmp_path / "reference"], 2) == expected


def test_empty_lines_are_references_where_the_tool_takes_them_so(tmp_path: Path) -> None:
    files = [write(tmp_path / f"f{n}", content) for n, content in enumerate(["a\n\n", "\nd\n"])]
    assert read_references(files, 2) == [["a"], ["d"]]
    assert read_references(files, 2, keep_empty=True) == [["a", ""], ["", "d"]]


def test_an_input_with_empty_lines_only_has_the_empty_reference(tmp_path: Path) -> None:
    files = [write(tmp_path / f"r{n}", "a\n\n") for n in range(2)]
    assert read_references(files, 2) == [["a", "a"], [""]]


@pytest.mark.parametrize(
    ("contents", "layout", "message"),
    [
        (["a\n"], "auto", "f0: 1 lines, but there are 2 hypotheses"),
        (["a\nb\n\n"], "groups", "f0: 1 groups of references, but there are 2 hypotheses"),
        (["a\nb\n", "a\n"], "auto", "f1: 1 lines, but there are 2 hypotheses"),
        (["a\nb\n", "a\nb\n"], "lines", "layout lines takes one reference file, not 2"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, contents: list[str], layout: str, message: str) -> None:
    files = [write(tmp_path / f"f{n}", content) for n, content in enumerate(contents)]
    with pytest.raises(UserError, match=message):
        read_references(files, 2, layout)


def test_a_prefix_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file, and no .*ref0"):
        read_references([tmp_path / "ref"], 1)
