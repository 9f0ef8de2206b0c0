"""Packed layers on a CPU against dense ones: `python benchmarks/packed_cpu.py [--short] [--token SMOLLM2_FOLDER]`.

Every ratio is one of medians, measured in one process in alternating order after a warm-up; CPU time decides, wall time
is beside it. Weights are taken in turn from more copies than the last cache holds. Tables go to the screen, figures to
benchmarks/results/packed_cpu.json, those of --short, of --token and of more threads to files beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import alphatune
from alphatune.packed.linear import PackedLinear
from alphatune.packed.product import rebuild
from alphatune.quant.grouping import Grouping

RESULTS = Path(__file__).parent / "results"
SMOLLM2 = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]  # a block: out, in
LARGE = [(2048, 2048)] * 4 + [(8192, 2048), (2048, 8192)]  # a block of a 1.3 B model
PEERS = ("bitsandbytes", "ctranslate2", "xllamacpp")
CACHE = 64 << 20  # bytes of dense weights that are more than the last cache holds


def alternate(rounds: int, **calls: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, CPU and wall, of calls in turns; each turn starts with another one."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    names = list(calls)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            cpu, wall = time.process_time(), time.perf_counter()
            calls[name]()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    found = {}
    for name, taken in times.items():
        cpus, walls = zip(*taken, strict=True)
        found[name] = {"cpu": 1e3 * statistics.median(cpus), "wall": 1e3 * statistics.median(walls)}
    return found


def bits(out: int, n_in: int, planes: int, size: int | None) -> PackedLinear:
    """A packed layer of random bits and scales."""
    grouping = Grouping.of(out, n_in, size)
    groups, shared = grouping.scales_shape
    words = torch.randint(-(2**31), 2**31, (-(-n_in // 32), planes, out), dtype=torch.int32)
    return PackedLinear(words, torch.rand(groups, planes, shared), None, None, grouping)


def layers(block: list[tuple[int, int]], planes: int, size: int | None, rows: int, rounds: int) -> dict[str, Any]:
    """A block's layers, packed against dense, as often as fills the cache."""
    copies = max(2, CACHE // sum(4 * o * i for o, i in block))
    inputs = {i: torch.randn(rows, i) for _, i in block}
    dense = [nn.Linear(i, o, bias=False) for _ in range(copies) for o, i in block]
    packed = [bits(o, i, planes, size) for _ in range(copies) for o, i in block]

    def run(all_layers: list[nn.Module]) -> Callable[[], None]:
        def call() -> None:
            for layer in all_layers:
                layer(inputs[layer.in_features])  # type: ignore[index]

        return call

    return compared(alternate(rounds, dense=run(list(dense)), packed=run(list(packed))), "dense", "packed")


def rebuilding(out: int, n_in: int, planes: int, rounds: int) -> dict[str, Any]:
    """A rebuilt weight in reused memory against a copy of its bytes."""
    layer, source, target = bits(out, n_in, planes, None), torch.randn(n_in, out), torch.empty(n_in, out)
    parts = layer.qweight, layer.alpha, layer.offset, layer.grouping
    repeat = range(max(1, (8 << 20) // (4 * out * n_in)))

    def copying() -> None:
        for _ in repeat:
            target.copy_(source)

    def ours() -> None:
        for _ in repeat:
            rebuild(*parts, reuse=True)

    return compared(alternate(rounds, memcpy=copying, rebuild=ours), "memcpy", "rebuild")


def one_token(folder: Path, planes: int, rounds: int) -> dict[str, Any]:
    """A token of a whole model in transformers after 64 others: dense, packed, torch's dynamic int8, and NF4 by
    bitsandbytes where that is installed (the extra `bench`)."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, DynamicCache

    def load() -> nn.Module:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    models = {"dense": load(), "packed": load(), "int8_blocks": load()}
    alphatune.quantize_model(models["packed"], alphatune.BCQConfig(bits=planes, solver="greedy"))
    models["packed"].eval()
    inside = models["int8_blocks"].model
    models["int8_blocks"].model = torch.ao.quantization.quantize_dynamic(inside, {nn.Linear}, dtype=torch.qint8)

    if find_spec("bitsandbytes"):
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        models["nf4"] = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, quantization_config=config, device_map="cpu"
        ).eval()

    def step(model: nn.Module) -> Callable[[], None]:
        cache = DynamicCache(config=model.config)
        model(torch.arange(64)[None], past_key_values=cache, use_cache=True)
        token = torch.tensor([[100]])

        def call() -> None:
            model(token, past_key_values=cache, use_cache=True)
            cache.crop(-1)

        return call

    times = alternate(rounds, **{name: step(model) for name, model in models.items()})
    peers = {
        f"{name}_ratio": times[name]["cpu"] / times["dense"]["cpu"] for name in times if name.startswith(("i", "n"))
    }
    return {**compared(times, "dense", "packed"), **peers}


def compared(times: dict[str, dict[str, float]], base: str, ours: str) -> dict[str, Any]:
    """The times with the ratio of `ours` to `base`."""
    return {
        **times,
        "ratio": times[ours]["cpu"] / times[base]["cpu"],
        "wall_ratio": times[ours]["wall"] / times[base]["wall"],
    }


def machine() -> dict[str, Any]:
    """Versions and the CPU."""
    versions = {}
    for package in ("alphatune", "torch", "llvmlite", "numpy", "transformers", *PEERS):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in (info.read_text().splitlines() if info.exists() else []) if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [f for f in found.get("flags", "").split() if f.startswith(("avx", "fma", "f16c", "sse4", "amx"))]
    return {"versions": versions, "cpu": found.get("model name", platform.processor()), "flags": flags}


@torch.no_grad()
def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="fewer settings, the same number of rounds")
    parser.add_argument("--token", type=Path, metavar="FOLDER", help="one token of SmolLM2-135M, nothing else")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rounds, results = 9, []

    def note(what: str, setting: dict[str, Any], found: dict[str, Any]) -> None:
        results.append({"what": what, **setting, **found})
        shown = " ".join(f"{key}={value}" for key, value in setting.items())
        print(f"| {what} | {shown} | {found['ratio']:.2f} | {found['wall_ratio']:.2f} |", flush=True)

    print("| what | setting | ratio, CPU time | ratio, wall time |\n|---|---|--:|--:|")
    name = "packed_cpu" if given.threads == 1 else f"packed_cpu-{given.threads}-threads"
    name += "-short" if given.short else ""
    every = (3,) if given.short else (2, 3, 4)
    if given.token:
        name += "-token"
        for planes in every:
            note("a token of SmolLM2 / dense", {"q": planes, "g": "row"}, one_token(given.token, planes, 3 * rounds))
    else:
        for planes, size, rows in cases(given.short):
            setting = {"q": planes, "g": size or "row", "rows": rows}
            note("layers of SmolLM2 / dense", setting, layers(SMOLLM2, planes, size, rows, rounds))
        for planes in every:
            found = layers(LARGE, planes, None, 1, rounds)
            note("layers of 1.3 B / dense", {"q": planes, "g": "row", "rows": 1}, found)
        for out, n_in in ((1536, 576), (576, 1536), (4096, 4096)):
            for planes in every:
                setting = {"q": planes, "weight": f"{n_in}x{out}"}
                note("rebuild / memcpy", setting, rebuilding(out, n_in, planes, rounds))
    RESULTS.mkdir(exist_ok=True)
    load = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
    record = {**machine(), **load, "threads": given.threads, "rounds": rounds, "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def cases(short: bool) -> list[tuple[int, int | None, int]]:
    """Planes, group size and rows of the products that are measured."""
    usual = [(q, g, n) for q in ((3,) if short else (2, 3, 4)) for g in (None, 64) for n in (1, 2, 4, 8, 16)]
    many: list[tuple[int, int | None, int]] = [(3, None, n) for n in ((64, 512) if short else (32, 64, 128, 256, 512))]
    odd = [(3, 48, 1), (3, 100, 1), (3, 16, 1), (3, 8, 1), (3, 8, 4), (3, 8, 64), (4, 8, 1)]
    wide: list[tuple[int, int | None, int]] = [(8, None, 1), (8, None, 2), (8, None, 8), (8, 64, 16), (8, None, 64)]
    return usual + many + odd[3 if short else 0 :] + wide


if __name__ == "__main__":
    main()
