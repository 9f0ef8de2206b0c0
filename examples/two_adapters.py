"""Two tasks on one packed base, switched in place. `two_adapters.py [MODEL]`"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from peft import get_peft_model
from toy import KITCHEN, WEATHER, load, train

import alphatune

model, encode = load()
alphatune.quantize_model(model, alphatune.BCQConfig(bits=3), progress=False)
texts = {"weather": encode(WEATHER), "kitchen": encode(KITCHEN)}
settings = {"trainable": "first", "task_type": "CAUSAL_LM"}
tuned = get_peft_model(model, alphatune.AlphaTuningConfig(**settings), adapter_name="weather")
tuned.add_adapter("kitchen", alphatune.AlphaTuningConfig(**settings))
for name, ids in texts.items():
    tuned.set_adapter(name)
    train(tuned.train(), ids)

tuned.eval()
for name in ("weather", "kitchen", "weather"):
    start = time.perf_counter()
    tuned.set_adapter(name)
    milliseconds = 1000 * (time.perf_counter() - start)
    with torch.no_grad():
        losses = {task: tuned(input_ids=ids, labels=ids).loss.item() for task, ids in texts.items()}
    best = min(losses, key=lambda task: losses[task])
    told = ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
    print(f"{name}: switched in {milliseconds:.2f} ms; losses {told}; best at {best}")

with tempfile.TemporaryDirectory() as folder:
    tuned.save_pretrained(folder)
    for file in sorted(Path(folder).glob("*/adapter_model.safetensors")):
        print(f"adapter {file.parent.name}: {file.stat().st_size} bytes")
