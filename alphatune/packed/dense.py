"""Dense weights in the place of packed ones: kept where bits would be slower, written down in a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import unpack

_Part = Tensor | torch.dtype | str | None


class _Kept(NamedTuple):
    made_of: tuple[tuple[_Part, int | None], ...]  # with the versions of tensors
    scale: Tensor | None  # the adapter's values, copied
    weight: Tensor


class DenseWeight:
    """The weight of one layer, kept as long as what it was made of stays the same.

    Another adapter, a merge or a step of an optimiser makes it anew: what is kept is never that of other scales. Scales
    are compared by value too, as torch does not count what is written through `.data` (moving averages do that).
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None  # in one piece: other threads read and write it

    def of(self, made_of: tuple[_Part, ...], scale: Tensor | None, rebuild: Callable[[], Tensor]) -> Tensor:
        """The weight made of these tensors (and of what else names it); `rebuild` is called if it is not at hand.

        It is not kept where torch does not count how often a tensor is written to.

        Args:
            scale: of an adapter, the one of the tensors that training changes.
        """
        kept = self._kept
        if kept is not None:  # asked at every product of a small layer: no list is made
            for (known, version), part in zip(kept.made_of, made_of, strict=True):
                if known is not part or (version is not None and part._version != version):  # type: ignore[union-attr]
                    break
            else:
                if scale is None or torch.equal(scale, kept.scale):  # type: ignore[arg-type]
                    return kept.weight
        if any(isinstance(part, Tensor) and part.is_inference() for part in made_of):
            return rebuild()
        versions = tuple((part, part._version if isinstance(part, Tensor) else None) for part in made_of)
        with torch.inference_mode(False), torch.no_grad():  # so that it serves outside inference mode too
            values = None if scale is None else scale.detach().clone()
            kept = _Kept(versions, values, rebuild())
        self._kept = kept
        return kept.weight

    def drop(self) -> None:
        """Forget the weight."""
        self._kept = None


def plain_weight_t(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """W^T [in, out] in float32 by operations that `torch.jit.trace` can write down; slower, of the same bits."""
    signs = unpack(qweight, grouping.columns)  # [out, q, in]
    weight = torch.zeros(grouping.columns, grouping.rows, dtype=torch.float32, device=qweight.device)
    for i in range(qweight.shape[1]):
        weight = weight + grouping.spread(alpha[:, i]) * (signs[:, i].T.float() * 2 - 1)
    return weight if offset is None else weight + grouping.spread(offset)
