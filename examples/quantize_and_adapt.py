"""Your own model: quantise it, train only scales on a few texts, save, load. `quantize_and_adapt.py [MODEL]`"""

from __future__ import annotations

import tempfile

import torch
from peft import PeftModel, get_peft_model
from toy import WEATHER, load, train
from transformers import AutoModelForCausalLM

import alphatune

model, encode = load()
dense_mb = sum(p.numel() for p in model.parameters()) * 4 / 1e6
alphatune.quantize_model(model, alphatune.BCQConfig(bits=3), progress=False)
reports = model.hf_quantizer.reports
print(
    f"{len(reports)} layers in 3 bits, mean relative error {sum(r.relative_error for r in reports) / len(reports):.3f}"
)
packed_mb = sum(t.numel() * t.element_size() for t in {*model.parameters(), *model.buffers()}) / 1e6
print(f"{dense_mb:.2f} MB dense, {packed_mb:.2f} MB packed")

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(f"{folder}/base")
    tuned = get_peft_model(model, alphatune.AlphaTuningConfig(trainable="first", task_type="CAUSAL_LM"))
    ids = encode(WEATHER)
    first, last = train(tuned.train(), ids)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    print(f"{trained} scales trained: loss {first:.3f} -> {last:.3f}")
    tuned.save_pretrained(f"{folder}/task")

    base = AutoModelForCausalLM.from_pretrained(f"{folder}/base")
    again = PeftModel.from_pretrained(base, f"{folder}/task").eval()
    with torch.no_grad():
        same = torch.equal(again(input_ids=ids).logits, tuned.eval()(input_ids=ids).logits)
    print(f"the same logits after loading: {same}")
