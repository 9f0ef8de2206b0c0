"""GLUE: headers, marks, quotation marks, hidden labels, and label order, in each distribution."""

from __future__ import annotations

import dataclasses
import json

import pytest

from alphatune.data import glue
from alphatune.data.load import task_config
from alphatune.errors import UserError


def task(name: str):
    return task_config(f"glue/{name}")


def test_cola_has_no_header_but_its_test_file_has(tmp_path):
    (tmp_path / "train.tsv").write_text('ab12\t1\t\tShe said "go.\nab12\t0\t*\tGo she "said".\n')
    (tmp_path / "dev.tsv").write_text("ab12\t0\t*\tWent he.")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tA test.\n")
    dataset = glue.read(tmp_path, task("cola"))
    assert [(e.text, e.label, e.text_pair) for e in dataset.train] == [
        ('She said "go.', 1, None),
        ('Go she "said".', 0, None),
    ]
    assert [(e.text, e.label) for e in dataset.validation] == [("Went he.", 0)]
    assert [(e.id, e.text, e.label) for e in dataset.test] == [("test-0", "A test.", None)]


def test_mrpc_has_a_mark_and_quotation_marks(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    (tmp_path / "dev.tsv").write_bytes((header + '1\t7\t8\t" It is\t" so "\r\n0\t7\t9\tA \u2028 b\tC\r\n').encode())
    dataset = glue.read(tmp_path, task("mrpc"))
    assert [(e.text, e.text_pair, e.label) for e in dataset.validation] == [
        ('" It is', '" so "', 1),
        ("A \u2028 b", "C", 0),
    ]
    assert dataset.train == dataset.test == []


def test_stsb_is_a_regression(tmp_path):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
    (tmp_path / "dev.tsv").write_text(f"{header}\tscore\n0\tg\tf\t2012\t1\tn\tn\tOne.\tTwo.\t3.800\n")
    (tmp_path / "test.tsv").write_text(f"{header}\n0\tg\tf\t2012\t1\tn\tn\tOne.\tTwo.\n")
    dataset = glue.read(tmp_path, task("stsb"))
    assert [(e.text, e.text_pair, e.label) for e in dataset.validation] == [("One.", "Two.", 3.8)]
    assert isinstance(dataset.validation[0].label, float)
    assert dataset.test[0].label is None


def test_label_names_follow_the_hub_s_order(tmp_path):
    header = "index\tsentence1\tsentence2\tlabel\n"
    (tmp_path / "dev.tsv").write_text(header + "0\tA\tB\tentailment\n1\tA\tC\tnot_entailment\n")
    assert [e.label for e in glue.read(tmp_path, task("rte")).validation] == [0, 1]


def test_mnli_tsv_has_two_validation_parts(tmp_path):
    header = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n"
    (tmp_path / "train.tsv").write_text(header + "0\t1\t1n\tg\tP\tH\tneutral\tneutral\n")
    (tmp_path / "dev_matched.tsv").write_text(header + "0\t1\t1n\tg\tP\tH\tneutral\tcontradiction\n")
    (tmp_path / "dev_mismatched.tsv").write_text(header + "0\t1\t1n\tg\tP\tH\tneutral\tentailment\n")
    dataset = glue.read(tmp_path, task("mnli"))
    assert [(e.id, e.subset, e.label) for e in dataset.validation] == [
        ("validation-0", "matched", 2),
        ("validation-1", "mismatched", 0),
    ]
    assert dataset.train[0].subset == "all"


@pytest.mark.parametrize("keys", [("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label")])
def test_mnli_json_lines(tmp_path, keys):
    rows = [("P1", "H1", "neutral"), ("P2", "H2", "-")]  # "-": the annotators did not agree
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (tmp_path / "dev_matched.jsonl").write_text("\n".join(lines))
    dataset = glue.read(tmp_path, task_config("mnli"))
    assert [(e.text, e.text_pair, e.label, e.subset) for e in dataset.validation] == [("P1", "H1", 1, "matched")]
    assert dataset.notes == {"validation: rows without a gold label dropped": 1}


def test_qqp_has_broken_lines(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    (tmp_path / "dev.tsv").write_text(header + "1\t1\t2\tWhy?\tHow?\t0\n2\t3\t4\tbroken\n5\t1\t2\tA?\tB?\t1\n")
    dataset = glue.read(tmp_path, task("qqp"))
    assert [e.label for e in dataset.validation] == [0, 1]
    assert dataset.notes == {"dev.tsv: broken lines dropped": 1}


def parquet(path, rows, names=None):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(rows)
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, path)


def test_the_hub_s_parquet(tmp_path):
    names = ["negative", "positive"]
    parquet(tmp_path / "train-00000-of-00002.parquet", [{"sentence": "good ", "label": 1, "idx": 0}], names)
    parquet(tmp_path / "train-00001-of-00002.parquet", [{"sentence": "bad ", "label": 0, "idx": 1}], names)
    parquet(tmp_path / "validation.parquet", [{"sentence": "fine ", "label": 1, "idx": 0}], names)
    parquet(tmp_path / "test.parquet", [{"sentence": "well ", "label": -1, "idx": 0}], names)
    dataset = glue.read(tmp_path, task("sst2"))
    assert [(e.id, e.text, e.label) for e in dataset.train] == [("train-0", "good ", 1), ("train-1", "bad ", 0)]
    assert dataset.test[0].label is None
    assert len(dataset.files) == 4


def test_another_label_order_in_the_parquet_is_refused(tmp_path):
    parquet(tmp_path / "validation.parquet", [{"sentence": "fine", "label": 1}], ["positive", "negative"])
    with pytest.raises(UserError, match=r"its labels are \['positive', 'negative'\]"):
        glue.read(tmp_path, task("sst2"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A\tB\tC\tmaybe", "dev.tsv line 2: label is 'maybe', must be one of: entailment, not_entailment; or their"),
        ("A\tB\tC\t7", "label is '7', must be one of"),
        ("A\tB\tC\t", "label is '', must be one of"),
        ("A\tB\tC", "dev.tsv line 2: 3 fields, must be 4 as in the header"),
        ("A\tB\tC\t0\t1", "dev.tsv line 2: 5 fields"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, message):
    (tmp_path / "dev.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n{line}\n")
    with pytest.raises(UserError, match=message):
        glue.read(tmp_path, task("rte"))


def test_files_of_another_task_are_not_taken(tmp_path):
    headers = {
        "cola": "ab\t1\t\tText.",
        "sst2": "sentence\tlabel",
        "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "stsb": "index\tsentence1\tsentence2\tscore",
        "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "qnli": "index\tquestion\tsentence\tlabel",
        "rte": "index\tsentence1\tsentence2\tlabel",
    }
    for name, header in headers.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "dev.tsv").write_text(header + "\n", encoding="utf-8")
    assert {(n, o) for n in headers for o in headers if glue.fits(tmp_path / o, task(n))} == {(n, n) for n in headers}
    with pytest.raises(UserError, match="no files of GLUE rte here"):
        glue.read(tmp_path / "cola", task("rte"))
    with pytest.raises(UserError, match="task.variant=wnli: must be one of"):
        glue.read(tmp_path, dataclasses.replace(task("rte"), variant="wnli"))
