"""Which weights share a scale: the cut of an [out, in] matrix into groups of g weights.

Groups lie along the input. If g does not divide the row, each row's last group is shorter. If g exceeds the row, a
group spans g / in whole rows (the paper's Table 4 at g = 2K needs this). Scales have shape [G, q, R]: G groups per
row and R = out, or G = 1 and R = ceil(out / rows per group).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alphatune import settings
from alphatune.errors import UserError


@dataclass(frozen=True)
class Grouping:
    """The groups of a matrix with `rows` outputs and `columns` inputs, `size` weights each."""

    rows: int
    columns: int
    size: int

    @classmethod
    def of(cls, rows: int, columns: int, group_size: int | str | None, width: int | None = None) -> Grouping:
        """The grouping that a `group_size` setting asks for; `width` is the h of "h" and "0.5h".

        Raises:
            UserError: the size does not fit this matrix.
        """
        if group_size is None:
            return cls(rows, columns, columns)
        settings.check_group_size(group_size)
        if isinstance(group_size, str):
            if width is None:
                raise UserError(
                    f"group_size={group_size}: the model's width is not known here; give a number of weights"
                )
            exact = (settings.multiple_of_width(group_size) or 0) * width
            if exact.denominator != 1:
                raise UserError(
                    f"group_size={group_size}: {float(exact):g} is not a whole number of weights at model width {width}"
                )
            group_size = int(exact)
        if group_size > columns and group_size % columns:
            raise UserError(
                f"group_size={group_size}: a group larger than a row of {columns} weights must span whole rows; "
                f"use at most {columns} or a multiple of it"
            )
        return cls(rows, columns, group_size)

    @property
    def per_row(self) -> int:
        """G: groups along one row; 1 where a group spans rows."""
        return max(1, -(-self.columns // self.size))

    @property
    def span(self) -> int:
        """Rows that share a scale."""
        return max(1, self.size // self.columns)

    @property
    def scales_shape(self) -> tuple[int, int]:
        """(G, R)."""
        return self.per_row, -(-self.rows // self.span)

    @property
    def count(self) -> int:
        """Number of groups: scales per plane."""
        return self.per_row * self.scales_shape[1]

    def spread(self, scales: Tensor, inputs: slice | None = None) -> Tensor:
        """[G, R] -> a tensor that broadcasts to [in, out]: each weight's scale, of all inputs or of those named."""
        if self.span > 1:
            return scales.repeat_interleave(self.span, dim=1)[:, : self.rows]
        if self.per_row == 1:
            return scales
        start, stop = (inputs.start, inputs.stop) if inputs else (0, self.columns)
        return scales[torch.arange(start, stop, device=scales.device) // self.size]

    def total(self, values: Tensor) -> Tensor:
        """[in, out] -> [G, R]: sums within the groups."""
        if self.per_row > 1:
            values = torch.nn.functional.pad(values, (0, 0, 0, self.per_row * self.size - self.columns))
            return values.view(self.per_row, self.size, self.rows).sum(dim=1)
        sums = values.sum(dim=0)
        shared = self.scales_shape[1]
        return torch.nn.functional.pad(sums, (0, shared * self.span - self.rows)).view(1, shared, self.span).sum(dim=2)

    def members(self, device: torch.device | str = "cpu") -> Tensor:
        """[G, R]: how many weights each group has (g, but for shorter last groups)."""
        even = self.rows % self.span == 0 if self.span > 1 else self.columns % self.size == 0
        if even:
            return torch.full(self.scales_shape, float(self.size), dtype=torch.float32, device=device)
        one = torch.ones(1, 1, dtype=torch.float32, device=device)
        return self.total(one.expand(self.columns, self.rows))

    def vectors(self, weight: Tensor) -> list[Tensor]:
        """`weight` [out, in] as matrices of equally long groups, in row order: the full groups, then the short ones."""
        if self.span > 1:
            full = self.rows // self.span * self.span
            parts = [weight[:full].reshape(-1, self.size), weight[full:].reshape(1, -1)]
        else:
            full = self.columns // self.size * self.size
            parts = [weight[:, :full].reshape(-1, self.size), weight[:, full:]]
        return [p for p in parts if p.numel()]

    def from_vectors(self, signs: list[Tensor], scales: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Undo `vectors`: signs [n, q, g] and scales [n, k] per part -> signs [out, q, in], scales [G, k, R]."""
        q, k = signs[0].shape[1], scales[0].shape[1]
        if self.span > 1:
            rows = [s.permute(0, 2, 1).reshape(-1, self.columns, q).permute(0, 2, 1) for s in signs]
            return torch.cat(rows), torch.cat(scales).T[None].contiguous()
        whole = [s.view(self.rows, -1, q, s.shape[2]).transpose(1, 2).reshape(self.rows, q, -1) for s in signs]
        by_row = [a.view(self.rows, -1, k) for a in scales]
        return torch.cat(whole, dim=2), torch.cat(by_row, dim=1).permute(1, 2, 0).contiguous()
