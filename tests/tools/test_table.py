"""The table command: what is missing is run, failures are kept apart, other settings never mix with published cells."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.packed import nf4
from alphatune.run import record
from alphatune.run.execute import execute
from alphatune.tables import experiment, tabulate, values, verdicts
from alphatune.tables.cells import Planner
from alphatune.tools import claims, report, table

SEARCHED = """
title: Small
seeds: [0, 1]
base: [task=toy, model=tiny]
own_process: false
columns:
  - {key: rate, label: Rate, value: hparams.learning_rate}
  - {key: valid_loss, label: Loss, digits: 3}
  - {key: bleu_all, label: BLEU}
rows:
  - {id: tiny/alphatuning, label: AlphaTuning, set: [method=alphatuning], search: [1e-3, 1e-2]}
  - {id: tiny/peqa, label: PEQA, set: [method=peqa], search_as: tiny/alphatuning,
     paper: {bleu_all: {mean: 50, ci95: 1}}}
source: "Nobody, Table 0"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of experiments of the test's own."""
    path = tmp_path / "experiments"
    path.mkdir()
    monkeypatch.setattr(experiment, "FOLDER", path)
    return path


@pytest.fixture
def alone(quick: list[str], shared_store: Path, tmp_path: Path) -> list[str]:
    """`quick` with a store that holds the backbone at most, whatever other tests have made."""
    if (shared_store / "backbone").is_dir():
        shutil.copytree(shared_store / "backbone", tmp_path / "store" / "backbone")
    return [*(o for o in quick if "runtime.artifacts" not in o), f"runtime.artifacts={tmp_path / 'store'}"]


def _small(quick: list[str]) -> list[str]:
    return [a for o in quick for a in ("--set", o)]


def test_the_demo_covers_every_method_of_ours_and_composes() -> None:
    from alphatune.groups import choices

    demo = experiment.load("demo")
    methods = {config_of([*demo.base, *row.set]).method.name for row in demo.rows}
    assert methods == set(choices("method")) - {"qlora"}  # which needs an extra
    assert len(demo.seeds) == 3


def test_unknown_names_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^experiment foo: no such file in experiments/; there is: .*demo"):
        experiment.load("foo")
    assert table.main(["demo", "--rows", "foo"]) == 2
    assert "--rows=foo: no such row; rows of this table: tiny/full_ft, " in capsys.readouterr().err


def test_the_plan_counts_shared_stages_without_data_or_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALPHATUNE_DATA", str(tmp_path / "none"))
    neutral = ["--set", f"runtime.records={tmp_path}", "--set", f"runtime.artifacts={tmp_path}", "--set",
               "data.offline=true"]  # fmt: skip
    assert table.main(["2", "--plan", "--rows", "gpt2-m/*", *neutral]) == 3  # nothing of it can run here
    # one PTQ each for q = 3, q = 2 and under LoRA; five each after full fine-tuning and after merging LoRA;
    # trained are FT, LoRA and AlphaTuning at q = 3 and 2, five seeds each
    assert "cost: 13 x quantize, 20 x adapt, 35 x decode, shared stages counted once" in capsys.readouterr().out


def test_rows_are_chosen_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["demo", "--rows", "tiny/ptq/*,tiny/lora", "--plan"]) == 0
    planned = capsys.readouterr().out
    assert "6 cells (2 rows)" in planned and "PTQ, no adaptation" in planned and "LoRA " in planned
    assert "AlphaTuning" not in planned


