"""Codes by GPTQ's error feedback (arXiv 2210.17323), with codebooks in the place of its uniform grid.

Column after column takes the nearest value of its row's (group's) codebook, and columns not yet coded are moved to make
up for the error: at once within a block of columns, for those behind it by one product a block. Columns of W are rows
here, which is how they are visited.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alphatune.native.presence import fast
from alphatune.quant import bcq

_BLOCK = 32  # columns
_FEW = 4  # bits up to which all levels are looked at instead of searched


class Codebook:
    """The 2^q values of every group, sorted, from scales [G, k, n]; k = q + 1 has the offset last."""

    def __init__(self, scales: Tensor, bits: int) -> None:
        table = bcq.code_table(bits, scales.device)
        values = torch.einsum("gqn,lq->gnl", scales[:, :bits], table.float() * 2 - 1)
        if scales.shape[1] > bits:
            values += scales[:, bits, :, None]
        values, numbers = values.sort(dim=2)
        self.bits = bits
        self.values = values.transpose(1, 2).contiguous()  # [G, L, n]
        self.middles = ((self.values[:, 1:] + self.values[:, :-1]) / 2).contiguous()  # [G, L - 1, n]
        self.numbers = numbers.int().transpose(1, 2).contiguous()  # [G, L, n]: the codes of the levels

    def nearest(self, group: int, rows: Tensor) -> Tensor:
        """The codes of the nearest values of weights [n, m] of one group; one in the middle goes down. uint8 [n, m]."""
        position = torch.searchsorted(self.middles[group].T.contiguous(), rows.contiguous())
        return self.numbers[group].T.to(torch.uint8).gather(1, position)


def feedback(work: Tensor, book: Codebook, groups: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of columns `work` [in, n], which is overwritten, and the errors left over.

    Args:
        groups: int64 [in], the group of each column.
        upper: [in, in], U with U^T U = H^-1.

    Returns:
        codes uint8 [in, n], and errors E [in, n]: the error of a row of weights is e = E U, so e H e^T = ||E||^2.
    """
    errors, codes = torch.empty_like(work), torch.empty(work.shape, dtype=torch.uint8, device=work.device)
    inverse = upper.diagonal().reciprocal()
    step = _step(work, book.bits)
    for start in range(0, len(work), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(work)))
        step(
            work[part], upper[part, part], inverse[part], groups[part], book.middles, book.values, book.numbers,
            errors[part], codes[part],
        )  # fmt: skip
        work[part.stop :].addmm_(upper[part, part.stop :].T, errors[part], alpha=-1)
    return codes, errors


def _step(work: Tensor, bits: int) -> Callable[..., None]:
    if work.is_cpu and bits <= _FEW and fast():
        from alphatune.quant.kernels import feedback as machine_code

        return machine_code.feedback
    return _column_by_column


def _column_by_column(
    work: Tensor, corner: Tensor, inverse: Tensor, groups: Tensor,
    middles: Tensor, values: Tensor, numbers: Tensor, errors: Tensor, codes: Tensor,
) -> None:  # fmt: skip
    """What the kernel does, to the same bits: products are rounded before they are taken away."""
    few = middles.shape[1] < 2**_FEW
    sorted_middles = None if few else middles.transpose(1, 2).contiguous()
    for j, group in enumerate(groups.tolist()):
        if sorted_middles is None:
            position = (work[j] > middles[group]).sum(dim=0, keepdim=True)
        else:
            position = torch.searchsorted(sorted_middles[group], work[j, :, None]).T
        torch.sub(work[j], values[group].gather(0, position)[0], out=errors[j]).mul_(inverse[j])
        codes[j] = numbers[group].gather(0, position)[0]
        work[j + 1 :] -= corner[j, j + 1 :, None] * errors[j]
