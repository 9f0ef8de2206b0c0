"""How time and memory grow: `python benchmarks/growth.py`; random weights, one thread, no model needed.

Against the size of a model: a block of the shape of each size is built, quantised (greedy, q = 3), decoded with (one
row) and thrown away; figures of whole models are a block's times the number of blocks. Against q, the group size, the
beam and the number of test inputs: one small model or layer. Each figure is the least processor time of a few calls.
Slopes are those of a line through the logarithms: 1 is proportional. Figures go to benchmarks/results/growth.json,
pictures to docs/growth-*.png.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from packed_cpu import bits, machine
from transformers import GPT2Config, GPT2LMHeadModel

from alphatune.config import Decode
from alphatune.learn.decode import beam_search
from alphatune.metrics import score
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import solve_matrix
from alphatune.settings import BCQConfig

RESULTS = Path(__file__).parent / "results" / "growth.json"
PICTURES = Path(__file__).parent.parent / "docs"
MODELS = {  # millions of weights in the blocks -> width, blocks; a block has 12 width^2 weights
    "14 M": (416, 7), "50 M": (640, 10), "85 M": (768, 12), "300 M": (1024, 24), "1.2 B": (2048, 24),
}  # fmt: skip


def least(call: Callable[[], Any], turns: int = 3) -> float:
    """Processor seconds of the quickest of some calls."""
    found = []
    for _ in range(turns):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through the logarithms, by least squares."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    middle, level = sum(a) / len(a), sum(b) / len(b)
    return sum((p - middle) * (q - level) for p, q in zip(a, b, strict=True)) / sum((p - middle) ** 2 for p in a)


def block_shapes(width: int) -> list[tuple[int, int]]:
    """Outputs and inputs of the layers of a block."""
    return [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]


def sizes() -> dict[str, Any]:
    """Models of growing size: one block, times the number of blocks."""
    found: dict[str, Any] = {"x": [], "quantise, s": [], "a token, ms": [], "packed, MB": [], "dense, MB": []}
    for width, blocks in MODELS.values():
        shapes = block_shapes(width)
        weights = [torch.randn(*shape) for shape in shapes]
        found["x"].append(12 * width * width * blocks)
        solving = [(w, Grouping.of(*w.shape, None)) for w in weights]
        config = BCQConfig(bits=3, solver="greedy")
        turns = 3 if width < 1024 else 1
        found["quantise, s"].append(
            blocks * least(lambda s=solving, c=config: [solve_matrix(w, c, g) for w, g in s], turns)
        )
        layers = [bits(o, i, 3, None) for o, i in shapes for _ in range(max(1, (16 << 20) // (12 * width * width)))]
        rows = {i: torch.randn(1, i) for _, i in shapes}
        one = least(lambda ls=layers, x=rows: [layer(x[layer.in_features]) for layer in ls], 5)
        found["a token, ms"].append(1e3 * blocks * one * len(shapes) / len(layers))
        held = (
            sum(t.numel() * t.element_size() for layer in layers for t in layer.buffers()) * len(shapes) / len(layers)
        )
        found["packed, MB"].append(blocks * held / 1e6)
        found["dense, MB"].append(blocks * sum(4 * o * i for o, i in shapes) / 1e6)
    return found


def planes() -> dict[str, Any]:
    """One layer 1536 x 576 with more and more planes."""
    found: dict[str, Any] = {"x": [1, 2, 3, 4, 6, 8], "alternating, s": [], "a row, ms": [], "packed, MB": []}
    weight, x = torch.randn(1536, 576), torch.randn(1, 576)
    for q in found["x"]:
        config, grouping = BCQConfig(bits=q, solver="alternating"), Grouping.of(1536, 576, None)
        found["alternating, s"].append(least(lambda c=config, g=grouping: solve_matrix(weight, c, g)))
        layer = bits(1536, 576, q, None)
        found["a row, ms"].append(1e3 * least(lambda ly=layer: [ly(x) for _ in range(20)], 5) / 20)
        found["packed, MB"].append(sum(t.numel() * t.element_size() for t in layer.buffers()) / 1e6)
    return found


def groups() -> dict[str, Any]:
    """The same layer with larger and larger groups."""
    found: dict[str, Any] = {"x": [8, 16, 32, 64, 144, 576], "greedy, s": [], "a row, ms": [], "packed, MB": []}
    weight, x = torch.randn(1536, 576), torch.randn(1, 576)
    for size in found["x"]:
        config, grouping = BCQConfig(bits=3, solver="greedy"), Grouping.of(1536, 576, size)
        found["greedy, s"].append(least(lambda c=config, g=grouping: solve_matrix(weight, c, g)))
        layer = bits(1536, 576, 3, size)
        found["a row, ms"].append(1e3 * least(lambda ly=layer: [ly(x) for _ in range(20)], 5) / 20)
        found["packed, MB"].append(sum(t.numel() * t.element_size() for t in layer.buffers()) / 1e6)
    return found


def beams() -> dict[str, Any]:
    """A small random model on 8 prompts of 24 tokens, 16 new ones."""
    shape = {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 8192, "n_positions": 128}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()
    prompts = [torch.randint(1, 8000, (24,)).tolist() for _ in range(8)]
    found: dict[str, Any] = {"x": [1, 2, 4, 8, 16], "8 prompts, s": [], "keys and values, MB": []}
    for beam in found["x"]:
        settings = Decode(beam=beam, max_new_tokens=16, batch_size=8)
        found["8 prompts, s"].append(
            least(lambda s=settings: beam_search(model, prompts, s, end_tokens=[0], pad_token=0), 2)
        )
        found["keys and values, MB"].append(8 * beam * 40 * 2 * 4 * 256 * 4 / 1e6)  # 4 layers of width 256, 40 tokens
    return found


def inputs() -> dict[str, Any]:
    """BLEU and TER of more and more texts of 25 words, two references each."""
    found: dict[str, Any] = {"x": [250, 500, 1000, 2000], "BLEU, s": [], "TER, s": []}
    draw = torch.Generator().manual_seed(0)

    def text() -> str:
        return " ".join(f"w{n}" for n in (torch.rand(25, generator=draw) ** 2 * 400).int().tolist())

    for count in found["x"]:
        texts, references = [text() for _ in range(count)], [[text(), text()] for _ in range(count)]
        for name in ("BLEU", "TER"):
            found[f"{name}, s"].append(least(lambda n=name, t=texts, r=references: score([n.lower()], t, r), 2))
    return found


PICTURED = {
    "model": ("weights in the blocks", sizes),
    "q": ("planes", planes),
    "g": ("weights per group", groups),
    "beam": ("beams", beams),
    "test": ("texts", inputs),
}


def draw(name: str, axis: str, found: dict[str, Any]) -> None:
    """One picture: all curves on logarithmic axes, with their slopes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.6), layout="constrained")
    for label, values in found.items():
        if label not in ("x", "slopes"):
            axes.loglog(found["x"], values, marker="o", label=f"{label} (slope {found['slopes'][label]:.2f})")
    axes.set_xlabel(axis)
    axes.set_xticks(found["x"], [f"{x:g}" if x < 1e6 else f"{x / 1e6:.0f} M" for x in found["x"]])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(PICTURES / f"growth-{name}.png", dpi=80)
    pyplot.close(figure)


@torch.no_grad()
def main() -> None:
    """Measure, print, record and draw."""
    parser = argparse.ArgumentParser()
    parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for name, (axis, measure) in PICTURED.items():
        found = measure()
        found["slopes"] = {label: slope(found["x"], values) for label, values in found.items() if label != "x"}
        results[name] = found
        for label, value in found["slopes"].items():
            shown = " ".join(f"{x:g}: {y:.3g}" for x, y in zip(found["x"], found[label], strict=True))
            print(f"| {axis} | {label} | {shown} | slope {value:.2f} |", flush=True)
        draw(name, axis, found)
    RESULTS.write_text(json.dumps({**machine(), "threads": 1, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