@pytest.mark.parametrize("wrong", [["--seeds", "a"], ["--jobs", "0"], ["--launcher", "cloud"]])
def test_wrong_options_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["demo", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and wrong[1] in said and said.count("\n") == 1


def test_a_table_runs_what_is_missing_and_twice_does_nothing(
    alone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "tiny/ptq/q3,tiny/alphatuning/q2"
    call = ["demo", "--rows", rows, "--seeds", "0,1", "--out", str(tmp_path / "out"), *_small(alone)]
    assert table.main([*call, "--plan"]) == 0
    planned = capsys.readouterr().out
    assert "4 cells (2 rows), 0 done, 4 to run" in planned
    # codes of q = 3 and q = 2; two adaptations; every seed decodes, also the unadapted model, whose text is the same
    assert "cost: 2 x quantize, 2 x adapt, 3 x decode, shared stages counted once" in planned
    assert "tiny: not measured yet: run one cell first (--rows 'tiny/" in planned
    assert table.main(call) == 0
    out = capsys.readouterr().out
    assert "AlphaTuning, q=2" in out and "no run yet" in out  # the other rows of the table, marked as missing
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    stems = {Path(f).suffix for f in files}
    assert stems == {".md", ".tex", ".csv", ".html", ".png", ".svg"}
    # settings that can change results make a table of their own
    assert all(f.startswith("demo--") for f in files)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").rglob("*.json")}
    assert len(before) == 4
    assert table.main(call) == 0
    assert "4 done, 0 to run" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "records").rglob("*.json")} == before
    assert table.main([*call, "--seeds", "0,1,2", "--plan"]) == 0
    assert "judged by past records" in capsys.readouterr().out


def test_other_settings_are_labelled_and_kept_apart(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["demo", "--rows", "tiny/ptq/q3", "--seeds", "0", "--out", str(tmp_path / "out")]
    call = [*plain, *_small(quick)]
    assert table.main([*plain, "--set", "decode.length_penalty=0.5", *_small(quick)]) == 0
    assert "decode.length_penalty=0.5" in capsys.readouterr().out
    pages = [p.name for p in (tmp_path / "out").glob("*.csv")]
    assert len(pages) == 1 and "decode.length_penalty=0.5" in pages[0]
    assert table.main([*call, "--render"]) == 0  # the table without that change does not show its run
    with next(p for p in (tmp_path / "out").glob("*.csv") if "decode.length_penalty=0.5" not in p.name).open() as f:
        assert all(not line["ours_mean"] for line in csv.DictReader(f) if line["column"] == "BLEU All")


def test_overrides_that_would_belie_a_row_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["demo", "--set", "quant.q=2", "--plan"]) == 2
    assert "parts of this table set quant.q themselves: tiny/ptq_full_ft/q3, " in capsys.readouterr().err
    assert table.main(["demo", "--set", "seed=3", "--plan"]) == 2
    assert "seeds are given by --seeds" in capsys.readouterr().err


