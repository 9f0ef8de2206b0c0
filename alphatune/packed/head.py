"""An output head in 8 bits, for texts that are written token by token: most of what is left to read after packing.

A weight is round(w / s) times s, with one s per row of the vocabulary, the largest magnitude over 127. Inputs are not
rounded. Where the head is tied to the input embedding, both read the same bytes and the dense matrix is freed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.packed.product import fast

ROWS = 4  # of one call of the kernel
FEW = 16  # rows up to which the kernel is called, several times if need be
BLOCK = 2048  # outputs whose weights are dense at once where there are more rows


def eight_bit_head(model: nn.Module) -> nn.Module:
    """Put the output head of a transformers model in 8 bits, and the input embedding with it where they are tied.

    For inference: save the model before. Changes the model and returns it.

    Raises:
        UserError: the model has no linear head, one tied to an embedding that does more than look up, weights that are
            not on a CPU in float32, or the package that compiles the kernel is missing.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if type(head) is not nn.Linear:
        raise UserError("an 8-bit head needs a model whose output head is one linear layer")
    tied = embedding is not None and embedding.weight is head.weight
    if tied and type(embedding) is not nn.Embedding:  # Gemma's multiplies what it reads
        raise UserError(f"an 8-bit head cannot be tied to an input embedding of the kind {type(embedding).__name__}")
    if not head.weight.is_cpu or head.weight.dtype != torch.float32:
        raise UserError("an 8-bit head needs float32 weights on a CPU")
    if not fast():
        raise UserError("an 8-bit head needs compiled kernels: pip install 'alphatune[fast]'")
    codes, scale = rounded(head.weight.detach())
    if tied:
        model.set_input_embeddings(EightBitEmbedding(codes, scale))  # type: ignore[operator]
    model.set_output_embeddings(EightBitHead(codes, scale, head.bias))  # type: ignore[operator]
    return model


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 and scales float32 [rows] of a matrix; a row of zeros has scale 1."""
    largest = weight.abs().amax(1)
    scale = torch.where(largest == 0, torch.ones_like(largest), largest / 127)
    codes = torch.empty(weight.shape, dtype=torch.int8)
    for start in range(0, len(weight), BLOCK):  # a second dense matrix would not fit everywhere
        part = slice(start, start + BLOCK)
        codes[part] = (weight[part] / scale[part, None]).round().clamp(-127, 127)
    return codes, scale


class _EightBit(nn.Module):
    """Bytes and their scales; not for saving, as no loader would know them."""

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def _save_to_state_dict(self, *_: object) -> None:
        raise UserError("an 8-bit head is for inference and cannot be saved: save the model before making it")


class EightBitEmbedding(_EightBit):
    """Rows of the matrix by number: [...] -> [..., in], float32."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes[ids] * self.scale[ids][..., None]


class EightBitHead(_EightBit):
    """[..., in] -> [..., out]: by the kernel for few rows, else by dense weights, block after block of outputs."""

    def __init__(self, codes: Tensor, scale: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__(codes, scale)
        self.out_features, self.in_features = codes.shape
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        followed = torch.jit.is_tracing() or torch.compiler.is_compiling()  # neither sees what a kernel writes
        plain = type(x) is Tensor and x.is_cpu and x.dtype == torch.float32 and not followed
        if plain and 0 < rows <= FEW and not (torch.is_grad_enabled() and x.requires_grad):
            from alphatune.packed.kernels import native

            parts = x.reshape(rows, self.in_features).split(ROWS)
            y = torch.cat([native.by_bytes(part, self.codes, self.scale) for part in parts])
            y = y.view(*x.shape[:-1], self.out_features)
        else:
            blocks = zip(self.codes.split(BLOCK), self.scale.split(BLOCK), strict=True)
            y = torch.cat([x @ (codes.to(x.dtype) * scale[:, None].to(x.dtype)).T for codes, scale in blocks], -1)
        return y if self.bias is None else y + self.bias
