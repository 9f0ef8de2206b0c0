"""The real files, where they are at hand: $ALPHATUNE_SHARED/data, by default ../shared/data beside the repository.

Licences forbid putting their text here, so examples are compared by digest. The readings are also compared with the
shortest possible restatement of the LoRA conversion scripts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT

from alphatune.config import Data
from alphatune.data import dart, e2e, webnlg
from alphatune.data.example import Dataset, Example
from alphatune.data.load import load, load_split, task_config
from alphatune.errors import UserError

REPOSITORY = ROOT
SHARED = Path(os.environ.get("ALPHATUNE_SHARED") or REPOSITORY.parent / "shared") / "data"
pytestmark = pytest.mark.skipif(
    not (SHARED / "webnlg_challenge_2017").is_dir(), reason="no real task data: set ALPHATUNE_SHARED to have it read"
)

# task -> split -> digests of the first example, the last one, and all of them in order
DIGESTS: dict[str, dict[str, tuple[str, str, str]]] = {
    "webnlg": {
        "train": ("157338200a3c5aa7", "f720ac79095bf543", "24f783cc9c3969d6"),
        "validation": ("05b57636bd5c4f08", "9bfa757daf4e30dd", "315849f5c20c1cc0"),
        "test": ("32d4592d25026b9c", "91ae6851d8715f91", "76cb0e88847d3882"),
    },
    "dart_partial": {
        "train": ("c72f0af6254f5c4c", "5f27e6df0856f120", "b694b762f67e026d"),
        "validation": ("4754899ea885c6ef", "f02e97fa7330cb24", "3d2a76a3dc91b1c8"),
        "test": ("a4a4827f4e649d4f", "aee84266bdc31924", "4c0e8eba879c7665"),
    },
    "e2e": {
        "train": ("92dc6dcd6f0c7b5b", "5f89271ae053a9ec", "9b0d699ebe9769c6"),
        "validation": ("86105cc16c6745fa", "a2f5adc3abd8e992", "e4173f808077610b"),
        "test": ("6cbb1124da56cbfb", "ac2e8d3a3515f829", "cd907ea656578a56"),
    },
    "samsum": {
        "train": ("39f4595147c24468", "a24fba71d2aba690", "e77cdeda33b7e763"),
        "validation": ("d592da4adca8f2ec", "ca05392503519d89", "b6773adb7679ef35"),
        "test": ("474b8809e30e03a5", "9d3d4ccc5b6e061a", "76ed2d3edfc1c547"),
    },
    "glue/cola": {
        "train": ("6b7903c8d97c2f37", "b45b95dc70d0bc04", "6531a953c3e91dab"),
        "validation": ("86b16c60a764d2a5", "ca77c13d3592ace7", "ef88f6b9a9fe04b0"),
        "test": ("fb0b42756f11aadc", "0b5f7818a084a803", "ba1f5df87cb4e648"),
    },
    "glue/sst2": {
        "train": ("b623baa1aad56ccc", "a56e04277da2b375", "bf2527de80e55192"),
        "validation": ("b9f021567d0d6989", "cdc83ce09030edab", "efb457bdd538f55e"),
        "test": ("3f6b5c2c7fc62e00", "7813c0b5580a70f4", "b5306b3bc275b361"),
    },
    "glue/mrpc": {
        "train": ("4e1f02823e448f03", "e0b0c8cd65c5ef25", "38b4b67cd589020f"),
        "validation": ("857b0abbb07455b7", "15b56afad0922c7e", "4575f61bcfb35203"),
        "test": ("8edf346ea28aca1f", "2d9145a19aa70d7e", "ab6def2e344e58eb"),
    },
    "glue/stsb": {
        "train": ("77a90c7484b826e1", "bc5897f5e5b5ba17", "ec5dddcd9121a022"),
        "validation": ("54ee3fe8bf63fe18", "c7e51f8bd4307a1f", "8004833b8cf66a64"),
        "test": ("bf602f454bd30c40", "932cf4e92991702a", "f2ea2557a4360782"),
    },
    "glue/rte": {
        "train": ("34d5fd19a1586178", "83fd7c2b8b4e0a89", "629a9e5887a18780"),
        "validation": ("558114993b4be3d7", "1d89636fd74924d4", "0bdd9b1c2f4bc916"),
        "test": ("8abc39c18eb8fcbe", "3dc0200bd74f9cce", "1d3fbcebc6b727db"),
    },
}


def digest(examples: list[Example]) -> str:
    """Identifies text, targets, subset and label of examples without showing them."""
    rows = [[e.text, e.text_pair, list(e.targets), e.subset, e.label] for e in examples]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def read(name: str) -> Dataset:
    return load(task_config(name), Data(dir=str(SHARED)))


@pytest.mark.parametrize("name", DIGESTS)
def test_counts_and_examples(name):
    dataset = read(name)  # refuses other counts than those of conf/task
    found = {s: dataset.split(s) for s in ("train", "validation", "test")}
    assert {s: (digest(e[:1]), digest(e[-1:]), digest(e)) for s, e in found.items()} == DIGESTS[name]
    assert "files that differ from the pinned release" not in dataset.notes
    assert len({e.id for e in dataset.test}) == len(dataset.test)


def json_at(*parts: str):
    return json.loads(SHARED.joinpath(*parts).read_text(encoding="utf-8"))


def test_webnlg_is_what_the_lora_script_makes():
    for split, name in (("train", "train"), ("test", "test")):
        expected = []
        for i, wrapped in enumerate(json_at("webnlg_challenge_2017", f"{name}.json")["entries"]):
            entry = wrapped[str(i + 1)]
            context = ""
            for j, triple in enumerate(entry["modifiedtripleset"]):
                context += " | " if j else ""
                context += f"{triple['subject']} : {triple['property']} : {triple['object']}"
            expected += [(context, lex["lex"]) for lex in entry["lexicalisations"] if lex["comment"] == "good"]
        assert [(e.text, t) for e in read("webnlg").split(split) for t in e.targets] == expected


def test_webnlg_subsets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALPHATUNE_DATA", str(SHARED))
        examples = load_split("webnlg", "test")
    assert Counter(e.subset for e in examples) == {"seen": 971, "unseen": 891}
    assert sum(len(e.targets) for e in examples) == 4928
    assert Counter(e.subset for e in read("webnlg").train) == {"seen": 18025}


def test_webnlg_from_xml_is_webnlg_from_json(tmp_path):
    """The dev split written as XML, one file per number of triples and category as in the release."""
    roots: dict[str, ElementTree.Element] = {}
    for i, wrapped in enumerate(json_at("webnlg_challenge_2017", "dev.json")["entries"]):
        entry = wrapped[str(i + 1)]
        name = f"{entry['size']}triples/{entry['size']}triples_{entry['category']}_dev_challenge.xml"
        node = ElementTree.SubElement(roots.setdefault(name, ElementTree.Element("entries")), "entry")
        node.set("category", entry["category"])
        triples = ElementTree.SubElement(node, "modifiedtripleset")
        for t in entry["modifiedtripleset"]:
            text = f"{t['subject']} | {t['property']} | {t['object']}"
            ElementTree.SubElement(triples, "mtriple").text = text
        for lex in entry["lexicalisations"]:
            ElementTree.SubElement(node, "lex", comment=lex["comment"]).text = lex["lex"]
    for name, root in roots.items():
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    assert webnlg.read(tmp_path, task_config("webnlg")).validation == read("webnlg").validation


def test_dart_is_what_the_lora_script_makes():
    task = task_config("dart")
    grouped: dict[str, list[str]] = {}
    for entry in json_at("dart", "dart-v1.1.1-full-test.json"):
        context = " | ".join(f"{s} : {r.lower()} : {o}" for s, r, o in entry["tripleset"])
        for annotation in entry["annotations"]:
            grouped.setdefault(context, []).append(annotation["text"])
    dataset = dart.read(SHARED / "dart", task)
    assert {e.text: list(e.targets) for e in dataset.test} == {c: [t for t in ts if t] for c, ts in grouped.items()}
    assert len(dataset.test) == 4159
    assert sum("&amp;" in t for e in dataset.test for t in e.targets) > 0  # escapes stay


def test_dart_without_its_training_file_is_refused():
    if (SHARED / "dart" / "dart-v1.1.1-full-train.json").exists():
        pytest.skip("the official training file is here")
    with pytest.raises(UserError, match="train: found 0, expected 62,659.*task=dart_partial"):
        read("dart")
    with pytest.MonkeyPatch.context() as patch:  # scoring does not need it
        patch.setenv("ALPHATUNE_DATA", str(SHARED))
        examples = load_split("dart", "test")
    assert (len(examples), sum(len(e.targets) for e in examples)) == (4159, 12551)


def test_e2e_is_what_the_lora_script_makes():
    text = (SHARED / "e2e" / "train.txt").read_text(encoding="utf-8")
    expected = [tuple(line.strip().split("||")) for line in text.split("\n") if line]
    assert [(e.text, e.targets[0]) for e in read("e2e").train] == expected


def test_e2e_contexts_come_out_the_same_from_the_csv_s_notation():
    names = {shown: slot for slot, shown in e2e._SLOTS.items()}
    for context in {e.text for split in ("train", "validation", "test") for e in read("e2e").split(split)}:
        slots = [field.split(" : ", 1) for field in context.split(" | ")]
        raw = {key: value.replace("£ ", "£").replace(" - ", "-") for key, value in slots}
        mr = ", ".join(f"{names[key]}[{value}]" for key, value in sorted(raw.items()))
        assert e2e.context_of(mr) == context


def test_samsum_has_no_carriage_returns_left():
    dataset = read("samsum")
    assert dataset.notes["train: empty texts dropped"] == 1
    assert not any("\r\n" in e.text for e in dataset.train + dataset.validation + dataset.test)


def test_incomplete_glue_is_refused_and_can_be_accepted():
    task = task_config("mnli")
    with pytest.raises(UserError, match="train: found 0, expected 392,702; validation: found 9,815, expected 19,647"):
        load(task, Data(dir=str(SHARED)))
    dataset = load(task, Data(dir=str(SHARED), allow_count_mismatch=True))
    assert Counter((e.subset, e.label) for e in dataset.validation) == {
        ("matched", 0): 3479,
        ("matched", 1): 3123,
        ("matched", 2): 3213,
    }


def test_glue_labels_are_balanced_as_published():
    """A swapped label order would turn these around."""
    assert Counter(e.label for e in read("glue/cola").validation) == {1: 721, 0: 322}
    assert Counter(e.label for e in read("glue/mrpc").validation) == {1: 279, 0: 129}
    assert Counter(e.label for e in read("glue/rte").validation) == {0: 146, 1: 131}
    assert Counter(e.label for e in read("glue/sst2").validation) == {1: 444, 0: 428}
    scores = [e.label for e in read("glue/stsb").validation]
    assert (min(scores), max(scores)) == (0.0, 5.0)
    assert all(e.label is None for e in read("glue/stsb").test)
