"""Packed layers on a GPU against dense bfloat16 and peers: `python benchmarks/packed_gpu.py [--short]`.

Peers are torch's int4 product, bitsandbytes' NF4 and gptqmodel's Marlin, the last two where installed. Each figure is a
median of alternating rounds in one process after a warm-up, over the layers of a block, which come in more copies than
the GPU's cache holds: `eager` as Python calls them, `graph` replayed as one CUDA graph, free of the time that launching
takes. Errors are against float64. Exits with 3 where torch sees no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from packed_cpu import bits
from torch import Tensor, nn

from alphatune.packed.linear import PackedLinear
from alphatune.packed.product import fast_on_gpu

RESULTS = Path(__file__).parent / "results" / "packed_gpu.json"
BLOCKS = {  # layers of a block, out x in
    "SmolLM2-135M": [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)],
    "1.3 B": [(2048, 2048)] * 4 + [(8192, 2048), (2048, 8192)],
    "7 B": [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)],
}
CACHE = 256 << 20  # bytes of dense weights: more than any GPU's cache holds
ROUNDS = 15
Call = Callable[[], object]
Layer = Callable[[Tensor], Tensor]


def dense(out: int, n_in: int) -> Layer:
    """bfloat16."""
    return nn.Linear(n_in, out, bias=False, device="cuda", dtype=torch.bfloat16)


def packed(planes: int, size: int | None, few: int | None, out: int, n_in: int) -> Layer:
    """Ours; with `few`, the path of so many rows at most is that without tensor cores."""
    layer = bits(out, n_in, planes, size).cuda()
    if few is None:
        return layer
    from alphatune.packed.kernels import gpu

    return lambda x: gpu.multiply(x, layer.qweight, layer.alpha, layer.offset, layer.grouping, few)


def int4(out: int, n_in: int) -> Layer | None:
    """torch's product with 4-bit weights, g = 128, of the shapes it takes."""
    if n_in % 128 or out % 64:
        return None
    codes = torch.randint(0, 256, (out, n_in // 2), dtype=torch.uint8, device="cuda")
    weight = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
    scales = torch.rand(n_in // 128, out, 2, dtype=torch.bfloat16, device="cuda")
    return lambda x: torch.ops.aten._weight_int4pack_mm(x, weight, 128, scales)


def nf4(out: int, n_in: int) -> Layer | None:
    """bitsandbytes, blocks of 64."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return None
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(n_in, out, bias=False, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4")
    return layer.to(torch.bfloat16).cuda()


def marlin(out: int, n_in: int) -> Layer | None:
    """gptqmodel's Marlin kernel, 4 bits, g = 128, of the shapes it takes."""
    if importlib.util.find_spec("gptqmodel") is None or n_in % 128 or out % 64:
        return None
    from gptqmodel.nn_modules.qlinear import marlin as module

    kind = getattr(module, "MarlinLinear", None) or module.MarlinQuantLinear  # its older name
    layer = kind(bits=4, group_size=128, desc_act=False, sym=True, in_features=n_in, out_features=out, bias=False)
    layer.qweight.random_(-(2**31), 2**31 - 1)
    layer.scales.uniform_()
    layer = layer.to(torch.bfloat16).cuda()
    layer.post_init()
    return layer


def rivals(short: bool) -> Iterator[tuple[str, Callable[[int, int], Layer | None]]]:
    """All that is compared, by name."""
    yield "dense", dense
    for planes in (3,) if short else (2, 3, 4):
        yield f"q={planes}", partial(packed, planes, None, None)
    yield "q=3 g=128", partial(packed, 3, 128, None)
    yield "q=3 without tensor cores", partial(packed, 3, None, 64)
    yield "q=3 with tensor cores", partial(packed, 3, None, 0)
    yield from (("torch int4", int4), ("bitsandbytes nf4", nf4), ("gptqmodel marlin", marlin))


def calls(block: list[tuple[int, int]], rows: int, make: Callable[[int, int], Layer | None]) -> Call | None:
    """Every layer of as many blocks as fill the cache, one after another; None where a layer cannot be made."""
    copies = max(1, CACHE // sum(2 * out * n_in for out, n_in in block))
    inputs = {n_in: torch.randn(rows, n_in, device="cuda", dtype=torch.bfloat16) for _, n_in in block}
    made = [(make(out, n_in), inputs[n_in]) for _ in range(copies) for out, n_in in block]
    ready = [(layer, x) for layer, x in made if layer is not None]
    if len(ready) < len(made):
        return None

    def run() -> None:
        for layer, x in ready:
            layer(x)

    return run


def graph(call: Call) -> Call | None:
    """The same as one CUDA graph; None where it cannot be captured (a peer that waits for the GPU)."""
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            call()
    except RuntimeError:
        return None
    return captured.replay


def alternate(named: dict[str, Call]) -> dict[str, float]:
    """Median milliseconds of each, in turns, by the GPU's own clock."""
    times: dict[str, list[float]] = {name: [] for name in named}
    names = list(named)
    for call in named.values():
        call()
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            named[name]()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(taken) for name, taken in times.items()}


def error(rows: int, planes: int, dtype: torch.dtype) -> float:
    """The largest error of one product over its largest result, against float64 of the weight rounded as it is."""
    layer: PackedLinear = bits(1000, 1000, planes, 100).cuda()
    x = torch.randn(rows, 1000, device="cuda", dtype=dtype)
    exact = x.double() @ layer.weight_t().double()
    return float((layer(x).double() - exact).abs().max() / exact.abs().max())


@torch.no_grad()
def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="one model's shapes, q = 3, batches 1 and 16")
    short = parser.parse_args().short
    if not torch.cuda.is_available():
        print("error: torch sees no GPU, and this benchmark measures nothing else", file=sys.stderr)
        return 3
    card = torch.device("cuda", torch.cuda.current_device())
    if not fast_on_gpu(card):
        print(
            "error: no kernels here: they need pip install 'alphatune[gpu]' and a GPU of capability 8.0",
            file=sys.stderr,
        )
        return 3
    torch.manual_seed(0)
    errors = {
        f"{rows} rows, {dtype}": error(rows, 3, dtype) for rows in (1, 64) for dtype in (torch.float32, torch.bfloat16)
    }
    print("| largest error | |\n|---|--:|\n" + "\n".join(f"| {name} | {value:.1e} |" for name, value in errors.items()))
    results: list[dict[str, Any]] = []
    print("\n| block | rows | what | over dense, eager | over dense, graph |\n|---|--:|---|--:|--:|")
    for block in ("1.3 B",) if short else BLOCKS:
        for rows in (1, 16) if short else (1, 2, 4, 8, 16, 32, 64):
            made = {name: calls(BLOCKS[block], rows, make) for name, make in rivals(short)}
            eager = alternate({name: call for name, call in made.items() if call is not None})
            graphs = {name: graph(made[name]) for name in eager}  # type: ignore[arg-type]
            replayed = alternate({name: call for name, call in graphs.items() if call is not None})
            for name, taken in eager.items():
                ratio, again = taken / eager["dense"], replayed.get(name)
                inside = None if again is None else again / replayed["dense"]
                found = {"eager": ratio, "graph": inside, "eager_ms": taken, "graph_ms": again}
                results.append({"block": block, "rows": rows, "what": name, **found})
                shown = "" if inside is None else f"{inside:.2f}"
                print(f"| {block} | {rows} | {name} | {ratio:.2f} | {shown} |", flush=True)
            del made, graphs
            torch.cuda.empty_cache()
    peers = ("alphatune", "torch", "triton", "bitsandbytes", "gptqmodel")
    versions = {name: version(name) for name in peers if importlib.util.find_spec(name)}
    record = {"gpu": torch.cuda.get_device_name(card), "versions": versions, "rounds": ROUNDS, "errors": errors}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**record, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
