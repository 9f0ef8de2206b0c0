"""Adapting on WebNLG beside the stock Trainer with peft's LoRA: `python benchmarks/adaptation.py SMOLLM2 WEBNLG`.

SmolLM2-135M with its head, one pass over the same `--texts` training texts of all lengths in batches of 8, one thread.
The stock Trainer takes them in a random order, pads every batch to its longest text and computes logits for every
token; its loss is over the targets, as here. Every training runs in a process of its own, in turns: CPU time of the
training alone, and the most memory that the process ever held, its model's loading and quantising included, beside what
it held just before training. Medians go to benchmarks/results/adaptation.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from packed_cpu import machine
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

import alphatune
from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.learn import batches, methods
from alphatune.learn.train import train

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
KINDS = ("stock Trainer, LoRA", "LoRA", "AlphaTuning, q = 3", "PEQA, q = 3")
METHODS = {"LoRA": "lora", "AlphaTuning, q = 3": "alphatuning", "PEQA, q = 3": "peqa"}
BATCH = 8


def held() -> int:
    """The most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(kind: str, smollm2: Path, data: Path, texts: int) -> dict[str, Any]:
    """One training, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = config_of([
        "task=webnlg", f"model.name_or_path={smollm2}", f"method={METHODS.get(kind, 'lora')}", f"data.dir={data}",
        f"hparams.batch_size={BATCH}", "hparams.epochs=1", "hparams.learning_rate=1e-4", "quant.q=3",
        f"data.train_limit={texts}", "data.eval_limit=1", "data.offline=true", "runtime.progress=false",
        "method.lora.r=4",
    ])  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    dataset = load(config.task, config.data, progress=False)
    some = dataset.train[:: len(dataset.train) // texts]  # of all lengths: the files go from short to long
    items = batches.training_items(some, tokenizer, config.task, batches.Counts())
    items = items[:: len(items) // texts][:texts]
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with tempfile.TemporaryDirectory() as scratch:
        if kind not in METHODS:
            model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
            tokenizer.pad_token_id = pad
            trainer = Trainer(
                model,
                TrainingArguments(
                    output_dir=scratch, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-4,
                    use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
                ),
                train_dataset=[{"input_ids": i.input_ids, "labels": i.labels} for i in items],
                data_collator=DataCollatorForSeq2Seq(tokenizer),
            )  # fmt: skip
            before, cpu, wall = held(), time.process_time(), time.perf_counter()
            trainer.train()
        else:
            if kind == "AlphaTuning, q = 3":
                alphatune.quantize_model(model, alphatune.BCQConfig(bits=3, solver="greedy"), progress=False)
            elif kind == "PEQA, q = 3":
                alphatune.quantize_model(model, alphatune.UniformConfig(bits=3), progress=False)
            model = methods.prepare(model, config)
            before, cpu, wall = held(), time.process_time(), time.perf_counter()
            train(model, items, [], config, pad, Path(scratch))
    return {
        "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
        "most_memory_bytes": held(), "memory_before_bytes": before, "tokens": sum(len(i.input_ids) for i in items),
    }  # fmt: skip


def main() -> None:
    """Run every kind in turns, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("webnlg", type=Path, help="folder of WebNLG's files")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=KINDS, help="train this one here and print its figures as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.smollm2, given.webnlg, given.texts)))
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(given.rounds):
        for kind, found in runs.items():
            arguments = [given.smollm2, given.webnlg, "--texts", given.texts, "--one", kind]
            done = subprocess.run(
                [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(kind, found[-1], flush=True)
    results = {
        kind: {key: statistics.median(r[key] for r in found) for key in found[0]} for kind, found in runs.items()
    }
    stock = results[KINDS[0]]["cpu_s"]
    print("| training | CPU s | stock over it | most memory, MB |\n|---|--:|--:|--:|")
    for kind, found in results.items():
        found["stock_over_it"] = stock / found["cpu_s"]
        print(
            f"| {kind} | {found['cpu_s']:.1f} | {stock / found['cpu_s']:.2f} | {found['most_memory_bytes'] / 1e6:.0f} |"
        )
    setting = {"texts": given.texts, "batch": BATCH, "threads": 1, "rounds": given.rounds}
    RESULTS.write_text(json.dumps({**machine(), **setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
