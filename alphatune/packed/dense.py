"""Dense weights in the place of packed ones: kept where bits would be slower, written down in a trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import unpack

_Part = Tensor | torch.dtype | str | None


class DenseWeight:
    """The weight of one layer, kept as long as what it was made of stays the same.

    Another adapter, a merge or a step of an optimiser makes it anew: what is kept is never that of other scales.
    """

    def __init__(self) -> None:
        self._made_of: tuple[tuple[_Part, int | None], ...] = ()  # with the versions of tensors
        self._weight: Tensor | None = None

    def of(self, made_of: tuple[_Part, ...], rebuild: Callable[[], Tensor]) -> Tensor:
        """The weight made of these tensors (and of what else names it); `rebuild` is called if it is not at hand.

        It is not kept where torch does not count how often a tensor is written to.
        """
        if self._weight is not None:  # asked at every product of a small layer: no list is made
            for (known, version), part in zip(self._made_of, made_of, strict=True):
                if known is not part or (version is not None and part._version != version):  # type: ignore[union-attr]
                    break
            else:
                return self._weight
        if any(isinstance(part, Tensor) and part.is_inference() for part in made_of):
            return rebuild()
        with torch.inference_mode(False), torch.no_grad():  # so that it serves outside inference mode too
            self._weight = rebuild()
        self._made_of = tuple((part, part._version if isinstance(part, Tensor) else None) for part in made_of)
        return self._weight

    def drop(self) -> None:
        """Forget the weight."""
        self._made_of, self._weight = (), None


def plain_weight_t(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """W^T [in, out] in float32 by operations that `torch.jit.trace` can write down; slower, of the same bits."""
    signs = unpack(qweight, grouping.columns)  # [out, q, in]
    weight = torch.zeros(grouping.columns, grouping.rows, dtype=torch.float32, device=qweight.device)
    for i in range(qweight.shape[1]):
        weight = weight + grouping.spread(alpha[:, i]) * (signs[:, i].T.float() * 2 - 1)
    return weight if offset is None else weight + grouping.spread(offset)
