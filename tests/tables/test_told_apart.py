"""What could be taken for one another in a table and is not: data folders, trials and finals, columns, subsets."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import QUICK

from alphatune.errors import UserError
from alphatune.run import record
from alphatune.run.execute import execute
from alphatune.tables import experiment, values
from alphatune.tables.cells import Planner
from alphatune.tables.experiment import Column, Experiment, Row, Statement
from alphatune.tables.merge import merged
from alphatune.tables.tabulate import Results, judged


def _rte(folder: Path, labels: str) -> str:
    folder.mkdir()
    for split in ("train", "dev"):
        rows = [f"{i}\ta film\ta good film {i}\t{labels}" for i in range(8)]
        (folder / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
    return f"data.dir={folder}"


def test_rows_of_two_data_folders_are_two_runs(tmp_path: Path) -> None:
    base = [*QUICK, "task=glue/rte", "data.allow_count_mismatch=true", "method=ptq", f"runtime.records={tmp_path}"]
    rows = [Row("a", "A", set=[_rte(tmp_path / "a", "entailment")]),
            Row("b", "B", set=[_rte(tmp_path / "b", "not_entailment")])]  # fmt: skip
    table = Experiment("t", columns=[Column("valid_loss", "loss")], rows=rows, base=base, seeds=[0])
    one, other = Planner(table, [], run=True).cells().final
    assert one.plan is not None and other.plan is not None and one.plan.run_id != other.plan.run_id


def test_a_search_decodes_nothing_whatever_is_set_for_all_cells(tmp_path: Path) -> None:
    rows = [Row("a", "A", set=["method=lora"], search=[1e-3, 1e-2, 1e-1])]
    table = Experiment("t", columns=[Column("bleu_all", "BLEU")], rows=rows, base=list(QUICK), seeds=[0])
    given = ["task.metrics=[bleu,ter]", "task.evaluate_on=test", f"runtime.records={tmp_path}"]
    cells = Planner(table, given, run=True).cells()
    assert [cell.config.task.metrics for cell in cells.search] == [[]] * 3
    assert {cell.config.task.evaluate_on for cell in cells.search} == {"validation"}


def test_a_subset_and_a_metric_may_have_underscores() -> None:
    made = {"sizes": {}, "scores": {"out_of_domain": {"bleu": {"value": 1.0}, "bleu_e2e": {"value": 2.0}},
                                    "all": {"bleu_e2e": {"value": 3.0}}}}  # fmt: skip
    names = ("bleu_out_of_domain", "bleu_e2e_out_of_domain", "bleu_e2e_all", "bleu_all", "lsos_all")
    assert [values.of_record(made, name) for name in names] == [1.0, 2.0, 3.0, None, None]


def test_a_statement_is_on_a_column_with_its_own_settings_scale_and_digits(tmp_path: Path) -> None:
    base = [*QUICK, "method=ptq", "task.metrics=[loss]", f"runtime.artifacts={tmp_path / 'store'}",
            f"runtime.records={tmp_path}"]  # fmt: skip
    columns = [Column("a", "A", value="loss_all"), Column("b", "B", value="loss_all", scale=1000, set=["quant.q=1"])]
    rows = [Row("x", "X", set=["quant.group_size=null"]), Row("y", "Y", set=["quant.group_size=8"])]
    table = Experiment("t", columns=columns, rows=rows, base=base, seeds=[0])
    table.claims = [Statement("x has a higher loss", "b", "x", "y", 0.0)]
    cells = Planner(table, [], run=True).cells()
    losses = {}
    for cell in cells.final:
        made = record.read(execute(cell.config))
        losses[cell.row.id, cell.config.quant.q] = made["scores"]["all"]["loss"]["value"]
    results = Results(Planner(table, [], run=True).cells())
    (verdict,) = judged(table, results)
    assert verdict.difference is not None and verdict.difference.n == 1
    assert verdict.difference.mean == pytest.approx(1000 * (losses["x", 1] - losses["y", 1]))


@pytest.mark.parametrize(("text", "told"), [
    ("claims: [{text: t, metric: loss, left: a, right: a, margin: 0}]", "a claim on loss, which is no column of the"),
    ("columns: [{key: valid_loss, label: L, digits: -1}]", "column valid_loss: digits=-1: must be from 0 to 12"),
])  # fmt: skip
def test_what_no_page_could_show_is_refused(text: str, told: str, tmp_path: Path) -> None:
    rest = "" if "columns" in text else "columns: [{key: valid_loss, label: L}]\n"
    (tmp_path / "mine.yaml").write_text(f"title: t\n{rest}rows: [{{id: a, label: A}}]\n{text}\n")
    with pytest.raises(UserError, match=told):
        experiment.load(str(tmp_path / "mine.yaml"))


def test_rows_that_become_one_run_keep_the_seeds_of_both() -> None:
    rows = [Row("a", "A", set=["model=gpt2"], seeds=[0]), Row("b", "B", set=["model=gpt2-medium"], seeds=[0, 3])]
    table = Experiment("t", columns=[Column("valid_loss", "loss")], rows=rows, base=["task=toy"], seeds=[0, 1])
    found, _ = merged(table, ["model=tiny"])
    assert [(row.id, row.seeds) for row in found.rows] == [("a", [0, 3])]
