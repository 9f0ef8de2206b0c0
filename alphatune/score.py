"""`python -m alphatune.score`: score a file of texts or labels as the field scores the task.

This file knows which metrics a task has and how results are printed; the metrics are in `alphatune.metrics`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from alphatune.errors import UserError
from alphatune.metrics import LABEL_METRICS, TEXT_METRICS, Scores, score, score_labels
from alphatune.metrics.files import LAYOUTS, read_lines, read_references
from alphatune.metrics.labels import Label
from alphatune.terminal import status_of

WEBNLG = ["bleu", "meteor", "ter"]
TASKS: dict[str, list[str]] = {
    "webnlg": WEBNLG,
    "dart": WEBNLG,
    "dart_partial": WEBNLG,
    "e2e": ["bleu_e2e", "nist", "meteor_e2e", "rouge_l_e2e", "cider"],
    "samsum": ["rouge1", "rouge2", "rougeL"],
    "mnli": ["accuracy"],
    "glue/cola": ["matthews"],
    "glue/sst2": ["accuracy"],
    "glue/mrpc": ["f1", "accuracy"],
    "glue/stsb": ["pearson", "spearman"],
    "glue/qqp": ["f1", "accuracy"],
    "glue/mnli": ["accuracy"],
    "glue/qnli": ["accuracy"],
    "glue/rte": ["accuracy"],
}
"""The metrics of each task, in the order of the paper's tables."""

VARIANTS: dict[str, dict[str, dict[str, str | None]]] = {
    "official": {"webnlg": {"bleu": "bleu_official"}},
    "perl": {"e2e": {"nist": "nist_perl"}},
    "nltk": {
        "webnlg": {"meteor": "meteor_nltk"},
        "dart": {"meteor": "meteor_nltk"},
        "dart_partial": {"meteor": "meteor_nltk"},
        "e2e": {"nist": "nist_nltk", "meteor_e2e": "meteor_nltk", "rouge_l_e2e": None, "cider": None},
    },
}
"""variant -> task -> what takes the place of a metric (None: left out)."""

HELP = """\
Score a file of texts or labels as the field scores the task. Nothing is downloaded and no model is loaded.

A hypotheses file has one text (or GLUE label) per line, UTF-8; an empty line is an empty hypothesis, the end of the
last line is not a further one.

reference layouts (--layout auto decides in this order):
  parallel  several files, a folder with reference0, reference1, ..., or a prefix P with P0, P1, ...: line i of every
            file is a reference of input i, an empty line stands for a missing one
  groups    one file with an empty line whose number of lines is not the number of hypotheses: the references of an
            input on consecutive lines, inputs divided by empty lines (as e2e-metrics reads it)
  lines     any other single file: one reference per line

variants:
  official  webnlg: BLEU of the 2017 challenge (missing references count as empty lines)
  perl      e2e: NIST with the length penalty of the Perl script (the challenge's published scores)
  nltk      webnlg, dart and e2e: METEOR and NIST of nltk under their own names, for machines without Java

METEOR, and for e2e also ROUGE_L and CIDEr, need a Java runtime; without one they are absent, with the reason.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 1 if no metric could be computed, or 2 after a user's mistake."""
    return status_of(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m alphatune.score", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, help=f"one of: {', '.join(TASKS)}")
    parser.add_argument("--hypotheses", required=True, type=Path, metavar="FILE", help="one text or label per line")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--references", nargs="+", type=Path, metavar="PATH", help="see reference layouts above")
    truth.add_argument("--split", metavar="NAME", help="take references and subsets from the task's data, e.g. test")
    parser.add_argument(
        "--allow-count-mismatch", action="store_true", help="with --split: accept data of another size than published"
    )
    parser.add_argument("--subsets", type=Path, metavar="FILE", help="one subset name per line; each is scored apart")
    parser.add_argument("--layout", default="auto", choices=LAYOUTS, help="layout of --references (default: auto)")
    parser.add_argument("--variant", choices=list(VARIANTS), help="another program's number for some metrics")
    parser.add_argument("--metrics", metavar="A,B", help="instead of the task's own metrics")
    parser.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: the processors, at most 8)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with unrounded values")
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.task not in TASKS:
        raise UserError(f"--task {args.task}: must be one of: {', '.join(TASKS)}")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: must be at least 1")
    if args.allow_count_mismatch and args.split is None:
        raise UserError("--allow-count-mismatch: is for the data that --split names")
    metrics = _metrics(args.task, args.variant, args.metrics)
    hypotheses = read_lines(args.hypotheses)
    references, subsets = _truth(args, len(hypotheses))
    if _has_labels(args.task):
        scores = _score_labels(args.task, metrics, hypotheses, references, subsets)
    else:
        scores = score(metrics, hypotheses, references, subsets=subsets, jobs=args.jobs)
    print(_as_json(args.task, len(hypotheses), scores) if args.json else _as_text(len(hypotheses), metrics, scores))
    return 0 if scores.values["all"] else 1


