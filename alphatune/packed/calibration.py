"""What the inputs of a model's layers look like on some texts: H = X^T X / T for every layer, by forward hooks.

T counts the tokens of all texts, padding left out. The inputs are those of the model as it is given: full precision,
not yet quantised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from alphatune.errors import UserError

MEMORY = 2**31  # bytes of second moments held at once: all of GPT-2 M in one pass, three passes for GPT-2 L


def second_moments(
    model: nn.Module, widths: Mapping[str, int], batches: Sequence[Mapping[str, Tensor]], memory: int = MEMORY
) -> Iterator[tuple[str, Tensor]]:
    """The second moments of the inputs of the named layers, one layer after another.

    The model reads all batches once for as many layers as fit in `memory`, then again for the next ones; it must not
    change in between.

    Args:
        widths: layer name -> number of inputs.
        batches: what the model takes, as tensors [B, T]; `attention_mask` says which tokens count, labels are not
            passed on.
        memory: bytes; a single layer that needs more gets a pass of its own.

    Yields:
        name and [in, in] float32 on the model's device.

    Raises:
        UserError: no batches, or a layer that the model does not use.
    """
    if not batches:
        raise UserError("calibration: there are no texts to calibrate on")
    for names in _passes(widths, memory):
        moments = _one_pass(model, {name: widths[name] for name in names}, batches)
        for name in names:
            yield name, moments.pop(name)


def _passes(widths: Mapping[str, int], memory: int) -> Iterator[list[str]]:
    """The names in portions whose matrices take at most `memory` bytes."""
    portion: list[str] = []
    used = 0
    for name, width in widths.items():
        if portion and used + 4 * width**2 > memory:
            yield portion
            portion, used = [], 0
        portion.append(name)
        used += 4 * width**2
    yield portion


@torch.no_grad()
def _one_pass(
    model: nn.Module, widths: Mapping[str, int], batches: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    moments = {name: torch.zeros(width, width, dtype=torch.float32, device=device) for name, width in widths.items()}
    counted = dict.fromkeys(widths, 0)
    mask = torch.ones(0)

    last: list[tuple[Tensor, Tensor, int]] = []  # an input, its products, its tokens: q, k and v read the same one

    def add(name: str, inputs: Tensor) -> None:
        if not last or last[0][0] is not inputs:
            rows = inputs.detach().float().reshape(-1, inputs.shape[-1])
            if len(rows) == mask.numel():
                rows = rows[mask]
            last[:] = [(inputs, rows.T @ rows, len(rows))]
        _, products, tokens = last[0]
        moments[name] += products
        counted[name] += tokens

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: add(name, inputs[0]))

    # the blocks are all that is needed: a language model's head would multiply by the whole vocabulary for nothing
    body = getattr(model, "base_model", model)
    handles, training = [hook(name) for name in widths], model.training
    model.eval()
    try:
        for batch in batches:
            given = {name: value.to(device) for name, value in batch.items() if name != "labels"}
            whole = torch.ones(given["input_ids"].shape, dtype=torch.bool, device=device)
            mask = given["attention_mask"].bool().flatten() if "attention_mask" in given else whole.flatten()
            body(**given)
    finally:
        last.clear()
        for handle in handles:
            handle.remove()
        model.train(training)
    unused = [name for name, tokens in counted.items() if not tokens]
    if unused:
        raise UserError(f"calibration: the layer {unused[0]} saw no token; this model does not use it")
    return {name: moment / counted[name] for name, moment in moments.items()}
