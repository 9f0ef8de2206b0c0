"""`alphatune forgetting`: what adaptation to a task cost elsewhere: the loss on general text, before and after it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from alphatune.errors import UserError
from alphatune.run import record
from alphatune.terminal import Parser, log_to_terminal, status_of

TEXT = Path("examples/general.txt")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    log_to_terminal()
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune forgetting`."""
    parser = Parser(
        "alphatune forgetting",
        "Measure what adaptation cost elsewhere: nats per token on general text, of the backbone and of finished runs.",
        """
        alphatune forgetting results/records/webnlg/*/full_ft/*.json --model FOLDER
        alphatune forgetting A.json B.json --out forgetting.json --figure forgetting
        """,
    )
    parser.add_argument("records", nargs="+", type=Path, help="records of runs whose artefacts are still there")
    parser.add_argument("--text", type=Path, default=TEXT, help=f"paragraphs, one a line (default: {TEXT})")
    parser.add_argument("--model", metavar="FOLDER", help="the backbone, where it is not where the record says")
    parser.add_argument("--artifacts", default="outputs/artifacts", help="the store of the runs")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON too")
    parser.add_argument("--figure", type=Path, metavar="STEM", help="draw them, beside the bytes of 1 to 100 tasks")
    return parser


def _main(given: argparse.Namespace) -> int:
    from alphatune.hf import checkpoints  # what needs torch: --help does not wait for it
    from alphatune.learn import general
    from alphatune.tools import package

    texts = _paragraphs(given.text)
    rows: list[dict[str, Any]] = []
    before: dict[str, float] = {}  # backbone -> its loss: runs share it
    print(f"{'run':<60} {'before':>8} {'after':>8} {'change':>8}   nats per token of {given.text}", flush=True)
    for path in given.records:
        made = record.read(path)
        with checkpoints.quiet():
            run = package.run_of(made, given.model, given.artifacts, "model")
            if run.config.task.kind != "generation":
                raise UserError(f"{path}: task={run.config.task.name} is no language model's: its head writes no text")
            key = json.dumps(made["model"]["identity"], sort_keys=True)
            if key not in before:
                before[key] = general.loss(*run.backbone(), texts)
            after = general.loss(*run.final, texts)
        rows.append({"run_id": made["run_id"], "before": before[key], "after": after, **_described(made)})
        print(f"{made['run_id']:<60} {before[key]:8.3f} {after:8.3f} {after - before[key]:+8.3f}", flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"text": given.text.name, "unit": "nats per token", "runs": rows}
        given.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if given.figure:
        from alphatune.pages.plots_sharing import sharing

        sharing(rows, given.text.name, given.figure)
    return 0


def _described(made: dict[str, Any]) -> dict[str, Any]:
    """A run in words, and what its tasks share on disk and have of their own, in bytes."""
    label, config, sizes = made["label"], made["config"], made["sizes"]
    if sizes["groups"]:
        label += f", q={config['quant']['q']}, {record.solver(config)}"
    own = sizes["checkpoint_bytes"]
    return {"label": label, "shared_bytes": sizes["total_bytes"] - own, "task_bytes": own}


def _paragraphs(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {path}: cannot be read: {error}") from error
    if not found:
        raise UserError(f"--text {path}: holds no text")
    return found
