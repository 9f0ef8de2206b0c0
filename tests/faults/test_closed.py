"""Lets no one in: names stay in their folders, files ask for nothing, pages run nothing, secrets stay out."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.data.remote import catalogue
from alphatune.data.remote.download import fetch
from alphatune.errors import UserError
from alphatune.pages import html, render
from alphatune.run.execute import execute, main
from alphatune.search import sweep
from alphatune.tables.grid import Grid, GridCell, Line
from alphatune.tools import report

BAD = ["../../../x", "..", "/etc", ".hidden", "a\\b", "a\nb", ""]


@pytest.mark.parametrize("key", ["task.name", "model.name", "method.name"])
@pytest.mark.parametrize("name", BAD)
def test_a_name_never_leaves_its_folder(
    key: str, name: str, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, or one part of a path. The model's empty name is that of its weights."""
    from alphatune.run import identity, record

    config = config_of(quick)
    part, field = key.split(".")
    setattr(getattr(config, part), field, name)
    try:
        run_id = identity.plan(config, {}, {}).run_id
    except UserError as error:
        assert str(error).startswith(f"{key}=") and "\n" not in str(error)
    else:
        path = record.path_of(str(tmp_path), run_id)
        assert path.resolve().is_relative_to(tmp_path) and len(path.relative_to(tmp_path).parts) == 4


@pytest.mark.parametrize("override", ["model.name=../../../x", "task.name=", "method.name=.."])
def test_such_a_run_is_refused_before_anything_is_written(
    override: str, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [o for o in quick if "runtime.artifacts" not in o]
    assert main([*given, f"runtime.artifacts={tmp_path / 'store'}", override]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["data.dir=${oc.env:SECRET}/x", "logger.group='${oc.env:SECRET}'",
                                   "hparams.provenance=${oc.decode:1}"])  # fmt: skip
def test_the_environment_does_not_come_in_by_overrides(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "s3cr3t-value")
    assert main([given]) == 2
    shown = capsys.readouterr()
    assert "is not read here" in shown.err and "s3cr3t-value" not in shown.err + shown.out


def test_a_sweep_file_has_no_tags_and_no_aliases(tmp_path: Path) -> None:
    for name, text in {"tag": "method: !!python/name:os.system", "alias": "a: &x 1\nb: *x"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        with pytest.raises(UserError, match="are not read"):
            sweep.load(str(tmp_path / f"{name}.yaml"))


def test_no_file_of_the_package_unpacks_archives_or_trusts_what_it_loads() -> None:
    """There is no archive to check member by member: none is read. What is loaded is safetensors, JSON, text."""
    words = (r"\b(import (pickle|marshal|shelve|dill|tarfile|zipfile)|torch\.(load|save)\(|unpack_archive|extractall|"
             r"weights_only=False|trust_remote_code=True|yaml\.(load|unsafe_load|full_load)\(|allow_pickle=True|"
             r"(?<![.\w])(eval|exec)\(|shell=True)")  # fmt: skip
    for path in sorted((ROOT / "alphatune").rglob("*.py")):
        assert not re.search(words, path.read_text(encoding="utf-8")), path


def test_downloads_are_https_with_a_pinned_hash() -> None:
    files = [f for entry in (catalogue._WEBNLG, catalogue._DART, catalogue._E2E) for f in entry.files]
    assert len(files) == 9
    for file in files:
        assert re.fullmatch("[0-9a-f]{40}", file.git_blob) and all(url.startswith("https://") for url in file.urls)
    assert all(re.fullmatch("[0-9a-f]{40}", hub.revision) for hub in [catalogue._SAMSUM.hub] if hub)


def test_another_scheme_than_https_is_refused(tmp_path: Path) -> None:
    remote = catalogue.Remote("x.txt", ("http://localhost/x.txt",), "0" * 40)
    with pytest.raises(UserError, match="only https addresses are downloaded"):
        fetch(catalogue.Release(("x",), (remote,)), tmp_path / "x")


def test_secrets_of_the_environment_are_in_no_record_log_or_artefact(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "USER", "HOSTNAME"):
        monkeypatch.setenv(name, "s3cr3t-value")
    given = [o for o in quick if "runtime.artifacts" not in o]
    execute(config_of([*given, f"runtime.artifacts={tmp_path / 'store'}", "method=ptq", "model.tiny.steps=1"]))
    shown = capfd.readouterr()
    assert "s3cr3t-value" not in shown.out + shown.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if b"s3cr3t-value" in path.read_bytes()]


EVIL = ["=cmd()", "+cmd()", "-cmd()", "@cmd()", "<script>alert(1)</script>", "<img src=x onerror=y>",
        "[a](javascript:alert(1))", "\\input{x}", "$x$ & % # _ { } ~ ^", "\t=cmd()"]  # fmt: skip


def _grid(text: str) -> Grid:
    cell = GridCell(
        ours="-1.5 ± 0.1", mean=-1.5, ci95=0.1, n=2, paper="2", paper_mean=2.0, difference="-3.5", note=text
    )
    line = Line(text, text, text, [cell], 2, 2, [], text, text)
    return Grid(name="t", title=text, columns=[text], lines=[line], note=text, source=text, interval=text,
                substitute="", statements=[f"**reproduced**: {text}"], footer=[text], pictures=[])  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_pages_show_what_they_are_given_and_run_none_of_it(text: str) -> None:
    grid = _grid(text)
    page = html.page(grid, {})
    assert "<script>alert" not in page and "<img src=x" not in page
    markdown = render.markdown(grid)
    assert not re.search(r"(?<!\\)<(script|img)", markdown) and "](javascript" not in markdown
    latex = render.latex(grid)
    assert "\\input{x}" not in latex and "$x$" not in latex
    rows = list(csv.reader(io.StringIO(render.csv(grid))))
    cells = [cell for row in rows[1:] for cell in row]
    assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+@") or cell.startswith(("-c", "\t"))]
    assert {"-1.5", "0.1", "2.0", "-3.5"} <= set(cells)  # numbers stay numbers


def test_one_bad_experiment_and_one_bad_record_are_named_and_the_other_pages_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alphatune.tables import experiment

    folder = tmp_path / "experiments"
    folder.mkdir()
    good = "title: Good\ncolumns: [{key: bleu_all, label: B}]\nrows: [{id: tiny/lora, label: L, set: [method=lora]}]\n"
    (folder / "good.yaml").write_text(good)
    (folder / "bad.yaml").write_text("title: !!python/name:os.system\n")
    (folder / "claims.yaml").write_text("claims: []\n")
    records = tmp_path / "records" / "toy" / "tiny" / "lora"
    records.mkdir(parents=True)
    (records / "seed0-0123456789.json").write_text('{"schema": 1, "run_id": 5}')
    monkeypatch.setattr(experiment, "FOLDER", folder)
    out = tmp_path / "out"
    status = report.main(["--out", str(out), "--set", f"runtime.records={tmp_path / 'records'}"])
    shown = capsys.readouterr()
    assert status == 1
    assert "left out: bad: bad.yaml line 1: tags" in shown.err
    assert f"left out: {records / 'seed0-0123456789.json'}: " in shown.err
    assert (out / "good.html").is_file() and (out / "index.html").is_file() and not (out / "bad.html").exists()
