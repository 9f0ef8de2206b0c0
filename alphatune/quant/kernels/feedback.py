"""GPTQ's error feedback within a block of columns: each takes the errors of those before it, then its nearest level."""

from __future__ import annotations

import torch
from llvmlite import ir
from torch import Tensor

from alphatune.native import machine
from alphatune.native.emit import FLOAT, LONG, POINTER, Emitter, const, function

LANES = 32  # rows at a time
BYTE = ir.IntType(8)


def module(levels: int) -> ir.Module:
    """feedback(work, corner, inverse, groups, middles, values, numbers, errors, codes, near, columns, rows).

    `near` is room for the errors of the rows at hand, [columns, LANES].
    """

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        work, corner, inverse, groups, middles, values, numbers, errors, codes, near, columns, rows = arguments
        b = e.builder
        for wide, row in e.over(rows):
            with wide.loop(const(0), columns) as j:
                here = b.add(b.mul(j, rows), row)
                moved = wide.variable(wide.floats, wide.load(wide.at(work, here), wide.floats))
                with wide.loop(const(0), j) as i:
                    weight = e.load(e.at(corner, b.add(b.mul(i, columns), j)), FLOAT)
                    error = wide.load(wide.at(near, b.mul(i, const(LANES))), wide.floats)
                    # a product and a difference, each rounded: what torch does
                    b.store(b.fsub(wide.get(moved, wide.floats), b.fmul(wide.splat(weight), error)), moved)
                now = wide.get(moved, wide.floats)
                group = b.load(b.gep(groups, [j], source_etype=LONG), typ=LONG)

                def line(base: ir.Value, count: int, kind: ir.Type, level: int) -> ir.Value:
                    first = b.add(b.mul(group, const(count)), const(level))  # noqa: B023
                    return wide.load(wide.at(base, b.add(b.mul(first, rows), row)), kind)  # noqa: B023

                value, number = line(values, levels, wide.floats, 0), line(numbers, levels, wide.words, 0)
                for level in range(1, levels):
                    above = b.fcmp_ordered(">", now, line(middles, levels - 1, wide.floats, level - 1))
                    value = b.select(above, line(values, levels, wide.floats, level), value)
                    number = b.select(above, line(numbers, levels, wide.words, level), number)
                scale = wide.splat(e.load(e.at(inverse, j), FLOAT))
                error = b.fmul(b.fsub(now, value), scale)
                wide.store(error, wide.at(near, b.mul(j, const(LANES))))
                wide.store(error, wide.at(errors, here))
                small = ir.VectorType(BYTE, wide.lanes) if wide.lanes > 1 else BYTE
                b.store(b.trunc(number, small), b.gep(codes, [here], source_etype=BYTE), align=1)

    return function("feedback", [POINTER] * 10 + [LONG] * 2, LANES, body)


def feedback(
    work: Tensor, corner: Tensor, inverse: Tensor, groups: Tensor,
    middles: Tensor, values: Tensor, numbers: Tensor, errors: Tensor, codes: Tensor,
) -> None:  # fmt: skip
    """Write the errors and codes of a block.

    Args:
        work: float32 [b, n], a block of b columns as it is before any feedback from within.
        corner: float32 [b, b]: what column i's error takes from column j > i.
        inverse: float32 [b], which differences are multiplied by to give errors.
        groups: int64 [b], each column's.
        middles: float32 [G, L - 1, n]: above number l a weight takes level l + 1.
        values: float32 [G, L, n].
        numbers: int32 [G, L, n]: the levels' codes.
        errors: float32 [b, n], written.
        codes: uint8 [b, n], written.
    """
    levels, (columns, rows) = values.shape[1], work.shape
    near = torch.empty(columns, LANES, dtype=torch.float32, device="cpu")
    given = (work, corner.contiguous(), inverse, groups, middles, values, numbers, errors, codes, near)
    if not all(tensor.is_contiguous() for tensor in given):
        raise ValueError("feedback: all must be contiguous")
    kernel = machine.compiled(f"feedback-{levels}", lambda: module(levels), 12)
    kernel(*(tensor.data_ptr() for tensor in given), columns, rows)
