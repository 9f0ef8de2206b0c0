"""`alphatune export`: packed models for programs that do not know alphatune.

"dense" writes an ordinary checkpoint. "lut-gemm" writes the packed layers alone, in the layout that LUT-GEMM kernels
take: of a layer with K inputs and M outputs, q planes and G groups of g inputs,

  NAME.binary   int32 [ceil(K / 32), q, M]: bit k % 32 (lowest first) of word k // 32 belongs to input k; 1 means +1
  NAME.alpha    [G, q, M]: input k has the scales of group k // g
  NAME.q_bias   [G, M]: added to every weight of the group; only of layers with an offset
  NAME.bias     [M]: added to the layer's output; only of layers that have one

so that W[m, k] = sum_i alpha[k // g, i, m] * (+1 or -1) + q_bias[k // g, m]. Inputs beyond K must be 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.hf.dense import unpack_layers, without_quantization
from alphatune.packed.linear import PackedLinear, packed_layers
from alphatune.tools import outputs

LUT_GEMM_JSON, LUT_GEMM_TENSORS = "lut_gemm.json", "lut_gemm.safetensors"
_WORD = 32


def run(args: argparse.Namespace) -> int:
    """Export the folder that the command line names.

    Raises:
        UserError: it holds no packed model, or the adapter cannot be merged.
    """
    source = checkpoints.local(args.dir, args.revision)
    adapter = None if args.adapter is None else checkpoints.local(args.adapter)
    keep = [source, *([] if adapter is None else [adapter])]
    outputs.check_out(args.out, args.overwrite, keep)
    if checkpoints.quant_method(checkpoints.settings(source)) is None:
        raise UserError(f"{args.dir} is not packed: there is nothing to export")
    dtype = getattr(torch, args.dtype or ("float32" if args.to == "dense" else "float16"))
    if args.to == "lut-gemm" and dtype is torch.bfloat16:
        raise UserError("--dtype bfloat16: LUT-GEMM's scales are float16 or float32")
    for folder in [source, *([] if adapter is None else [adapter])]:
        sealed.verify(folder)
    model = checkpoints.load(source)
    if adapter is not None:
        model = merged(model, adapter)
    with outputs.new_folder(args.out, args.overwrite, keep) as folder, checkpoints.quiet():
        if args.to == "dense":
            to_dense(model, dtype).save_pretrained(folder)
            checkpoints.copy_tokenizer(source, folder)
        else:
            write_lut_gemm(model, folder, dtype)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{args.out}: {args.to}, {args.dtype or str(dtype).removeprefix('torch.')}, {size / 1e6:.2f} MB")
    return 0


def merged(model: Any, adapter: Path) -> Any:
    """`model` with the scales of an adapter written into it.

    Raises:
        UserError: the adapter is of another base, or cannot be merged into packed layers.
    """
    wrapped, _ = checkpoints.load_adapters(model, [adapter])
    return wrapped.merge_and_unload(safe_merge=True)


def to_dense(model: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Put ordinary layers in the place of packed ones, in place: what is saved then loads without alphatune.

    Returns:
        The same model, in `dtype`.

    Raises:
        UserError: nothing in it is packed, or it carries an adapter.
    """
    plain = without_quantization(model)
    model = unpack_layers(model, dtype)
    model.config = plain
    model.is_quantized, model.hf_quantizer = False, None
    if hasattr(model, "quantization_method"):
        del model.quantization_method
    return model


def write_lut_gemm(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the packed layers of `model` for LUT-GEMM kernels: tensors and a JSON file that describes them.

    Args:
        dtype: of scales and offsets; the published kernels take float16.

    Returns:
        The description.

    Raises:
        UserError: nothing is packed, or scales do not fit into `dtype`.
    """
    layers, tensors, described = packed_layers(model), dict[str, Tensor](), dict[str, Any]()
    if not layers:
        raise UserError(f"{type(model).__name__} has no packed layer")
    for name, layer in layers.items():
        grouping = layer.grouping
        found = {"binary": layer.qweight, "alpha": _per_output(layer.alpha, layer).to(dtype)}
        if layer.offset is not None:
            found["q_bias"] = _per_output(layer.offset, layer).to(dtype)
        if layer.bias is not None:
            found["bias"] = layer.bias.to(dtype)
        for part, tensor in found.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise UserError(f"{name}.{part} does not fit into {dtype}: use --dtype float32")
            tensors[f"{name}.{part}"] = tensor.detach().cpu().clone().contiguous()
        size = min(grouping.size, grouping.columns)
        described[name] = {
            "in_features": grouping.columns, "out_features": grouping.rows, "bits": layer.bits,
            "group_size": size, "groups": grouping.per_row,
            # kernels read whole words and equal groups; other layers need their inputs padded by the caller
            "whole_words": grouping.columns % _WORD == 0 and size % _WORD == 0 and grouping.columns % size == 0,
            "tensors": {part: list(tensor.shape) for part, tensor in found.items()},
        }  # fmt: skip
    description = {
        "format": "alphatune lut-gemm", "version": 1, "scales": str(dtype).removeprefix("torch."),
        "weight": "W[m, k] = sum_i alpha[k // group_size, i, m] * (2 * bit(i) - 1) + q_bias[k // group_size, m]",
        "bit": "bit(i) = binary[k // 32, i, m] >> (k % 32) & 1",
        "layers": described,
    }  # fmt: skip
    save_file(tensors, folder / LUT_GEMM_TENSORS, {"format": "pt"})
    (folder / LUT_GEMM_JSON).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return description


def _per_output(scales: Tensor, layer: PackedLinear) -> Tensor:
    """[G, ..., R] -> [G, ..., out]: a scale that several rows share is repeated, as kernels have one per output."""
    span = layer.grouping.span
    return scales if span == 1 else scales.repeat_interleave(span, dim=-1)[..., : layer.out_features]
