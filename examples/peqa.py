"""PEQA: uniform codes, and only their step sizes train; the merged model keeps its codes. `peqa.py [MODEL]`"""

from __future__ import annotations

import torch
from peft import get_peft_model
from toy import WEATHER, load, train

import alphatune
from alphatune.packed.linear import packed_layers

model, encode = load()
alphatune.quantize_model(model, alphatune.UniformConfig(bits=4), progress=False)
codes = {name: layer.qweight.clone() for name, layer in packed_layers(model).items()}
tuned = get_peft_model(model, alphatune.AlphaTuningConfig(trainable="gain", task_type="CAUSAL_LM"))
ids = encode(WEATHER)
first, last = train(tuned.train(), ids)
trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
print(f"{trained} step sizes trained: loss {first:.3f} -> {last:.3f}")

with torch.no_grad():
    before = tuned.eval()(input_ids=ids).logits
    merged = tuned.merge_and_unload()
    difference = (merged(input_ids=ids).logits - before).abs().max().item()
kept = all(torch.equal(layer.qweight, codes[name]) for name, layer in packed_layers(merged).items())
print(f"{len(codes)} layers merged, codes unchanged: {kept}, largest difference of a logit {difference:.1e}")
