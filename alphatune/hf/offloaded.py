"""Models that accelerate keeps on disk or in host memory: they compute as others do, but are not changed there."""

from __future__ import annotations

from accelerate.utils import has_offloaded_params
from torch import nn

from alphatune.errors import UserError


def refuse_offloaded(model: nn.Module, what: str) -> None:
    """Refuse to change what is elsewhere: libraries would change a copy, or leave the change on the meta device.

    Args:
        what: what is to be done with the model first, such as "dequantise it".

    Raises:
        UserError: some of its tensors are offloaded.
    """
    if any(has_offloaded_params(module) for module in model.modules()):
        raise UserError(f"this model is offloaded: load it whole to {what}, and offload it then")
