"""A training step of AlphaTuning and PEQA against LoRA's on a CPU: `python benchmarks/training_step.py SMOLLM2_FOLDER`.

The first layers of SmolLM2-135M without its head, forward and backward on 8 texts of 69 tokens, what WebNLG has on
average. Ratios of medians measured in one process in alternating order after a warm-up: CPU time, wall time beside it.
Rebuilding the dense weights once from the codes is timed beside them: what keeping them from the forward to the
backward pass would save. Figures go to benchmarks/results/training_step.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from packed_cpu import alternate, machine
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel

import alphatune
from alphatune.packed.linear import PackedLinear
from alphatune.packed.product import rebuild

RESULTS = Path(__file__).parent / "results" / "training_step.json"
TEXTS, TOKENS = 8, 69
REBUILDING = "rebuilding AlphaTuning's weights once"
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(folder: Path, layers: int) -> nn.Module:
    """The first layers of the model."""
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = layers
    model: nn.Module = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32)
    return model


def step(model: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> Callable[[], None]:
    """Forward, backward and an optimiser's step; gradients go through to the inputs, as below other layers."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def call() -> None:
        model(inputs_embeds=x, use_cache=False).last_hidden_state.backward(gradient)
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return call


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("smollm2", type=Path, help="folder of SmolLM2-135M")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def lora(rank: int, targets: list[str]) -> nn.Module:
        return get_peft_model(load(given.smollm2, given.layers), LoraConfig(r=rank, target_modules=targets))  # type: ignore[arg-type,return-value]

    def scales(quant: alphatune.BCQConfig | alphatune.UniformConfig, trainable: str) -> nn.Module:
        packed = alphatune.quantize_model(load(given.smollm2, given.layers), quant, progress=False)
        return get_peft_model(packed, alphatune.AlphaTuningConfig(trainable=trainable))  # type: ignore[arg-type,return-value]

    models = {
        "LoRA, rank 4, query and value": lora(4, ["q_proj", "v_proj"]),
        "LoRA, rank 8, every layer": lora(8, EVERY),
        "AlphaTuning, q = 3": scales(alphatune.BCQConfig(bits=3, solver="greedy"), "first"),
        "PEQA, q = 3": scales(alphatune.UniformConfig(bits=3), "gain"),
        "full fine-tuning": load(given.smollm2, given.layers),
    }
    width = models["full fine-tuning"].config.hidden_size
    x, gradient = torch.randn(TEXTS, TOKENS, width).requires_grad_(), torch.randn(TEXTS, TOKENS, width)
    steps = {name: step(model.train(), x, gradient) for name, model in models.items()}
    packed = [m for m in models["AlphaTuning, q = 3"].modules() if isinstance(m, PackedLinear)]

    def rebuilt() -> None:
        for layer in packed:
            rebuild(layer.qweight, layer.alpha, layer.offset, layer.grouping, reuse=True)

    times = alternate(given.rounds, **steps, **{REBUILDING: rebuilt})
    bases = list(times)[:2]
    print(f"| step | ms, CPU | ms, wall | over {bases[0]} | over {bases[1]} |\n|---|--:|--:|--:|--:|")
    for name, taken in times.items():
        for base in bases:
            taken[f"over {base}"] = taken["cpu"] / times[base]["cpu"]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in taken.values())} |")
    setting = {"layers": given.layers, "texts": TEXTS, "tokens": TOKENS, "threads": 1, "rounds": given.rounds}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**machine(), **setting, "results": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
