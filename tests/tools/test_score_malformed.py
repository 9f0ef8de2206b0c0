"""Files that are not what the score command expects: one line with file and line number, and status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alphatune.tools.score import main

TEXTS = ["--task", "webnlg", "--metrics", "ter", "--jobs", "1"]
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two").write_text("a cat\na dog\n")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a refused call prints."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.endswith("\n") and len(err.splitlines()) == 1
    assert len(err) < 400
    return err


# What no text file may be, whatever it is for.
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad: the file is empty"),
        (b"\xef\xbb\xbf", "bad: the file is empty"),
        (b"a cat\ncaf\xe9\n", "bad, line 2: not UTF-8: byte 0xe9"),
        ("a cat\na dog\n".encode("utf-16"), "bad, line 1: not UTF-8: byte 0xff"),
        (b"a cat\n\xed\xa0\x80\n", "bad, line 2: not UTF-8: byte 0xed"),
        (b"a cat\nb\0\n", "bad, line 2: a NUL character"),
    ],
)
@pytest.mark.parametrize("role", ["hypotheses", "references", "subsets"])
def test_text_files(capsys: pytest.CaptureFixture[str], role: str, content: bytes, message: str) -> None:
    Path("bad").write_bytes(content)
    files = {"hypotheses": "two", "references": "two"} | {role: "bad"}
    assert message in refused(capsys, *TEXTS, *(word for name in files for word in (f"--{name}", files[name])))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["--hypotheses", "two", "--references", "three"], "three: 3 lines, but there are 2 hypotheses"),
        (["--hypotheses", "three", "--references", "two"], "two: 2 lines, but there are 3 hypotheses"),
        (["--hypotheses", "two", "--references", "two", "three"], "three: 3 lines, but there are 2 hypotheses"),
        (
            ["--hypotheses", "two", "--references", "two", "--subsets", "three"],
            "three: 3 subset names, but",
        ),
        (["--hypotheses", "two", "--references", "."], ".: no such file, and no reference0, reference1"),
        (["--hypotheses", ".", "--references", "two"], ".: cannot be read"),
        (["--hypotheses", "two", "--references", "two", "--subsets", "gap"], "gap, line 1: no subset name"),
    ],
)
def test_files_that_do_not_fit(capsys: pytest.CaptureFixture[str], files: list[str], message: str) -> None:
    Path("three").write_text("a\nb\nc\n")
    Path("gap").write_text("\nseen\n")
    assert message in refused(capsys, *TEXTS, *files)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "not JSON: Expecting value at character 1"),
        ("a cat", "not JSON: Expecting value at character 1"),
        ('{"prediction": "a dog"', "not JSON: "),
        ("[]", "must be an object such as"),
        ("3", "must be an object such as"),
        ("null", "must be an object such as"),
        ("{}", "no 'prediction'; keys: "),
        ('{"text": "a dog"}', "no 'prediction'; keys: 'text'"),
        ('{"prediction": null}', "'prediction' must be a text or a label, not None"),
        ('{"prediction": ["a dog"]}', "'prediction' must be a text or a label, not ['a dog']"),
        ('{"prediction": true}', "'prediction' must be a text or a label, not True"),
        ('{"prediction": 3}', "'prediction' must be a text, not 3"),
        ('{"prediction": NaN}', "not usable JSON: NaN is no number of JSON"),
        ('{"prediction": "a \\ud800 dog"}', "half of a surrogate pair"),
        ('{"prediction": "a dog", "id": 3}', "'id' must be a text, not 3"),
        ('{"prediction": "a dog", "id": "x"}', "all lines must have an 'id', or none"),
        ('{"prediction": ' + DEEP + "}", "not usable JSON: nested too deeply"),
        ('{"prediction": ' + "9" * 6000 + "}", "not usable JSON: Exceeds the limit"),
    ],
    ids=lambda value: value[:30],
)
def test_json_lines(capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    Path("bad.jsonl").write_text('{"prediction": "a cat"}\n' + line + "\n")
    told = refused(capsys, *TEXTS, "--hypotheses", "bad.jsonl", "--references", "two")
    assert told.startswith("error: bad.jsonl, line 2: ")
    assert message in told


WRONG_CLASSES = ["0.0", "1.0", "yes", "-1", "2", "01", "+1", "1e0", "", "nan", "Acceptable", "0 1", "\u0661", "x" * 500]


@pytest.mark.parametrize("said", WRONG_CLASSES)
@pytest.mark.parametrize("role", ["hypotheses", "references"])
def test_a_label_that_the_task_does_not_have(capsys: pytest.CaptureFixture[str], role: str, said: str) -> None:
    Path("good").write_text("acceptable\n0\n")
    Path("bad").write_text(f"1\n{said}\n")
    files = {"hypotheses": "good", "references": "good"} | {role: "bad"}
    call = ["--task", "glue/cola", *(word for name in files for word in (f"--{name}", files[name]))]
    assert refused(capsys, *call).startswith("error: bad, line 2: ")
    for metric in ("accuracy", "f1", "matthews"):
        told = refused(capsys, *call, "--metrics", metric)
        assert "is no label of the task; must be one of: unacceptable, acceptable, or the index of one, 0 to 1" in told


@pytest.mark.parametrize("said", ["1.0", "true", "-1", "3", "null", "9" * 4000, '"one"', "1e999"])
def test_json_labels(capsys: pytest.CaptureFixture[str], said: str) -> None:
    Path("good").write_text("neutral\n0\n")
    Path("bad.jsonl").write_text('{"prediction": 1}\n{"prediction": ' + said + "}\n")
    told = refused(capsys, "--task", "mnli", "--hypotheses", "bad.jsonl", "--references", "good")
    assert told.startswith("error: bad.jsonl, line 2: ")


@pytest.mark.parametrize("said", ["nan", "NaN", "inf", "-Infinity", "1e999", "1_0", "", "high", "0x10", "1,5"])
@pytest.mark.parametrize("role", ["hypotheses", "references"])
def test_a_score_that_is_no_finite_number(capsys: pytest.CaptureFixture[str], role: str, said: str) -> None:
    Path("good").write_text("1\n2.5\n0\n")
    Path("bad").write_text(f"1\n{said}\n3\n")
    files = {"hypotheses": "good", "references": "good"} | {role: "bad"}
    told = refused(capsys, "--task", "glue/stsb", *(word for name in files for word in (f"--{name}", files[name])))
    assert told.startswith("error: bad, line 2: ") and told.endswith("is not a finite number\n")


def test_labels_need_one_file_of_as_many_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good").write_text("1\n0\n")
    Path("long").write_text("1\n0\n1\n")
    call = ["--task", "glue/cola", "--hypotheses", "good", "--references"]
    assert "long: 3 labels, but there are 2 hypotheses" in refused(capsys, *call, "long")
    assert "--references takes one file" in refused(capsys, *call, "good", "good")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_json_output_is_json_where_a_number_is_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    def no_constant(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    Path("same").write_text("1\n1\n1\n")
    Path("huge").write_text("1e300\n-1e308\n1e308\n")
    Path("good").write_text("1\n2\n4\n")
    for hypotheses in ("same", "huge", "good"):
        call = ["--task", "glue/stsb", "--metrics", "pearson,spearman", "--references", "good", "--json"]
        status = main([*call, "--hypotheses", hypotheses])
        printed = json.loads(capsys.readouterr().out, parse_constant=no_constant)
        assert status == (0 if printed["values"]["all"] else 1)
        assert set(printed["values"]["all"]) | set(printed["absent"]) == {"pearson", "spearman"}
