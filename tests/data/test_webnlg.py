"""WebNLG: three layouts, one reading."""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest

from alphatune.data import webnlg
from alphatune.data.load import task_config
from alphatune.errors import UserError

TASK = task_config("webnlg")

# category, triples, (comment, text): our own sentences.
ENTRIES = {
    "train": [
        (
            "Airport",
            [("Oak_Field", "runwayLength", '"1,200" m')],
            [("good", "Oak Field is 1,200 m."), ("toFix", "Bad.")],
        ),
        (
            "City",
            [("Zürich–Süd", "leader", "Ann_O'Neil"), ("Ann_O'Neil", "age", "50")],
            [("good", "Ann &amp; Zürich.")],
        ),
        ("Food", [("Soup", "country", "Nowhere")], [("toFix", "Soup from nowhere.")]),
    ],
    "dev": [
        ("Building", [("Tall_House", "floors", "9")], [("good", "It has nine floors."), ("good", "Nine floors.")]),
        ("Food", [("Tall_House", "floors", "9")], [("good", "Tall House has 9 floors.")]),
    ],
    "test": [
        (
            "Airport",
            [("Elm_Field", "city", "Elmton")],
            [("good", "Elm Field serves Elmton."), ("good", "Elmton has it.")],
        ),
        ("Artist", [("Jo", "genre", "Folk  <music>")], [("good", "Jo plays folk.")]),
    ],
}


def write_json(folder: Path) -> None:
    for split, entries in ENTRIES.items():
        wrapped = [
            {
                str(i + 1): {
                    "category": category,
                    "modifiedtripleset": [{"subject": s, "property": p, "object": o} for s, p, o in triples],
                    "lexicalisations": [{"comment": c, "lex": t, "lang": "", "xml_id": "Id1"} for c, t in texts],
                }
            }
            for i, (category, triples, texts) in enumerate(entries)
        ]
        (folder / f"{split}.json").write_text(json.dumps({"entries": wrapped}), encoding="utf-8")


def write_xml(folder: Path) -> None:
    for split, entries in ENTRIES.items():
        for number, (category, triples, texts) in enumerate(entries):
            place = folder / split / f"{number + 1}triples" if split != "test" else folder / "test"
            place.mkdir(parents=True, exist_ok=True)
            body = "".join(f"<mtriple>{escape(' | '.join(t))}</mtriple>" for t in triples)
            lex = "".join(f'<lex comment="{c}" lid="Id1">{escape(t)}</lex>' for c, t in texts)
            entry = f"<entry category={quoteattr(category)} eid='Id1'><originaltripleset><otriple>x | y | z</otriple>"
            entry += f"</originaltripleset><modifiedtripleset>{body}</modifiedtripleset>\n{lex}</entry>"
            name = "testdata_with_lex.xml" if split == "test" else f"{category}.xml"
            path = place / name
            start = path.read_text(encoding="utf-8") if path.exists() else "<benchmark><entries>"
            path.write_text(start.split("</entries>")[0] + entry + "</entries></benchmark>", encoding="utf-8")
    for name in ("testdata_no_lex.xml", "testdata_unseen_with_lex.xml"):  # the same inputs again: must not be read
        (folder / "test" / name).write_bytes((folder / "test" / "testdata_with_lex.xml").read_bytes())


def write_formatted(folder: Path) -> None:
    for split, entries in ENTRIES.items():
        rows = [
            {"context": webnlg.linearise(triples), "completion": text, "cate": category in webnlg.SEEN}
            for category, triples, texts in entries
            for comment, text in texts
            if comment == "good"
        ]
        name = f"{'valid' if split == 'dev' else split}_formatted.jsonl"
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


@pytest.mark.parametrize("write", [write_json, write_xml, write_formatted])
def test_every_layout_gives_the_same_examples(tmp_path, write):
    write(tmp_path)
    assert webnlg.fits(tmp_path, TASK)
    dataset = webnlg.read(tmp_path, TASK)

    assert [(e.text, e.targets, e.subset) for e in dataset.train] == [
        ('Oak_Field : runwayLength : "1,200" m', ("Oak Field is 1,200 m.",), "seen"),
        ("Zürich–Süd : leader : Ann_O'Neil | Ann_O'Neil : age : 50", ("Ann &amp; Zürich.",), "seen"),
    ]
    assert [(e.text, e.targets) for e in dataset.validation] == [  # one context in two entries: decoded once
        ("Tall_House : floors : 9", ("It has nine floors.", "Nine floors.", "Tall House has 9 floors.")),
    ]
    assert [(e.id, e.text, e.targets, e.subset) for e in dataset.test] == [
        ("test-0", "Elm_Field : city : Elmton", ("Elm Field serves Elmton.", "Elmton has it."), "seen"),
        ("test-1", "Jo : genre : Folk  <music>", ("Jo plays folk.",), "unseen"),
    ]
    assert all(not name.startswith("/") for name in dataset.files)
    assert not any("no_lex" in name or "unseen" in name for name in dataset.files)


def test_texts_not_marked_good_are_counted(tmp_path):
    write_json(tmp_path)
    notes = webnlg.read(tmp_path, TASK).notes
    assert notes == {"train: texts not marked good dropped": 2, "train: entries left without a text": 1}


def test_an_absent_split_is_empty(tmp_path):
    write_json(tmp_path)
    (tmp_path / "train.json").unlink()
    dataset = webnlg.read(tmp_path, TASK)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (0, 1, 2)


def test_other_json_is_not_taken_for_webnlg(tmp_path):
    (tmp_path / "train.json").write_text('[{"id": "1", "dialogue": "A: hi", "summary": "A greets."}]')
    assert not webnlg.fits(tmp_path, TASK)
    with pytest.raises(UserError, match="no WebNLG files here; accepted: train.json"):
        webnlg.read(tmp_path, TASK)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "dev.json").write_text('{"entries": [{"2": {}}]}')
    with pytest.raises(UserError, match=r"dev\.json record 1: 1 is missing, must be an object with named fields"):
        webnlg.read(tmp_path, TASK)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<benchmark><entries>", "not XML"),
        ('<!DOCTYPE b [<!ENTITY a "aa">]><benchmark/>', "DOCTYPE"),
        (
            "<b><entry><modifiedtripleset><mtriple>a | b</mtriple></modifiedtripleset></entry></b>",
            r"record 1: mtriple\[0\] is 'a \| b', must be subject \| property \| object",
        ),
    ],
)
def test_bad_xml_is_refused(tmp_path, content, message):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "testdata_with_lex.xml").write_text(content)
    with pytest.raises(UserError, match=message):
        webnlg.read(tmp_path, TASK)
