"""Beam search against transformers' generate, same prompts and rules.

python benchmarks/decoding.py [--model FOLDER --data FOLDER]

With a model's folder and WebNLG's data: prompts from the test set, evenly spread. Without: a random 6-layer GPT-2 on
random prompts. Medians in one process, in alternating order after a warm-up: processor time decides, wall time beside
it. How many sequences are the same is counted. Figures go to benchmarks/results/decoding.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from packed_cpu import alternate, machine
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from alphatune.config import Data, Decode
from alphatune.data import task_config
from alphatune.data.load import split_of
from alphatune.learn.batches import Counts, context_ids
from alphatune.learn.decode import beam_search

RESULTS = Path(__file__).parent / "results"
END = 0


def random_model() -> tuple[Any, list[list[int]]]:
    """A model of random weights, which hardly ever ends a text, and random prompts."""
    shape = {"n_embd": 384, "n_layer": 6, "n_head": 6, "vocab_size": 8192, "n_positions": 512}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=END, eos_token_id=END, pad_token_id=END))
    generator = torch.Generator().manual_seed(1)
    return model, [torch.randint(1, 8000, (20 + 2 * i,), generator=generator).tolist() for i in range(64)]


def real_model(model: Path, data: Path) -> tuple[Any, list[list[int]]]:
    """A model of a folder and the prompts of WebNLG's test set."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    task, examples = split_of(task_config("webnlg"), Data(dir=str(data)), "test")
    prompts = [context_ids(example.text, tokenizer, task, Counts()) for example in examples]
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), prompts


def main() -> None:
    """Time both, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--new", type=int, default=32, help="new tokens at most")
    parser.add_argument("--rounds", type=int, default=None, help="3 with a model, else 9")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if (given.model is None) != (given.data is None):
        parser.error("--model and --data go together")
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, prompts = real_model(given.model, given.data) if given.model else random_model()
    prompts = prompts[:: len(prompts) // given.prompts][: given.prompts]
    settings = Decode(
        beam=given.beam, no_repeat_ngram=4, no_repeat_scope="all", no_repeat_before_softmax=False, length_penalty=0.8,
        max_new_tokens=given.new, candidates="double", stopping="bound", batch_size=given.prompts,
    )  # fmt: skip
    longest, found = max(map(len, prompts)), dict[str, list[list[int]]]()
    ids = torch.tensor([[END] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    model.eval()

    def ours() -> None:
        found["ours"] = [h.tokens for h in beam_search(model, prompts, settings, end_tokens=[END], pad_token=END)]

    def stock() -> None:
        out = model.generate(
            ids, attention_mask=mask, num_beams=given.beam, no_repeat_ngram_size=4, length_penalty=0.8,
            max_new_tokens=given.new, do_sample=False, eos_token_id=END, pad_token_id=END,
        )  # fmt: skip
        found["generate"] = [[t for t in row if t != END] for row in out[:, longest:].tolist()]

    rounds = given.rounds or (3 if given.model else 9)
    times = alternate(rounds, ours=ours, generate=stock)
    result = {
        **times, "generate_over_ours": times["generate"]["cpu"] / times["ours"]["cpu"],
        "same": sum(a == b for a, b in zip(found["ours"], found["generate"], strict=True)),
        "model": given.model.name if given.model else "random GPT-2, 6 layers", "prompts": given.prompts,
        "prompt_tokens": [len(p) for p in prompts], "beam": given.beam, "new": given.new, "threads": given.threads,
        "rounds": rounds,
    }  # fmt: skip
    print(f"{result['model']}: {given.prompts} prompts, beam {given.beam}, {given.new} new tokens, {rounds} rounds")
    for name, taken in times.items():
        print(f"| {name} | {taken['cpu'] / 1e3:.2f} s |")
    print(f"| ratio | {result['generate_over_ours']:.2f} |, {result['same']} of {given.prompts} sequences the same")
    name = "decoding.json" if given.model else "decoding-random.json"
    (RESULTS / name).write_text(json.dumps({**machine(), **result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
