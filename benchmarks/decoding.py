"""Beam search against transformers' generate, same prompts and rules: `python benchmarks/decoding.py [MODEL_FOLDER]`.

Prints medians of several alternating rounds in one process and their ratio. Without a folder: a random 6-layer GPT-2.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from alphatune.config import Decode
from alphatune.learn.decode import beam_search

ROUNDS, PROMPTS, BEAM, NEW = 3, 16, 10, 64


def _model() -> torch.nn.Module:
    if len(sys.argv) > 1:
        return AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    torch.manual_seed(0)
    shape = {"n_embd": 384, "n_layer": 6, "n_head": 6, "vocab_size": 8192, "n_positions": 512}
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, pad_token_id=0)).eval()


def main() -> None:
    """Time both and print the table."""
    torch.set_num_threads(1)
    model = _model()
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(1, 8000, (20 + 2 * i,), generator=generator).tolist() for i in range(PROMPTS)]
    settings = Decode(
        beam=BEAM, no_repeat_ngram=4, no_repeat_scope="all", no_repeat_before_softmax=False, length_penalty=0.8,
        max_new_tokens=NEW, candidates="double", stopping="bound", batch_size=PROMPTS,
    )  # fmt: skip
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])

    def ours() -> list[list[int]]:
        return [h.tokens for h in beam_search(model, prompts, settings, end_tokens=[0], pad_token=0)]

    def stock() -> list[list[int]]:
        out = model.generate(  # type: ignore[operator]
            ids, attention_mask=mask, num_beams=BEAM, no_repeat_ngram_size=4, length_penalty=0.8, max_new_tokens=NEW,
            do_sample=False, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        return [[t for t in row if t != 0] for row in out[:, longest:].tolist()]

    times: dict[str, list[float]] = {"ours": [], "generate": []}
    same = 0
    for _ in range(ROUNDS):
        results = {}
        for name, call in (("ours", ours), ("generate", stock)):
            started = time.perf_counter()
            results[name] = call()
            times[name].append(time.perf_counter() - started)
        same = sum(a == b for a, b in zip(results["ours"], results["generate"], strict=True))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{PROMPTS} prompts, beam {BEAM}, {NEW} new tokens, 1 thread, median of {ROUNDS}; {same} of {PROMPTS} equal")
    print(f"| beam_search | {medians['ours']:.2f} s |\n| generate    | {medians['generate']:.2f} s |")
    print(f"| ratio       | {medians['generate'] / medians['ours']:.2f} |")


if __name__ == "__main__":
    main()
