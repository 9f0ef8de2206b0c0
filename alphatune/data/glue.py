"""GLUE: nine columns of sentence classification and regression.

Layouts, per task folder: TSV as distributed (`train.tsv`, `dev.tsv`, `test.tsv`; MNLI `dev_matched.tsv`, ...), JSON
lines with the same columns (also MultiNLI's own files), and the hub's parquet. TSVs are read without quoting, since a
quotation mark is text there, and split at line feeds and tabs only. Labels of the test split are hidden: those
examples have `label=None`, and scores are reported on validation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from alphatune.config import Task
from alphatune.data.example import Dataset, Example
from alphatune.data.fields import MISSING, Field, word
from alphatune.data.source import Source, header, holdings
from alphatune.errors import UserError

LAYOUTS = "train, dev, test as .tsv, .jsonl or .parquet (MNLI: dev_matched, dev_mismatched)"


@dataclass(frozen=True)
class Columns:
    """What a distribution calls the columns of a task; no `pair` for single sentences."""

    text: str
    label: str
    pair: str | None = None

    def told(self) -> str:
        """The column names in words."""
        return ", ".join(name for name in (self.text, self.pair, self.label) if name)

    def within(self, names: Collection[str], labelled: bool) -> bool:
        """Whether a table with columns `names` is of this kind. QNLI has a `sentence` beside its `question`."""
        needed = {self.text, self.pair or self.text} | ({self.label} if labelled else set())
        return needed <= set(names) and (self.pair is not None or "question" not in names)


TSV = {
    "cola": Columns("sentence", "label"),
    "sst2": Columns("sentence", "label"),
    "mrpc": Columns("#1 String", "Quality", "#2 String"),
    "stsb": Columns("sentence1", "score", "sentence2"),
    "qqp": Columns("question1", "is_duplicate", "question2"),
    "mnli": Columns("sentence1", "gold_label", "sentence2"),
    "qnli": Columns("question", "label", "sentence"),
    "rte": Columns("sentence1", "label", "sentence2"),
}
HUB = TSV | {
    "mrpc": Columns("sentence1", "label", "sentence2"),
    "stsb": Columns("sentence1", "label", "sentence2"),
    "qqp": Columns("question1", "label", "question2"),
    "mnli": Columns("premise", "label", "hypothesis"),
}
_COLA_HEADER = ["source", "label", "mark", "sentence"]  # CoLA's train.tsv and dev.tsv have no header line
_SCORES = (0.0, 5.0)  # of STS-B
_HIDDEN = (MISSING, None, -1, "", "-1", "-1.0", "hidden")  # how the distributions write an absent label
_SPLITS: dict[str, list[tuple[str, tuple[str, ...]]]] = {  # split -> (subset, stems of its file)
    "train": [("all", ("train",))],
    "validation": [("all", ("dev", "validation"))],
    "test": [("all", ("test",))],
}
_MNLI_SPLITS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "train": [("all", ("train", "multinli_1.0_train"))],
    "validation": [
        (kind, (f"dev_{kind}", f"validation_{kind}", f"multinli_1.0_dev_{kind}")) for kind in ("matched", "mismatched")
    ],
    "test": [(kind, (f"test_{kind}",)) for kind in ("matched", "mismatched")],
}


def fits(folder: Path, task: Task) -> bool:
    """Whether `folder` holds a file of this task with the task's columns."""
    source = Source(folder)
    names = [name for parts in _splits(task).values() for _, stems in parts for name in _files(source, stems)]
    return any(_has_columns(source, name, task) for name in names)


def read(folder: Path, task: Task) -> Dataset:
    """Reads whichever layout `folder` holds; a split whose file is absent is empty.

    Raises:
        UserError: no layout fits, a file is damaged, or a label outside `task.labels`.
    """
    source = Source(folder)
    if not fits(folder, task):
        raise UserError(f"{folder}: no files of GLUE {task.variant} here; accepted: {LAYOUTS}; {holdings(folder)}")
    examples: dict[str, list[Example]] = {}
    for split, parts in _splits(task).items():
        examples[split] = []
        for subset, stems in parts:
            for name in source.of(split, _files(source, stems)):
                examples[split] += _examples(source, name, split, subset, len(examples[split]), task)
    return source.dataset(examples["train"], examples["validation"], examples["test"])


