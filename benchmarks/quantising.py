"""What quantising costs and leaves: `python benchmarks/quantising.py MODEL_FOLDER [--json FILE] [--gptq TEXTS]`.

The linear layers of the first `--blocks` blocks are solved by every solver, one thread, in one process, beside a copy
of the same weights. Figures are processor time as a multiple of the copy's, wall time beside it: medians of `--rounds`
turns in which all take part. The table of errors is for layers of one block: ||W - W_q|| / ||W|| after alternating
from each start, and of the grids. `--gptq TEXTS` quantises the whole model by gptq with an offset, once, on that many
sequences of 64 random tokens.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from alphatune.packed.walk import linear_layers, quantize_layers, weight_of
from alphatune.quant import uniform
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import solve_matrix
from alphatune.settings import BCQConfig, Quantization, UniformConfig

Timing = dict[str, Any]


def solve_all(weights: list[Tensor], config: Quantization, group: int | None) -> None:
    """Codes and scales of every matrix, thrown away."""
    for weight in weights:
        solve_matrix(weight, config, Grouping.of(*weight.shape, group))


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Median processor and wall seconds of each call, taken in turns after one turn to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            if turn:
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: {"cpu_s": statistics.median(c for c, _ in runs), "wall_s": statistics.median(w for _, w in runs)}
        for name, runs in times.items()
    }


def speeds(weights: list[Tensor], rounds: int) -> list[Timing]:
    """Each solver, q and group size beside a copy."""
    found = []
    count = sum(w.numel() for w in weights)
    print(f"\n{count / 1e6:.1f} M weights\n\n| solver | q | g | CPU s | wall s | copies |\n|---|--:|--:|--:|--:|--:|")
    for q, group in ((2, None), (3, None), (4, None), (3, 64), (4, 64)):
        configs: dict[str, Quantization] = {
            "greedy": BCQConfig(q, group),
            "alternating": BCQConfig(q, group, "alternating"),
            "alternating + offset": BCQConfig(q, group, "alternating", offset=True),
        }
        calls: dict[str, Callable[[], object]] = {"copy": lambda: [w.clone() for w in weights]}
        calls |= {name: partial(solve_all, weights, config, group) for name, config in configs.items()}
        for name, spent in timed(calls, rounds).items():
            if name == "copy":
                copied = spent
            copies = spent["cpu_s"] / copied["cpu_s"]
            row: Timing = {"solver": name, "q": q, "group_size": group, **spent, "copies": copies}
            found.append(row)
            seconds = f"{row['cpu_s']:.3f} | {row['wall_s']:.3f}"
            print(f"| {name} | {q} | {group or 'row'} | {seconds} | {copies:.1f} |", flush=True)
    return found


def errors(layers: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The relative error of each layer's weights, by start, with and without the offset."""
    found = []
    print("\n| layer | q | g | offset | greedy | alternating from greedy | from uniform | best | grid | PEQA's grid |"
          "\n|---|--:|--:|---|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    for name, weight in layers.items():
        for q in (2, 3, 4):
            for group in (None, 192, 64):
                grouping = Grouping.of(*weight.shape, group)
                peqa = solve_matrix(weight, UniformConfig(q, group), grouping).relative_error
                for offset in (False, True):
                    values = {
                        "greedy": BCQConfig(q, group, offset=offset),
                        "alternating": BCQConfig(q, group, "alternating", offset=offset),
                        "uniform": BCQConfig(q, group, "alternating", offset=offset, start="uniform"),
                        "best": BCQConfig(q, group, "alternating", offset=offset, start="best"),
                    }
                    got = {k: solve_matrix(weight, c, grouping).relative_error for k, c in values.items()}
                    got["grid"] = peqa if offset else grid_error(weight, q, grouping)
                    assert got["best"] <= got["grid"] * (1 + 1e-6), (name, q, group, offset, got)
                    row = {"layer": name, "q": q, "group_size": group, "offset": offset, **got, "peqa": peqa}
                    found.append(row)
                    print(f"| {name} | {q} | {group or 'row'} | {offset} | " + " | ".join(
                        f"{got[k]:.4f}" for k in ("greedy", "alternating", "uniform", "best", "grid")
                    ) + f" | {peqa:.4f} |", flush=True)  # fmt: skip
    return found


def grid_error(weight: Tensor, q: int, grouping: Grouping) -> float:
    """The relative error of the searched grid that is symmetric around 0."""
    lost = 0.0
    for vectors in grouping.vectors(weight):
        step, zero, codes = uniform.symmetric(vectors, q)
        lost += float((vectors - step[:, None] * (codes - zero[:, None])).double().square().sum())
    return (lost / float(weight.double().square().sum())) ** 0.5


def gptq(model: torch.nn.Module, texts: int, tokens: int = 64) -> Timing:
    """Seconds of quantising the model by gptq with an offset, calibration included."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (texts, tokens), generator=generator)
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(8)]
    quantised = copy.deepcopy(model)
    cpu, wall = time.process_time(), time.perf_counter()
    reports = quantize_layers(quantised, BCQConfig(3, solver="gptq", offset=True), False, batches)
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    mean = sum(r.output_error or 0.0 for r in reports) / len(reports)
    weights = sum(r.rows * r.columns for r in reports)
    print(f"\ngptq + offset, q = 3, row-wise, {weights / 1e6:.1f} M weights, {texts} texts of {tokens} tokens")
    print(f"{spent['cpu_s']:.1f} s of CPU, {spent['wall_s']:.1f} s; mean output error {mean:.4f}")
    return {"q": 3, "weights": weights, "texts": texts, "tokens": tokens, **spent, "mean_output_error": mean}


def machine() -> dict[str, Any]:
    """Versions, and the flags of the CPU that vector code depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    flags = [f for f in named.get("flags", "").split() if f.startswith(("avx", "fma", "bmi"))]
    return {
        "cpu": named.get("model name", platform.processor()), "flags": flags, "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__,
    }  # fmt: skip


def main() -> None:
    """Read the command line, print the tables, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=None, help="how many are timed (default: all)")
    parser.add_argument("--block", type=int, default=10, help="the block whose errors are shown")
    parser.add_argument("--gptq", type=int, default=0, metavar="TEXTS")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    layers = {name: weight_of(layer) for name, layer in linear_layers(model).items()}
    numbers = {name: int(next(part for part in name.split(".") if part.isdigit())) for name in layers}
    blocks = len(set(numbers.values())) if arguments.blocks is None else arguments.blocks
    result = {
        "model": arguments.model.name, "machine": machine(), "rounds": arguments.rounds, "blocks": blocks,
        "speeds": speeds([w for n, w in layers.items() if numbers[n] < blocks], arguments.rounds),
        "errors": errors({
            n: w for n, w in layers.items()
            if numbers[n] == arguments.block and n.endswith(("q_proj", "v_proj", "down_proj"))
        }),
    }  # fmt: skip
    if arguments.gptq:
        result["gptq"] = gptq(model, arguments.gptq)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
