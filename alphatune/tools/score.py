"""`alphatune score`: score a file of texts or labels as the field scores the task.

What a task is, its metrics and its labels among it, is said by `conf/task/`; whose way of scoring has which metrics, by
`alphatune.metrics.protocols`. This file knows the command line and how results are printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alphatune.config import Data, Task
from alphatune.data import own, task_config, task_names
from alphatune.data.example import Example
from alphatune.data.load import load, split_of
from alphatune.errors import UserError
from alphatune.metrics import LABEL_METRICS, TEXT_METRICS, Scores, processors, score, score_labels
from alphatune.metrics.labels import Label
from alphatune.metrics.protocols import PROTOCOLS, protocols_of
from alphatune.metrics.reading.classes import parse_labels
from alphatune.metrics.reading.files import LAYOUTS, read_lines, read_references, shown
from alphatune.metrics.reading.hypotheses import Hypotheses, read_hypotheses
from alphatune.terminal import Parser, status_of

if TYPE_CHECKING:
    from alphatune.metrics.bootstrap import Difference

Differences = dict[str, dict[str, "Difference"]]
HELP = """\
Score a file of texts or labels as the field scores the task. Nothing is downloaded and no model is loaded.

A hypotheses file has one text (or label) per line, UTF-8; an empty line is an empty hypothesis, the end of the last
line is not a further one. A file named *.jsonl has one object per line with "prediction" and, if it likes, "id", as the
predictions.jsonl of a run. Labels of a classification task are names or indices, see its file in conf/task/.

parts of a split: with --split, the ids of a JSONL file or of --ids say which input a hypothesis is for; what is not
named is not scored. Without ids there must be a hypothesis for every input, in the order of the split.

reference layouts (--layout auto decides in this order):
  parallel  several files, a folder with reference0, reference1, ..., or a prefix P with P0, P1, ...: line i of every
            file is a reference of input i, an empty line stands for a missing one
  groups    one file with an empty line whose number of lines is not the number of hypotheses: the references of an
            input on consecutive lines, inputs divided by empty lines (as e2e-metrics reads it)
  lines     any other single file: one reference per line

protocols (--protocol; default: that of the task's own metrics, which the records use):
"""

NOTE = """
METEOR, and for e2e also ROUGE_L and CIDEr, need a Java runtime; without one they are absent, with the reason.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 1 if no metric could be computed, or 2 after a user's mistake."""
    return status_of(lambda: _run(parser().parse_args(argv)))


def parser() -> Parser:
    """The arguments of `alphatune score`."""
    known = "".join(f"  {p.name:<15} {', '.join(p.readers)}: {', '.join(p.metrics)}\n" for p in PROTOCOLS.values())
    parser = Parser(
        "alphatune score",
        HELP + known + NOTE,
        """
        alphatune score --task webnlg --hypotheses outputs.txt --split test
        alphatune score --task e2e --hypotheses outputs.txt --references refs.txt --json
        alphatune score --task mine.yaml --hypotheses outputs.txt --split test
        alphatune score --task webnlg --hypotheses a.txt --against b.txt --split test --metrics bleu
        """,
    )
    parser.add_argument(
        "--task", required=True, help=f"a file of yours such as mine.yaml, or {', '.join(task_names())}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the task, e.g. data.test=FILE of task own"
    )
    parser.add_argument("--hypotheses", required=True, type=Path, metavar="FILE", help="one text or label per line")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--references", nargs="+", type=Path, metavar="PATH", help="see reference layouts above")
    truth.add_argument("--split", metavar="NAME", help="take references and subsets from the task's data, e.g. test")
    parser.add_argument(
        "--allow-count-mismatch", action="store_true", help="with --split: accept data of another size than published"
    )
    parser.add_argument("--ids", type=Path, metavar="FILE", help="with --split: one id per hypothesis, e.g. test-17")
    parser.add_argument("--subsets", type=Path, metavar="FILE", help="one subset name per line; each is scored apart")
    parser.add_argument("--layout", default="auto", choices=LAYOUTS, help="layout of --references (default: auto)")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="whose way of scoring, see above")
    parser.add_argument("--metrics", metavar="A,B", help="instead of the task's or the protocol's metrics")
    parser.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: the processors, at most 8)")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="other texts for the same inputs: differences, with intervals"
    )
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="of inputs, for --against (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with unrounded values")
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: must be at least 1")
    if args.allow_count_mismatch and args.split is None:
        raise UserError("--allow-count-mismatch: is for the data that --split names")
    if args.ids is not None and args.split is None:
        raise UserError("--ids: only with --split; --references has one entry per hypothesis")
    task, data = _described(args.task, args.set)
    metrics = _metrics(task, args.protocol, args.metrics)
    hypotheses = read_hypotheses(args.hypotheses, args.ids)
    examples = inputs = None
    if args.split is not None:
        task, inputs = split_of(task, data, args.split, allow_count_mismatch=args.allow_count_mismatch)
        examples = _examples(hypotheses, inputs, f"the {args.split} split of {task.name}")
    elif task.kind == "classification" and task.reader == own.READER and not task.labels:
        task = own.resolved(task, load(task, data))  # its classes are those of its training file
    subsets = [example.subset for example in examples] if examples is not None and task.subsets else None
    if args.subsets is not None:
        subsets = _subsets(args.subsets, len(hypotheses.values))
    differences: Differences = {}
    if task.kind != "generation":
        if args.against is not None:
            raise UserError(f"--against: compares texts, and {task.name} has labels")
        scores = _score_labels(task, metrics, hypotheses, examples, args, subsets)
    else:
        references = _references(metrics, len(hypotheses.values), examples, args)
        second = None if args.against is None else _second(args, metrics, hypotheses, inputs)
        with _without("scipy", "sklearn"):
            scores = score(metrics, hypotheses.texts(), references, subsets=subsets, jobs=args.jobs)
            if second is not None:
                differences = _differences(scores, hypotheses.texts(), second, references, args, subsets)
    if args.json:
        print(_as_json(task.name, len(hypotheses.values), metrics, scores, differences))
    else:
        print(_as_text(task.name, len(hypotheses.values), metrics, scores))
        if differences:
            print(_compared(differences, args))
    return 0 if scores.values["all"] else 1


