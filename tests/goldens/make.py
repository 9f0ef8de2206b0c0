"""Losses of 20 training steps per method on a random two-layer GPT-2: `python tests/goldens/make.py` rewrites them.

They guard against unmeant changes of training; a meant change regenerates them in a commit of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

METHODS = ["full_ft", "lora", "alphatuning", "peqa", "bcq_lora"]


def losses(method: str, folder: Path, *more: str) -> list[float]:
    """Training losses of steps 1 to 20, CPU, one thread, float32; `more` are further overrides."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from alphatune.compose.compose import config_of
    from alphatune.learn import methods, train
    from alphatune.learn.batches import IGNORED, Item
    from alphatune.packed import walk

    config = config_of([f"method={method}", "quant.q=2", "hparams.learning_rate=5e-3", "hparams.batch_size=4",
                        "trainer.max_steps=20", "trainer.evals=20", "trainer.saves=0", "runtime.progress=false",
                        "runtime.device=cpu", *more])  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    ))  # fmt: skip
    if config.method.quantize == "before":
        walk.quantize_layers(model, config.quant.settings(), progress=False)
    torch.manual_seed(0)
    model = methods.prepare(model, config)
    generator = torch.Generator().manual_seed(1)
    items = []
    for i in range(40):
        ids = torch.randint(1, 64, (6 + i % 9,), generator=generator).tolist()
        items.append(Item(ids, [IGNORED] * 3 + ids[3:]))
    curves = train.train(model, items, items[:4], config, 0, folder)
    return [round(value, 6) for _, value in curves.train]


if __name__ == "__main__":
    out = Path(__file__).with_name("losses.json")
    with tempfile.TemporaryDirectory() as scratch:
        values = {method: losses(method, Path(scratch) / method) for method in METHODS}
    out.write_text(json.dumps(values, indent=1) + "\n")
    print(f"wrote {out.name}", file=sys.stderr)
