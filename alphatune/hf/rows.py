"""One batch, several adapters: `adapter_names=[...]` with one name a row, as peft has it for LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from alphatune.errors import UserError

BASE = "__base__"  # peft's name for a row without any adapter


class RowAdapters:
    """Which adapter each row of a batch uses, while a model computes with it.

    With `beams`, the batch may grow: beam search has several rows for each name.
    """

    def __init__(self, names: Sequence[str], beams: bool) -> None:
        self.names, self._beams = list(names), beams
        self._shape = (len(self.names), 1)  # rows and tokens of what the model was given last

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the model computes: the rows and tokens of its inputs.

        Raises:
            UserError: there is not a name for each row.
        """
        given = _inputs(args, kwargs)
        if given is not None:
            if len(given) % len(self.names) or (len(given) != len(self.names) and not self._beams):
                raise UserError(_count(self.names, given))
            self._shape = (given.shape[0], given.shape[1])

    def of(self, x: Tensor) -> list[str]:
        """The name for every row of a layer's input [rows, tokens, in], or [rows * tokens, in] as OPT flattens it.

        Raises:
            UserError: the rows of this layer's input are not those of the batch.
        """
        rows, tokens = self._shape
        expected = rows if x.ndim > 2 else rows * tokens
        if len(x) != expected:
            raise UserError(
                f"adapter_names: a layer is given {len(x)} rows for {rows} texts, so it cannot be told which is whose; "
                "run the batch once for each adapter"
            )
        each = len(x) // len(self.names)
        return [name for name in self.names for _ in range(each)]


@contextmanager
def row_adapters(
    model: nn.Module, layers: Mapping[nn.Module, Sequence[str]], names: Any, args: tuple[Any, ...], kwargs: Any
) -> Iterator[None]:
    """Within the block, `layers` (each with the adapters that it has) and new heads are told the name for every row.

    Raises:
        UserError: the model is training, names are not one for each row, or one is unknown.
    """
    if model.training:
        raise UserError("adapter_names: for inference only; call model.eval(), or train one adapter at a time")
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"adapter_names={names!r}: must be a list of names, one for each row of the batch")
    known = {name for found in layers.values() for name in found}
    if unknown := sorted(set(names) - known - {BASE}):
        raise UserError(f"adapter_names: no adapter is called {unknown[0]}; there are: {', '.join(sorted(known))}")
    given = _inputs(args, kwargs)
    if given is not None and len(given) != len(names):
        raise UserError(_count(names, given))

    rows = RowAdapters(names, beams=given is not None)  # `generate` hands on its inputs, a forward keeps them
    handles = [model.register_forward_pre_hook(rows.see, with_kwargs=True)]
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(partial(_tell, told=rows), with_kwargs=True))
    for module in model.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):  # a new head: peft's own, which wants the plain list
            handles.append(module.register_forward_pre_hook(partial(_tell, told=rows.names), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], told: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "adapter_names": told}


def _inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What a model is given to read: ids [rows, tokens], or embeddings [rows, tokens, width]."""
    candidates = [
        *(kwargs.get(name) for name in ("input_ids", "inputs_embeds", "inputs", "decoder_input_ids")),
        *args[:1],
    ]
    return next((t for t in candidates if isinstance(t, Tensor) and t.ndim > 1), None)


def _count(names: Sequence[str], given: Tensor) -> str:
    return f"adapter_names: {len(names)} names for a batch of {len(given)} rows; give one for each row"