def _described(name: str, settings: list[str]) -> tuple[Task, Data]:
    """The task, and where its data is, as a run would have them."""
    known = task_names()
    if name in known and name != own.READER and not settings:
        return task_config(name), Data()
    if name not in known and not name.endswith((".yaml", ".yml")):
        raise UserError(f"--task {name}: must be one of: {', '.join(known)}; or a file of yours, mine.yaml")
    from alphatune.compose import compose  # Hydra: not for the tasks whose file says all

    config = compose.config_of([f"task={name}", *settings])
    return config.task, config.data


def _metrics(task: Task, protocol: str | None, named: str | None) -> list[str]:
    """The metrics to compute, in the order of the task, the protocol or the command line."""
    known = list(TEXT_METRICS if task.kind == "generation" else LABEL_METRICS)
    fitting = [p.name for p in PROTOCOLS.values() if task.reader in p.readers and set(p.metrics) <= set(known)]
    if protocol is not None and protocol not in fitting:
        raise UserError(f"--protocol {protocol}: not for {task.name}; must be one of: {', '.join(fitting)}")
    if named is None:
        return list(task.scores if protocol is None else PROTOCOLS[protocol].metrics)
    if protocol is not None:
        raise UserError("--metrics and --protocol exclude each other: name the protocol's metrics")
    names = [name.strip() for name in named.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"--metrics {name}: unknown for {task.name}; must be one of: {', '.join(known)}")
    if not names:
        raise UserError(f"--metrics names none; choose from {', '.join(known)}")
    return list(dict.fromkeys(names))


def _examples(hypotheses: Hypotheses, examples: list[Example], where: str) -> list[Example]:
    """The example of each hypothesis: that of its id, or the one in its place. `where` names the split."""
    if hypotheses.ids is None:
        if len(examples) != len(hypotheses.values):
            raise UserError(
                f"{hypotheses.path}: {len(hypotheses.values)} hypotheses, but {where} has {len(examples)} "
                f"inputs; a part of them is scored with ids (see --help)"
            )
        return examples
    known = {example.id: example for example in examples}
    for line, name in enumerate(hypotheses.ids, start=1):
        if name not in known:
            raise UserError(
                f"the id {shown(name)} of hypothesis {line} is not in {where}, "
                f"whose ids are such as {shown(examples[0].id) if examples else 'none'}"
            )
    return [known[name] for name in hypotheses.ids]


def _subsets(path: Path, inputs: int) -> list[str]:
    names = [name.strip() for name in read_lines(path)]
    if len(names) != inputs:
        raise UserError(f"{path}: {len(names)} subset names, but there are {inputs} hypotheses")
    if "" in names:
        raise UserError(f"{path}, line {names.index('') + 1}: no subset name")
    return names


def _references(
    metrics: list[str], inputs: int, examples: list[Example] | None, args: argparse.Namespace
) -> list[list[str]]:
    if examples is not None:
        return [list(example.targets) for example in examples]
    keep_empty = any(protocol.keeps_empty for protocol in protocols_of(metrics))
    return read_references(args.references, inputs, args.layout, keep_empty)