def _splits(task: Task) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    if task.variant not in TSV:
        raise UserError(f"task.variant={task.variant}: must be one of: {', '.join(TSV)}")
    return _MNLI_SPLITS if task.variant == "mnli" else _SPLITS


def _files(source: Source, stems: tuple[str, ...]) -> list[str]:
    """The files of one part of a split: one TSV or JSONL, or the shards of a parquet."""
    name = source.first(*(f"{stem}.{ending}" for ending in ("tsv", "jsonl", "parquet") for stem in stems))
    return [name] if name else [n for stem in stems for n in source.glob(f"{stem}-*-of-*.parquet")]


def _has_columns(source: Source, name: str, task: Task) -> bool:
    labelled = not name.startswith("test")
    if name.endswith(".parquet"):
        return HUB[task.variant].within(source.parquet_columns(name), labelled)
    first = source.head(name, 1 << 16).split("\n")[0].removesuffix("\r")
    if name.endswith(".jsonl"):
        names = [key for c in (TSV[task.variant], HUB[task.variant]) for key in vars(c).values() if f'"{key}"' in first]
        return any(kind[task.variant].within(names, labelled) for kind in (TSV, HUB))
    if task.variant == "cola" and labelled:
        return _is_cola_row(first.split("\t"))
    return TSV[task.variant].within(first.split("\t"), labelled)


def _is_cola_row(cells: list[str]) -> bool:
    return len(cells) == len(_COLA_HEADER) and cells[1] in ("0", "1")


def _rows(source: Source, name: str, task: Task) -> list[Field]:
    if name.endswith(".jsonl"):
        return source.jsonl(name)
    if name.endswith(".parquet"):
        rows, class_names = source.parquet(name)
        if class_names.get("label", task.labels) != task.labels:
            raise UserError(f"{name}: its labels are {class_names['label']}, task.labels is {task.labels}")
        return rows
    lines = [(line.place, line.text().split("\t")) for line in source.lines(name)]
    headerless = task.variant == "cola" and _is_cola_row(lines[0][1])
    columns = header(_COLA_HEADER if headerless else lines.pop(0)[1], name)
    rows = []
    for place, cells in lines:
        if len(cells) == len(columns):
            rows.append(Field(dict(zip(columns, cells, strict=True)), place))
        elif task.variant == "qqp":  # QQP as distributed has some broken lines, which every loader leaves out
            source.note(f"{name}: broken lines dropped")
        else:
            raise UserError(f"{place}: {len(cells)} fields, must be {len(columns)} as in the header")
    return rows


def _examples(source: Source, name: str, split: str, subset: str, start: int, task: Task) -> list[Example]:
    examples: list[Example] = []
    for row in _rows(source, name, task):
        kinds = (kind[task.variant] for kind in (TSV, HUB))
        names = row.names()
        columns = next((c for c in kinds if c.within(names, labelled=split != "test")), None)
        if columns is None:
            told = ", ".join(map(word, names[:20]))
            wanted = " or ".join(dict.fromkeys(kind[task.variant].told() for kind in (TSV, HUB)))
            raise UserError(f"{row.place}: its columns are {told}, must be those of GLUE {task.variant}: {wanted}")
        label = row[columns.label]
        if task.variant == "mnli" and label.value == "-":  # the annotators did not agree
            source.note(f"{split}: rows without a gold label dropped")
            continue
        value = None if split == "test" and _is_hidden(label) else _label(label, task)
        pair = row[columns.pair].text() if columns.pair else None
        identifier = f"{split}-{start + len(examples)}"
        examples.append(Example(identifier, row[columns.text].text(), subset=subset, text_pair=pair, label=value))
    return examples


def _is_hidden(label: Field) -> bool:
    return (label.value.strip() if isinstance(label.value, str) else label.value) in _HIDDEN


def _label(field: Field, task: Task) -> int | float:
    if not task.labels:
        return field.number(*_SCORES)
    numbers = [str(index) for index in range(len(task.labels))]
    text = field.name().strip()
    if text not in (*task.labels, *numbers):
        raise field.refused(f"one of: {', '.join(task.labels)}; or their index")
    return task.labels.index(text) if text in task.labels else int(text)
