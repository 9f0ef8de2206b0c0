"""WebNLG 2017: RDF triples to text.

Layouts: LoRA's JSON (`train.json`, `dev.json`, `test.json`), the XML release of the challenge (`train/`, `dev/` by
number of triples and category, `test/testdata_with_lex.xml`), and LoRA's `*_formatted.jsonl`. A context is
`subject : property : object | ...` of the modified triple set with underscores, quotes and case as they are; only
texts marked "good" count. Source of the rules: microsoft/LoRA, examples/NLG/src/format_converting_webnlg.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from alphatune.config import Task
from alphatune.data import pairs
from alphatune.data.example import Dataset
from alphatune.data.fields import MISSING, Field, Unusable
from alphatune.data.pairs import Pair
from alphatune.data.source import Source, holdings
from alphatune.errors import UserError

LAYOUTS = "train.json, dev.json, test.json; or train/, dev/, test/ of the XML release; or *_formatted.jsonl"
# The categories of the training data. The paper speaks of nine; the files and the LoRA scripts have ten.
SEEN = frozenset(
    {
        "Airport",
        "Astronaut",
        "Building",
        "City",
        "ComicsCharacter",
        "Food",
        "Monument",
        "SportsTeam",
        "University",
        "WrittenWork",
    }
)
_JSON = {"train": "train.json", "validation": "dev.json", "test": "test.json"}
# The release's test folder has the same inputs three times (with texts, without, and the unseen ones): read one.
_XML = {"train": "train/**/*.xml", "validation": "dev/**/*.xml", "test": "test/testdata_with_lex.xml"}

Triple = tuple[str, str, str]
RawEntry = tuple[str, list[Triple], list[tuple[str, str]]]  # category, triples, (comment, text) of each lexicalisation


def fits(folder: Path, task: Task) -> bool:
    """Whether `folder` holds one of the layouts."""
    return _layout(Source(folder)) is not None


def read(folder: Path, task: Task) -> Dataset:
    """Reads whichever layout `folder` holds.

    Raises:
        UserError: no layout fits, or a file is damaged.
    """
    source = Source(folder)
    layout = _layout(source)
    if layout == "json":
        return pairs.dataset(
            source, {s: _pairs(source, s, _json_entries(source, source.of(s, [n]))) for s, n in _JSON.items()}
        )
    if layout == "xml":
        source.note("read from the XML release")
        return pairs.dataset(
            source, {s: _pairs(source, s, _xml_entries(source, source.of(s, source.glob(p)))) for s, p in _XML.items()}
        )
    if layout == "formatted":
        return pairs.dataset(source, pairs.read_formatted(source))
    raise UserError(f"{folder}: no WebNLG files here; accepted: {LAYOUTS}; {holdings(folder)}")


def linearise(triples: Iterable[Triple]) -> str:
    """Triples as one context: `subj : prop : obj | subj : prop : obj`."""
    return " | ".join(" : ".join(triple) for triple in triples)


def _layout(source: Source) -> str | None:
    name = source.first("dev.json", "test.json", "train.json")
    if name and '"entries"' in source.head(name):  # other tasks have a train.json too
        return "json"
    if source.first("test/testdata_with_lex.xml") or source.glob("train/**/*.xml") or source.glob("dev/**/*.xml"):
        return "xml"
    return "formatted" if source.first(*pairs.FORMATTED.values()) else None


def _pairs(source: Source, split: str, entries: Iterable[RawEntry]) -> list[Pair]:
    found = []
    for category, triples, texts in entries:
        good = [text for comment, text in texts if comment == "good"]
        source.note(f"{split}: texts not marked good dropped", len(texts) - len(good))
        source.note(f"{split}: entries left without a text", not good)
        subset = "seen" if category in SEEN else "unseen"
        found += [Pair(linearise(triples), text, subset) for text in good]
    return found


def _json_entries(source: Source, names: list[str]) -> Iterator[RawEntry]:
    wrapped = [entry for name in names for entry in source.json(name)["entries"].records()]
    for i, alone in enumerate(wrapped):
        entry = alone[str(i + 1)]  # entry i sits alone in an object under this key
        triples = [
            (t["subject"].text(), t["property"].text(), t["object"].text())
            for t in entry["modifiedtripleset"].entries()
        ]
        texts = [(x["comment"].text(), x["lex"].text()) for x in entry["lexicalisations"].entries()]
        yield entry["category"].text(), triples, texts


def _xml_entries(source: Source, names: list[str]) -> Iterator[RawEntry]:
    for name in names:
        for n, element in enumerate(source.xml(name).iter("entry"), 1):
            entry = Field(element, f"{name} record {n}")
            triples = [_xml_triple(t) for t in _xml_children(entry, "modifiedtripleset/mtriple")]
            lexes = _xml_children(entry, "lex")
            texts = [(_xml_attribute(lex, "comment").text(), _xml_text(lex).text().strip()) for lex in lexes]
            yield _xml_attribute(entry, "category").text(), triples, texts


def _xml_children(field: Field, path: str) -> list[Field]:
    found = field.value.iterfind(path)
    return [Field(element, field.place, f"{element.tag}[{i}]") for i, element in enumerate(found)]


def _xml_attribute(field: Field, name: str) -> Field:
    return Field(field.value.get(name, MISSING), field.place, f"{field.path}.{name}" if field.path else name)


def _xml_text(field: Field) -> Field:
    element = field.value
    text = Unusable(f"with <{element[0].tag}> inside") if len(element) else element.text or ""
    return Field(text, field.place, field.path)


def _xml_triple(field: Field) -> Triple:
    text = _xml_text(field)
    parts = text.text().split(" | ")
    if len(parts) != 3:
        raise text.refused("subject | property | object")
    return parts[0].strip(), parts[1].strip(), parts[2].strip()
