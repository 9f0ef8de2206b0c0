"""Switching tasks, forward and training steps on a packed model: `python benchmarks/adapters.py [MODEL] [THREADS]`.

Random weights in the shape of conf/model/MODEL.yaml (gpt2-medium). Medians of alternating rounds in one process, and
their ratio to the first row. CPU unless torch sees a GPU.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

import alphatune
from alphatune.compose.compose import config_of
from alphatune.learn import models
from alphatune.packed.linear import packed_layers

ROUNDS, TOKENS = 5, 64


def _model(name: str) -> nn.Module:
    """The shape of conf/model/<name>.yaml with random weights."""
    torch.manual_seed(0)
    network = type(models.skeleton(config_of([f"model={name}"]).model))
    return network(models.skeleton(config_of([f"model={name}"]).model).config).eval()  # type: ignore[arg-type]


def _adapters(model: nn.Module, config: Callable[[], object], changed: str) -> nn.Module:
    """Two adapters, "a" and "b", on one base; b's tensors differ."""
    wrapped = get_peft_model(model, config(), adapter_name="a")  # type: ignore[arg-type]
    wrapped.add_adapter("b", config())  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if changed in name and ".b" in name:
                parameter += 0.01 * torch.randn_like(parameter)
    return wrapped


def _scales() -> alphatune.AlphaTuningConfig:
    return alphatune.AlphaTuningConfig(task_type="CAUSAL_LM")  # type: ignore[arg-type]


def _lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")


def _flip(model: nn.Module) -> Callable[[], None]:
    turn = iter("ba" * 10_000)
    assert isinstance(model, PeftModel)
    return lambda: model.set_adapter(next(turn))


def _step(model: nn.Module, ids: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _forward(model: nn.Module, ids: torch.Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            model(input_ids=ids)

    return forward


def _table(title: str, calls: dict[str, Callable[[], object]], device: str) -> None:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    first = next(iter(medians.values()))
    print(f"\n{title}\n\n| | median ms | ratio |\n|---|--:|--:|")
    for name, value in medians.items():
        print(f"| {name} | {value:,.1f} | {value / first:.2f} |")


def main() -> None:
    """Time and print the three tables."""
    name = sys.argv[1] if len(sys.argv) > 1 else "gpt2-medium"
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{name}, random weights, {where}, torch {torch.__version__}, median of {ROUNDS} rounds")
    dense = _model(name)
    packed = alphatune.quantize_model(copy.deepcopy(dense), alphatune.BCQConfig(3), progress=False)
    print(f"{len(packed_layers(packed))} packed layers, q = 3, one scale per row")
    ids = torch.randint(1, 1000, (4, TOKENS), device=device)
    with tempfile.TemporaryDirectory() as folder:
        packed.save_pretrained(folder)  # type: ignore[operator]
        size = sum(f.stat().st_size for f in Path(folder).glob("*.safetensors")) / 1e6
        bare = copy.deepcopy(packed).to(device)
        scales = _adapters(packed, _scales, "alphatuning_scale").to(device)
        lora = _adapters(copy.deepcopy(dense), _lora, "lora_B").to(device)
        _table("One task to another", {
            "set_adapter, scales on the packed base": _flip(scales),
            "set_adapter, LoRA of rank 4 on the dense base": _flip(lora),
            f"loading another packed model from disk ({size:.0f} MB)": lambda: AutoModelForCausalLM.from_pretrained(
                folder
            ),
        }, device)  # fmt: skip
    dense.to(device)
    _table(f"Forward pass, 4 x {TOKENS} tokens", {
        "dense": _forward(dense, ids), "packed": _forward(bare, ids),
        "packed with an adapter of scales": _forward(scales, ids), "dense with LoRA": _forward(lora, ids),
    }, device)  # fmt: skip
    _table(f"Training step, 4 x {TOKENS} tokens", {
        "full fine-tuning": _step(dense.requires_grad_(True), ids), "LoRA of rank 4": _step(lora, ids),
        "AlphaTuning": _step(scales, ids),
    }, device)  # fmt: skip


if __name__ == "__main__":
    main()