def test_a_seed_counts_once_and_an_unwritable_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table.main(["demo", "--seeds", "0,1,0", "--rows", "tiny/lora", "--plan"]) == 0
    assert "2 cells" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert table.main(["table1", "--render", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_small_cells_run_at_once_in_processes_that_stay(
    alone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["demo", "--rows", "tiny/ptq/q3,tiny/full_ft", "--seeds", "0,1", "--out", str(tmp_path), *_small(alone)]
    assert table.main([*call, "--jobs", "2"]) == 0
    made = [json.loads(p.read_text()) for p in (tmp_path / "records").rglob("*.json")]
    assert len(made) == 4 and {r["environment"]["threads"] for r in made} == {1}
    assert table.main([*call, "--plan"]) == 0
    assert "4 done, 0 to run" in capsys.readouterr().out


def test_a_failed_cell_does_not_stop_the_others(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails_on_seed_0(config: Any, *args: Any, **more: Any) -> Path:
        if config.seed == 0:
            raise UserError("broken on purpose")
        return execute(config)

    monkeypatch.setattr("alphatune.run.execute.execute", fails_on_seed_0)
    call = ["demo", "--rows", "tiny/ptq/q3", "--seeds", "0,1", "--out", str(tmp_path), *_small(quick)]
    assert table.main(call) == 1
    printed = capsys.readouterr()
    assert "failed: tiny/ptq/q3 seed 0: broken on purpose" in printed.err
    assert len(list((tmp_path / "records").rglob("*.json"))) == 1


def test_a_search_chooses_on_the_validation_split_and_others_follow(
    quick: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "small.yaml").write_text(SEARCHED)
    call = ["small", "--out", str(tmp_path / "out"), *_small([o for o in quick if "learning_rate" not in o])]
    assert table.main([*call, "--plan"]) == 0
    assert "2 to run; then those of 2 rows whose learning rate is still searched" in capsys.readouterr().out
    assert table.main(call) == 0
    made = [record.read(p) for p in (tmp_path / "records").rglob("*.json")]
    searched = {r["config"]["hparams"]["learning_rate"]: r["validation_loss"] for r in made if not r["scores"]}
    assert set(searched) == {1e-3, 1e-2}
    best = min(searched, key=lambda rate: searched[rate])
    final = [r for r in made if r["scores"]]
    assert {r["config"]["hparams"]["learning_rate"] for r in final} == {best}
    assert sorted((r["config"]["method"]["name"], r["seed"]) for r in final) == [
        ("alphatuning", 0), ("alphatuning", 1), ("peqa", 0), ("peqa", 1),
    ]  # fmt: skip
    page = next((tmp_path / "out").glob("*.csv"))
    with page.open() as f:
        lines = list(csv.DictReader(f))
    bleu = next(line for line in lines if line["row"] == "tiny/peqa" and line["column"] == "BLEU")
    ours = [r["scores"]["all"]["bleu"]["value"] for r in final if r["config"]["method"]["name"] == "peqa"]
    assert float(bleu["ours_mean"]) == pytest.approx(sum(ours) / 2) and bleu["paper_mean"] == "50"
    capsys.readouterr()
    assert table.main(call) == 0
    assert "6 done, 0 to run" in capsys.readouterr().out
    worst = max(searched, key=lambda rate: searched[rate])
    for path in (tmp_path / "records").rglob("*.json"):
        gone = record.read(path)
        if not gone["scores"] and gone["config"]["hparams"]["learning_rate"] == worst:
            path.unlink()
    assert table.main([*call, "--render"]) == 0  # what is recorded still shows, and says what it rests on
    shown = capsys.readouterr().out
    assert "the search is not finished" in shown and f"{sum(ours) / 2:.1f}" in shown
    rendered = next((tmp_path / "out").glob("*.csv"))
    with rendered.open() as f:  # a substitute: the paper's value stands there, how far we are from it does not
        bleu = next(line for line in csv.DictReader(f) if line["row"] == "tiny/peqa" and line["column"] == "BLEU")
    assert bleu["ours_mean"] and bleu["paper_mean"] == "50" and not bleu["difference"]
    for path in (tmp_path / "records").rglob("*.json"):
        path.unlink()
    settings = [o for o in quick if "learning_rate" not in o]
    cells = Planner(experiment.load("small"), settings, run=False).cells()
    assert cells.total == 4 and not cells.final and len(cells.waiting) == 2  # rows that wait for a search count too


def test_a_row_may_have_seeds_of_its_own(quick: list[str], folder: Path) -> None:
    rows = SEARCHED.replace(", search: [1e-3, 1e-2]", ", seeds: [0, 1, 2]").replace(", search_as: tiny/alphatuning", "")
    (folder / "small.yaml").write_text(rows)
    read = experiment.load("small")
    cells = Planner(read, quick, run=False).cells()
    assert [(c.row.id, c.seed) for c in cells.final if c.seed == 2] == [("tiny/alphatuning", 2)] and cells.total == 5
    lines = {line.id: line for line in tabulate.grid("small", read, tabulate.Results(cells), [], []).lines}
    assert (lines["tiny/alphatuning"].of, lines["tiny/peqa"].of) == (3, 2)
    test = verdicts.Test(["small"], "alphatuning", "peqa", "bleu_all")
    (outcome,) = verdicts.outcomes(test, "small", verdicts.Tables(quick))
    assert outcome.count == "0 of 2"  # what both rows have is compared


def test_a_table_that_needs_a_folder_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SEARCHED + "needs: {model.name_or_path: the folder of a small model}\n"
    (folder / "small.yaml").write_text(text)
    records = ["--set", f"runtime.records={tmp_path}", "--out", str(tmp_path)]
    assert table.main(["small", *records]) == 2
    assert "cannot run without --set model.name_or_path=...: the folder of a small model" in capsys.readouterr().err
    assert table.main(["small", "--render", *records]) == 0


@pytest.mark.slow
def test_slurm_gets_arrays_in_waves_and_then_renders(
    alone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for sbatch runs every array task at once, as bash with its index: the scripts are really executed."""
    calls = tmp_path / "calls"
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!{sys.executable}\n"
        "import os, re, subprocess, sys\n"
        f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "array = [a for a in sys.argv if a.startswith('--array=')]\n"
        "if array:\n"
        "    first, last = map(int, re.match(r'--array=(\\d+)-(\\d+)', array[0]).groups())\n"
        "    for i in range(first, last + 1):\n"
        "        subprocess.run(['bash', sys.argv[-1]], env=os.environ | {'SLURM_ARRAY_TASK_ID': str(i)}, check=True,\n"
        "                       stdout=sys.stderr)\n"
        "print(sum(1 for _ in open(" + repr(str(calls)) + ")))\n"
    )
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(table.__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    rows = "tiny/full_ft,tiny/ptq_full_ft/q3"
    call = ["demo", "--rows", rows, "--seeds", "0", "--out", str(tmp_path / "out"), "--launcher", "slurm"]
    assert table.main([*call, "--sbatch", "--partition=gpu --time=1:00:00", "--jobs", "4", *_small(alone)]) == 0
    assert "submitted 2 cells as jobs 1, 2, 3" in capsys.readouterr().out
    first, second, render = calls.read_text().splitlines()
    assert first.startswith("--parsable --array=0-0%4 --partition=gpu --time=1:00:00 ")
    assert second.startswith("--parsable --array=0-0%4 --dependency=afterany:1 --partition=gpu")
    assert "--dependency=afterany:2" in render and "alphatune.table demo --render" in render
    made = [record.read(p) for p in (tmp_path / "records").rglob("*.json")]
    assert {r["config"]["method"]["name"] for r in made} == {"full_ft", "ptq_full_ft"}
    # the second wave found the fine-tuning of the first
    assert "adapt" in next(r for r in made if r["config"]["method"]["name"] == "ptq_full_ft")["stages"]
    wrapped = render.split("--wrap=")[1]
    done = subprocess.run(["bash", "-c", wrapped], capture_output=True, text=True)
    assert done.returncode == 0 and list((tmp_path / "out").glob("*.html")), done.stderr


def test_a_later_submission_leaves_the_list_of_queued_jobs_alone(
    alone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 1\n")  # nothing starts yet
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    call = ["demo", "--seeds", "0", "--launcher", "slurm", *_small(alone)]
    assert table.main([*call, "--rows", "tiny/full_ft"]) == 0
    queued = {path: path.read_text() for path in (tmp_path / "outputs").rglob("wave*.txt")}
    assert len(queued) == 1
    assert table.main([*call, "--rows", "tiny/lora"]) == 0
    assert {path: path.read_text() for path in queued} == queued
    assert len(list((tmp_path / "outputs").rglob("wave*.txt"))) == 2


def test_slurm_without_sbatch_is_refused(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    call = ["demo", "--rows", "tiny/ptq/q3", "--seeds", "0", "--launcher", "slurm", *_small(quick)]
    assert table.main(call) == 2
    assert "--launcher=slurm: there is no sbatch on this machine" in capsys.readouterr().err


def test_not_a_number_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finite number, so no record was written"):
        record.write(tmp_path / "r.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 99}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json: not a (readable record|record of schema)"):
        record.read(path)


def test_a_plan_knows_codes_that_cannot_be_had_here(
    quick: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "nf4.yaml").write_text(
        SEARCHED.replace("set: [method=alphatuning], search: [1e-3, 1e-2]", "set: [method=qlora], search: [1e-3]")
    )
    for there, told in ((False, ["method=qlora: needs bitsandbytes: pip install 'alphatune[qlora]'"]), (True, [])):
        monkeypatch.setattr(nf4, "installed", lambda there=there: there)
        (cell,) = Planner(experiment.load("nf4"), quick, run=True).cells().search
        assert list(cell.obstacles) == told


def test_a_search_may_look_at_less_than_the_rows_do(quick: list[str], folder: Path) -> None:
    (folder / "whole.yaml").write_text(SEARCHED)
    (folder / "less.yaml").write_text(SEARCHED + "search_with: [data.validation_limit=2]\n")
    whole, less = (Planner(experiment.load(name), quick, run=False).cells() for name in ("whole", "less"))
    assert [c.config.data.validation_limit for c in whole.search + less.search] == [None, None, 2, 2]
    for a, b in zip(whole.search, less.search, strict=True):
        assert a.outline.run_id != b.outline.run_id and a.config.hparams == b.config.hparams


def test_after_a_run_the_page_shows_what_a_rendering_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # records of earlier code are committed there, and LoRA's are today's
    ends = []
    for name, how in (("run", []), ("rendered", ["--render"])):
        assert table.main(["claims_tiny", "--rows", "tiny/lora", "--out", str(tmp_path / name), *how]) == 0
        ends.append((tmp_path / name / "claims_tiny.md").read_text())
    assert ends[0] == ends[1] and "earlier version" in ends[0]


def test_overrides_that_would_belie_a_column_or_a_search_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SEARCHED.replace("label: BLEU}", "label: BLEU, set: [quant.q=2]}")
    (folder / "small.yaml").write_text(text)
    for wrong, told in (
        ("quant.q=4", "parts of this table set quant.q themselves: bleu_all"),
        ("hparams.learning_rate=1", "rows of this table search it: tiny/alphatuning, tiny/peqa"),
    ):
        assert table.main(["small", "--plan", "--set", wrong]) == 2
        assert told in capsys.readouterr().err
    (folder / "tasks.yaml").write_text(SEARCHED.replace("label: BLEU}", "label: BLEU, set: [task=toy]}"))
    assert table.main(["tasks", "--plan", "--set", "task=webnlg"]) == 2
    assert "parts of this table set task themselves: bleu_all" in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new", "told"), [
    ("value: hparams.learning_rate", "value: hparams.lr", "column rate: there is no setting hparams.lr"),
    ("value: hparams.learning_rate", "value: method.lora", "column rate: method.lora is a group of settings"),
    ("seeds: [0, 1]", "seeds: []", "seeds is empty"),
    ("title: Small", "title: Small\nfigure: bars", "figure=bars: must be one of: scores_and_curves, loss_curves"),
    ("title: Small", "title: Small\nclaims: [{text: T, metric: bleu_all, left: tiny/peqa, right: tiny/alphatuning, "
     "margin: 1, kind: below}]", "a claim of the kind below: must be one of: above, close"),
])  # fmt: skip
def test_mistakes_in_an_experiment_are_told_before_anything_runs(
    old: str, new: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in SEARCHED
    (folder / "small.yaml").write_text(SEARCHED.replace(old, new))
    assert table.main(["small", "--plan"]) == 2
    assert f"small.yaml: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["table", "report", "claims"])
def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Planner, "cells", lambda self: pytest.fail("it was worked for"))
    out = str(tmp_path / "file" / "x")
    call = {"table": (table, ["demo", "--out", out]), "report": (report, ["demo", "--out", out]),
            "claims": (claims, ["--out", out])}[command]  # fmt: skip
    assert call[0].main(call[1]) == 2
    assert f"--out {out}: " in capsys.readouterr().err


def test_a_plan_needs_no_folder_to_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert table.main(["demo", "--plan", "--out", str(tmp_path / "file" / "x")]) == 0


@pytest.mark.parametrize("command", [report, claims])
def test_pages_without_a_label_for_it_take_no_setting_that_changes_results(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, told in (
        ("model=tiny", "--set model=tiny: can change results"),
        ("runtime.record=here", "runtime.record"),  # a misspelling
    ):
        assert command.main(["--out", str(tmp_path), "--set", wrong]) == 2
        assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_layer_that_no_model_has_is_one_line() -> None:
    row = experiment.Row("tiny/x", "X", layer="attn.none")
    with pytest.raises(UserError, match="layer=attn.none: the model has no such linear layer; there are: c_attn"):
        values.of_config(config_of(["task=toy", "model=tiny"]), row, "layer_mb")
