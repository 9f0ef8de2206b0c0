"""What the inputs of a model's layers look like on some texts: H = X^T X / T for every layer, by forward hooks.

T counts the tokens of all texts, padding left out. The inputs are those of the model as it is given: full precision,
not yet quantised.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from alphatune.errors import UserError

_STRIPE = 192  # columns of a symmetric product computed at once: what lies below them is known by then
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
    sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}  # by the layers that read the same inputs: q, k and v do
    mask = torch.ones(0)
    last: list[tuple[Tensor, Tensor, int, list[str]]] = []  # an input, its products, its tokens, its readers

    def add(name: str, inputs: Tensor) -> None:
        if not last or last[0][0] is not inputs:
            flush()
            rows = inputs.detach().float().reshape(-1, inputs.shape[-1])
            if len(rows) == mask.numel():
                rows = rows[mask]
            last[:] = [(inputs, _products(rows), len(rows), [])]
        last[0][3].append(name)

    def flush() -> None:
        if last:
            _, products, tokens, names = last.pop()
            if tokens:
                before = sums.get(tuple(names))
                sums[tuple(names)] = (before[0].add_(products), before[1] + tokens) if before else (products, tokens)

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
            flush()
    finally:
        last.clear()
        for handle in handles:
            handle.remove()
        model.train(training)

    @functools.cache
    def mean(readers: tuple[str, ...]) -> Tensor:
        total, tokens = sums[readers]
        return _whole(total).div_(tokens)

    moments: dict[str, Tensor] = {}
    for name in widths:
        read = {readers: tokens * readers.count(name) for readers, (_, tokens) in sums.items() if name in readers}
        if not read:
            raise UserError(f"calibration: the layer {name} saw no token; this model does not use it")
        if len(read) == 1:
            moments[name] = mean(*read)  # one tensor for all its readers
        else:
            parts = [mean(part) * tokens for part, tokens in read.items()]
            moments[name] = torch.stack(parts).sum(dim=0) / sum(read.values())
    return moments


def _products(rows: Tensor) -> Tensor:
    """X^T X on and above its diagonal blocks; what lies below them is 0."""
    products = rows.new_zeros(rows.shape[1], rows.shape[1])
    for start in range(0, len(products), _STRIPE):
        stop = start + _STRIPE
        torch.mm(rows[:, start:stop].T, rows[:, start:], out=products[start:stop, start:])
    return products


def _whole(products: Tensor) -> Tensor:
    """The symmetric matrix of sums of such products."""
    upper = products.triu()
    return upper + upper.triu(1).T
