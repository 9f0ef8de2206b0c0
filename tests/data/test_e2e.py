"""E2E: LoRA's lines, and the CSV whose contexts can be converted while its texts cannot."""

from __future__ import annotations

import json

import pytest

from alphatune.data import e2e
from alphatune.data.load import task_config
from alphatune.errors import UserError

TASK = task_config("e2e")


def test_lines(tmp_path):
    (tmp_path / "train.txt").write_bytes(
        "name : Café Uno | price : £ 20 - 25||Café Uno isn 't cheap . \nname : Duo||Duo is open . \n".encode()
    )
    (tmp_path / "valid.txt").write_bytes(b"name : Duo||Duo is open . \r\nname : Duo||Try Duo . \r\n")
    (tmp_path / "test.txt").write_bytes(b"name : A||One . \nname : B||Two . \nname : A||Three . \nname : C||\n")
    dataset = e2e.read(tmp_path, TASK)
    assert [(e.text, e.targets) for e in dataset.train] == [
        ("name : Café Uno | price : £ 20 - 25", ("Café Uno isn 't cheap .",)),
        ("name : Duo", ("Duo is open .",)),
    ]
    assert [(e.text, e.targets) for e in dataset.validation] == [("name : Duo", ("Duo is open .", "Try Duo ."))]
    assert [(e.text, e.targets) for e in dataset.test] == [("name : A", ("One .", "Three .")), ("name : B", ("Two .",))]
    assert dataset.notes == {"test: empty texts dropped": 1}
    assert list(dataset.files) == ["train.txt", "valid.txt", "test.txt"]


def test_a_line_without_separator_is_named(tmp_path):
    (tmp_path / "test.txt").write_text("name : A||One .\nname : B One .\n")
    with pytest.raises(UserError, match=r"test\.txt line 2: the line is 'name : B One \.', must be context\|\|text"):
        e2e.read(tmp_path, TASK)


def test_csv_contexts_are_lora_s_and_scores_are_marked(tmp_path):
    mr = "near[Pier 9], name[Duo], familyFriendly[no], priceRange[£20-25]"
    rows = f'mr,ref\n"{mr}","Duo, at ""Pier 9"", isn\'t cheap.\nSo!"\n'
    for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"):
        (tmp_path / name).write_bytes(rows.replace("\n", "\r\n", 1).encode())
    dataset = e2e.read(tmp_path, TASK)
    assert dataset.test[0].text == "name : Duo | price : £ 20 - 25 | family friendly : no | near : Pier 9"
    assert dataset.test[0].targets == ('Duo , at " Pier 9 " , is n\'t cheap . So !',)
    assert dataset.notes == {e2e.CSV_NOTE: 3}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("less than £20", "less than £ 20"),
        ("more than £30", "more than £ 30"),
        ("£20-25", "£ 20 - 25"),
        ("moderate", "moderate"),
    ],
)
def test_prices(raw, shown):
    assert e2e.context_of(f"name[Duo], priceRange[{raw}]") == f"name : Duo | price : {shown}"


@pytest.mark.parametrize("mr", ["", "Duo", "name[Duo], stars[5]", "name[Duo] and more", "name[Duo], name[Uno]"])
def test_strange_meaning_representations_are_refused(tmp_path, mr):
    assert e2e.context_of(mr) is None
    (tmp_path / "devset.csv").write_text(f'mr,ref\nname[Ok],Fine.\n"{mr}",A text.\n')
    with pytest.raises(UserError, match=r"devset\.csv line 3: mr is '.*', must be slot\[value\], \.\.\. with each"):
        e2e.read(tmp_path, TASK)


def test_formatted_and_refusals(tmp_path):
    with pytest.raises(UserError, match="no E2E files here"):
        e2e.read(tmp_path, TASK)
    (tmp_path / "trainset.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"trainset\.csv line 2: mr is missing, must be text"):
        e2e.read(tmp_path, TASK)
    (tmp_path / "test_formatted.jsonl").write_text(json.dumps({"context": "name : A", "completion": "A ."}) + "\n")
    assert e2e.read(tmp_path, TASK).test[0].targets == ("A .",)
