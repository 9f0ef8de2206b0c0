"""Packed layers in the layout of LUT-GEMM kernels, read back with numpy alone. `lut_gemm_export.py [MODEL]`"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from toy import load

import alphatune
from alphatune.packed.linear import packed_layers
from alphatune.tools.export import LUT_GEMM_JSON, LUT_GEMM_TENSORS, write_lut_gemm

model, _ = load()
alphatune.quantize_model(model, alphatune.BCQConfig(bits=3, group_size=32), progress=False)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_lut_gemm(model, folder, torch.float32)
    layers = json.loads((folder / LUT_GEMM_JSON).read_text())["layers"]
    tensors = load_file(folder / LUT_GEMM_TENSORS)
    print(f"{len(layers)} layers, {(folder / LUT_GEMM_TENSORS).stat().st_size} bytes")

worst = 0.0
for name, about in layers.items():
    inputs = np.arange(about["in_features"])
    words = tensors[f"{name}.binary"].view(np.uint32)[inputs // 32]  # [in, q, out]
    signs = 2.0 * (words >> (inputs % 32).astype(np.uint32)[:, None, None] & 1) - 1
    alpha = tensors[f"{name}.alpha"][inputs // about["group_size"]]  # [in, q, out]
    weight = (alpha * signs).sum(axis=1).T
    worst = max(worst, float(np.abs(weight - packed_layers(model)[name].weight.numpy()).max()))
print(f"kernel-ready layers: {sum(about['whole_words'] for about in layers.values())}")
print(f"largest difference from the packed layers' weights: {worst:.1e}")