def _has_labels(task: str) -> bool:
    return task == "mnli" or task.startswith("glue/")


def _metrics(task: str, variant: str | None, named: str | None) -> list[str]:
    known = list(LABEL_METRICS if _has_labels(task) else TEXT_METRICS)
    if named is not None:
        if variant is not None:
            raise UserError("--metrics and --variant exclude each other: name the variant's metrics")
        names = [name.strip() for name in named.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise UserError(f"--metrics {name}: unknown for {task}; must be one of: {', '.join(known)}")
        if not names:
            raise UserError(f"--metrics names none; choose from {', '.join(known)}")
        return list(dict.fromkeys(names))
    if variant is None:
        return TASKS[task]
    if task not in VARIANTS[variant]:
        raise UserError(f"--variant {variant}: is for --task {' or '.join(VARIANTS[variant])}, not {task}")
    swap = VARIANTS[variant][task]
    return [new for name in TASKS[task] if (new := swap.get(name, name)) is not None]


def _truth(args: argparse.Namespace, inputs: int) -> tuple[list[list[str]], list[str] | None]:
    """The references and, where there are any, the subset names."""
    subsets: list[str] | None = None
    if args.split is not None:
        from alphatune.data import load_references

        references, subsets = load_references(args.task, args.split, allow_count_mismatch=args.allow_count_mismatch)
        if len(references) != inputs:
            raise UserError(
                f"{args.hypotheses}: {inputs} hypotheses, but the {args.split} split of {args.task} has "
                f"{len(references)} inputs"
            )
    else:
        references = read_references(args.references, inputs, args.layout)
    if args.subsets is not None:
        subsets = [name.strip() for name in read_lines(args.subsets)]
        if len(subsets) != inputs:
            raise UserError(f"{args.subsets}: {len(subsets)} subset names, but there are {inputs} hypotheses")
        if "" in subsets:
            raise UserError(f"{args.subsets}: no subset name in line {subsets.index('') + 1}")
    return references, subsets


def _score_labels(
    task: str, metrics: list[str], hypotheses: list[str], references: list[list[str]], subsets: list[str] | None
) -> Scores:
    if any(len(labels) != 1 for labels in references):
        raise UserError(f"{task} needs exactly one label per input")
    names = _class_names(task)
    predictions = [_class_index(text.strip(), names) for text in hypotheses]
    labels = [_class_index(refs[0].strip(), names) for refs in references]
    if {"f1", "pearson", "spearman"} & set(metrics):
        numbers = _numbers("hypotheses", predictions), _numbers("references", labels)
        return score_labels(metrics, *numbers, subsets=subsets)
    return score_labels(metrics, predictions, labels, subsets=subsets)


def _class_names(task: str) -> list[str]:
    from alphatune.data.load import task_config

    return task_config(task).labels


def _class_index(text: str, names: list[str]) -> str:
    """Files say a class by its name or by its index; both are the index here."""
    return str(names.index(text)) if text in names else text


def _numbers(what: str, texts: Sequence[str]) -> list[Label]:
    numbers: list[Label] = []
    for line, text in enumerate(texts, start=1):
        try:
            numbers.append(float(text))
        except ValueError as error:
            raise UserError(f"{what}, line {line}: {text!r} is not a number") from error
    return numbers


def _as_json(task: str, inputs: int, scores: Scores) -> str:
    values = {
        group: {name: {"value": score.value, "signature": score.signature} for name, score in row.items()}
        for group, row in scores.values.items()
    }
    return json.dumps({"task": task, "inputs": inputs, "values": values, "absent": scores.absent}, indent=2)


def _as_text(inputs: int, metrics: Sequence[str], scores: Scores) -> str:
    """A table of groups by metrics, then the signatures and the reasons of absent metrics."""
    present = [name for name in metrics if name in scores.values["all"]]
    width = max(map(len, scores.values))
    lines = [f"{inputs} inputs"]
    if present:
        lines.append(" ".join([" " * width, *(f"{name:>{max(8, len(name))}}" for name in present)]))
        for group, row in scores.values.items():
            cells = (f"{row[name].value:>{max(8, len(name))}.4f}" for name in present)
            lines.append(" ".join([f"{group:<{width}}", *cells]))
        lines.extend(scores.values["all"][name].signature for name in present)
    lines.extend(f"{name} is absent: {reason}" for name, reason in scores.absent.items())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