def _second(
    args: argparse.Namespace, metrics: list[str], hypotheses: Hypotheses, split: list[Example] | None
) -> list[str]:
    """The texts of --against in the order of the hypotheses; whatever is wrong with them is told before the scoring."""
    from alphatune.metrics import bootstrap

    if not set(metrics) & set(bootstrap.COMPARABLE):
        raise UserError(f"--against: compares {', '.join(bootstrap.COMPARABLE)}; --metrics names some of them")
    bootstrap.check_draws(args.draws)
    others = read_hypotheses(args.against)
    in_order = None if split is None else [example.id for example in split]  # what a file without ids means
    wanted, theirs = hypotheses.ids or in_order, others.ids or in_order
    if len(others.values) != len(hypotheses.values) or (theirs is not None and len(theirs) != len(others.values)):
        inputs = len(hypotheses.values)
        raise UserError(f"--against {args.against}: {len(others.values)} texts, but there are {inputs} inputs")
    if wanted is None and theirs is None:
        return others.texts()
    if wanted is None or theirs is None:
        without = hypotheses.path if wanted is None else args.against
        raise UserError(f"--against {args.against}: {without} has no ids, so which texts belong together is unknown")
    place = {name: row for row, name in enumerate(theirs)}
    if place.keys() != set(wanted):
        raise UserError(f"--against {args.against}: has other ids than {hypotheses.path}")
    return [others.texts()[place[name]] for name in wanted]


def _differences(
    scores: Scores,
    first: list[str],
    second: list[str],
    references: list[list[str]],
    args: argparse.Namespace,
    subsets: list[str] | None,
) -> Differences:
    """Of every metric that is there, the difference to the texts of --against, input by input."""
    from alphatune.metrics import bootstrap

    names = [name for name in scores.values["all"] if name in bootstrap.COMPARABLE]
    return bootstrap.paired(
        names, first, second, references, subsets=subsets, draws=args.draws, jobs=args.jobs or processors()
    )


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Imports go as if these packages were not installed.

    nltk looks for scipy and scikit-learn, for classifiers and a statistic that no score of texts uses, and takes
    seconds to import them.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's own sign for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _score_labels(
    task: Task,
    metrics: list[str],
    hypotheses: Hypotheses,
    examples: list[Example] | None,
    args: argparse.Namespace,
    subsets: list[str] | None,
) -> Scores:
    predictions = parse_labels(hypotheses.values, task.labels, hypotheses.path)
    if examples is not None:
        labels: list[Label] = [example.label for example in examples if example.label is not None]
    else:
        if len(args.references) != 1:
            raise UserError(f"{task.name} needs exactly one label per input, so --references takes one file")
        truth = read_hypotheses(args.references[0])
        if len(truth.values) != len(predictions):
            raise UserError(f"{truth.path}: {len(truth.values)} labels, but there are {len(predictions)} hypotheses")
        labels = parse_labels(truth.values, task.labels, truth.path)
    return score_labels(metrics, predictions, labels, subsets=subsets)


def _as_json(task: str, inputs: int, metrics: Sequence[str], scores: Scores, differences: Differences) -> str:
    values = {
        group: {name: {"value": score.value, "signature": score.signature} for name, score in row.items()}
        for group, row in scores.values.items()
    }
    protocols = {protocol.name: protocol.source for protocol in protocols_of(metrics)}
    told = {"task": task, "protocols": protocols, "inputs": inputs, "values": values, "absent": scores.absent}
    if differences:
        told["differences"] = {g: {n: dataclasses.asdict(d) for n, d in row.items()} for g, row in differences.items()}
    return json.dumps(told, indent=2, allow_nan=False)


def _as_text(task: str, inputs: int, metrics: Sequence[str], scores: Scores) -> str:
    """The protocol, a table of groups by metrics, then the signatures and the reasons of absent metrics."""
    present = [name for name in metrics if name in scores.values["all"]]
    width = max(map(len, scores.values))
    lines = [f"{task}, {inputs} inputs, protocol {'; '.join(f'{p.name} ({p.source})' for p in protocols_of(metrics))}"]
    if present:
        lines.append(" ".join([" " * width, *(f"{name:>{max(8, len(name))}}" for name in present)]))
        for group, row in scores.values.items():
            cells = (
                f"{row[name].value:>{max(8, len(name))}.4f}" if name in row else f"{'-':>{max(8, len(name))}}"
                for name in present
            )
            lines.append(" ".join([f"{group:<{width}}", *cells]))
        lines.extend(scores.values["all"][name].signature for name in present)
    lines.extend(f"{name} is absent: {reason}" for name, reason in scores.absent.items())
    return "\n".join(lines)


def _compared(differences: Differences, args: argparse.Namespace) -> str:
    """A line for every group and metric."""
    lines = [f"less {args.against}, with the middle 95 % over {args.draws} paired draws of the inputs:"]
    for group, row in differences.items():
        lines += [f"{group} {name}: {d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]" for name, d in row.items()]
    return "\n".join(lines)
