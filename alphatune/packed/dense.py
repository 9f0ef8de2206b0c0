"""Dense weights in the place of packed ones: kept where bits would be slower, written down in a trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import unpack


class DenseWeight:
    """W^T [in, out] of one layer, kept as long as what it was made of stays the same.

    Another adapter, a merge or a step of an optimiser makes it anew: what is kept is never that of other scales.
    """

    def __init__(self) -> None:
        self._made_of: tuple[Tensor | str | None, ...] | None = None
        self._versions: list[int] = []
        self._weight_t: Tensor | None = None

    def of(self, made_of: tuple[Tensor | str | None, ...], rebuild: Callable[[], Tensor]) -> Tensor:
        """The weight made of these tensors (and of what else names it); `rebuild` is called if it is not at hand.

        It is not kept where torch does not count how often a tensor is written to.
        """
        tensors = [t for t in made_of if isinstance(t, Tensor)]
        if any(t.is_inference() for t in tensors):
            return rebuild()
        versions = [t._version for t in tensors]
        known = self._made_of is not None and all(a is b for a, b in zip(self._made_of, made_of, strict=True))
        if self._weight_t is None or not known or versions != self._versions:
            with torch.inference_mode(False), torch.no_grad():  # so that it serves outside inference mode too
                self._weight_t = rebuild()
            self._made_of, self._versions = made_of, versions
        return self._weight_t

    def drop(self) -> None:
        """Forget the weight."""
        self._made_of, self._weight_t = None, None


def plain_weight_t(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """W^T [in, out] in float32 by operations that `torch.jit.trace` can write down; slower, of the same bits."""
    signs = unpack(qweight, grouping.columns)  # [out, q, in]
    weight = torch.zeros(grouping.columns, grouping.rows, dtype=torch.float32, device=qweight.device)
    for i in range(qweight.shape[1]):
        weight = weight + grouping.spread(alpha[:, i]) * (signs[:, i].T.float() * 2 - 1)
    return weight if offset is None else weight + grouping.spread(offset)
