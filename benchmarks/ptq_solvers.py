"""What the solvers of `quant.solver` cost and gain before any adaptation. Three tables, one thread:

    python benchmarks/ptq_solvers.py synthetic
    python benchmarks/ptq_solvers.py perplexity MODEL_FOLDER CALIBRATION.txt EVALUATION.txt
    python benchmarks/ptq_solvers.py seconds

synthetic: relative output error of one random layer whose inputs are correlated, not centred, and have a few large
channels. perplexity: of a causal language model whose linear layers were quantised, on a file with one text per line.
seconds: for one layer of 1024 x 4096 weights. Seconds are processor time of the one thread, calibration included.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from alphatune.learn.batches import IGNORED, Item, collate
from alphatune.packed.linear import dense_weights
from alphatune.packed.walk import quantize_layer, quantize_layers
from alphatune.settings import BCQConfig

SOLVERS = {
    "greedy": {"solver": "greedy"},
    "alternating": {"solver": "alternating"},
    "alternating + offset": {"solver": "alternating", "offset": True},
    "weighted": {"solver": "weighted"},
    "weighted + offset": {"solver": "weighted", "offset": True},
    "hessian": {"solver": "hessian"},
    "hessian + offset": {"solver": "hessian", "offset": True},
    "gptq": {"solver": "gptq"},
    "gptq + offset": {"solver": "gptq", "offset": True},
}


def inputs_like(generator: torch.Generator, columns: int, tokens: int) -> list[Tensor]:
    """Two independent samples [tokens, columns] of one distribution: to calibrate on, and to evaluate on."""
    mixing = torch.eye(columns) + 0.8 * torch.randn(columns, columns, generator=generator) / columns**0.5
    scale = torch.exp(0.7 * torch.randn(columns, generator=generator))
    scale[torch.randperm(columns, generator=generator)[:8]] *= 10
    mean = 0.3 * torch.randn(columns, generator=generator)
    return [(torch.randn(tokens, columns, generator=generator) @ mixing + mean) * scale for _ in range(2)]


def synthetic(rows: int = 256, columns: int = 768, tokens: int = 4096) -> None:
    """Print ||X (W - W_q)^T||^2 / ||X W^T||^2 on the calibration inputs and on inputs not calibrated on."""
    print(f"W {rows} x {columns}, {tokens} inputs each; calibration | evaluation; row-wise scales")
    print("| weights | solver | " + " | ".join(f"q={q} cal. | q={q} eval." for q in (1, 2, 3, 4)) + " |")
    print("|---|---|" + "---|---|" * 4)
    for name in ("Gaussian", "Student t, 6 df"):
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(rows, columns, generator=generator)
        if name != "Gaussian":
            weight /= (torch.randn(6, rows, columns, generator=generator).square().mean(dim=0)).sqrt()
        seen, unseen = inputs_like(generator, columns, tokens)
        layer = torch.nn.Linear(columns, rows)
        layer.weight.data = weight
        for label, settings in SOLVERS.items():
            cells = []
            for q in (1, 2, 3, 4):
                packed, _ = quantize_layer(layer, BCQConfig(q, **settings), hessian=seen.T @ seen / tokens)
                difference = weight - packed.weight_t().T
                for x in (seen, unseen):
                    cells.append(float((x @ difference.T).square().sum() / (x @ weight.T).square().sum()))
            print(f"| {name} | {label} | " + " | ".join(f"{c:.4f}" for c in cells) + " |", flush=True)


def perplexity_table(arguments: argparse.Namespace) -> None:
    """Print the perplexity on the evaluation texts for every solver and q, and the seconds of quantising."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    evaluation = _batches(arguments.evaluation, tokenizer, arguments.evaluate_on)
    calibration = _batches(arguments.calibration, tokenizer, arguments.calibrate_on)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in calibration)
    group = arguments.group_size if arguments.group_size in (None, "h") else int(arguments.group_size)
    print(f"calibrated on {arguments.calibrate_on} texts ({tokens} tokens); full precision: "
          f"{perplexity(model, evaluation):.2f}; scales per {group or 'row'}")  # fmt: skip
    print("| solver | " + " | ".join(f"q={q}" for q in arguments.bits) + " | seconds |")
    print("|---|" + "---|" * (len(arguments.bits) + 1))
    for label in arguments.solvers:
        settings, cells, seconds = SOLVERS[label], [], 0.0
        for q in arguments.bits:
            quantised = copy.deepcopy(model)
            started = time.process_time()
            quantize_layers(quantised, BCQConfig(q, group, **settings), False, calibration)
            seconds += time.process_time() - started
            with dense_weights(quantised):  # rebuilt once, not for every batch
                cells.append(perplexity(quantised, evaluation))
        print(f"| {label} | " + " | ".join(f"{c:.1f}" for c in cells) + f" | {seconds / len(cells):.1f} |", flush=True)


@torch.no_grad()
def perplexity(model: torch.nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """exp of the mean loss over all tokens."""
    total, count = 0.0, 0
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        total, count = total + float(loss), count + int((labels != IGNORED).sum())
    return math.exp(total / count)


def _batches(file: Path, tokenizer: object, limit: int, size: int = 8) -> list[dict[str, Tensor]]:
    """The first `limit` lines, each after the end token, so that its first word is predicted too."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()][:limit]
    end = tokenizer.eos_token_id  # type: ignore[attr-defined]
    texts = [[end, *tokenizer(line)["input_ids"][:255]] for line in lines]  # type: ignore[operator]
    items = [Item(ids, ids) for ids in texts]
    return [collate(items[i : i + size], end) for i in range(0, len(items), size)]


def seconds(rows: int = 1024, columns: int = 4096) -> None:
    """Print the processor seconds per layer, second moments given."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(columns, rows)
    layer.weight.data = torch.randn(rows, columns, generator=generator)
    x = inputs_like(generator, columns, 2 * columns)[0]
    hessian = x.T @ x / len(x)
    print(f"{rows} x {columns}, q=3, processor seconds of 1 thread")
    print("| solver | per row | g=256 | g=64 |\n|---|---|---|---|")
    for label, settings in SOLVERS.items():
        cells = []
        for group in (None, 256, 64):
            started = time.process_time()
            quantize_layer(layer, BCQConfig(3, group, **settings), hessian=hessian)
            cells.append(time.process_time() - started)
        print(f"| {label} | " + " | ".join(f"{c:.1f}" for c in cells) + " |", flush=True)


def main() -> None:
    """Read the command line and print the table asked for."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    tables.add_parser("synthetic")
    tables.add_parser("seconds")
    model = tables.add_parser("perplexity")
    model.add_argument("model", type=Path)
    model.add_argument("calibration", type=Path)
    model.add_argument("evaluation", type=Path)
    model.add_argument("--calibrate-on", type=int, default=128, help="texts")
    model.add_argument("--evaluate-on", type=int, default=400, help="texts")
    model.add_argument("--bits", type=lambda s: [int(q) for q in s.split(",")], default=[1, 2, 3, 4])
    model.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS), metavar="SOLVER")
    model.add_argument("--group-size", default=None, help="a number or h; default: one row")
    arguments = parser.parse_args()
    if arguments.table == "synthetic":
        synthetic()
    elif arguments.table == "seconds":
        seconds()
    else:
        perplexity_table(arguments)


if __name__ == "__main__":
    main()
