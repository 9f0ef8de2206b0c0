"""The gradient of one plane's scales from inputs and output gradients, without that of the weight.

For a scale of output o and a group of inputs it is the sum over rows of dy[row, o] times what the plane's signs make
of the row's inputs; that sum of inputs is looked up as `lookup.py` does it. A product of a weight's size would take one
multiplication for each weight and row, this takes a permutation and an addition for every three or four of them.
"""

from __future__ import annotations

from llvmlite import ir

from alphatune.native.emit import LONG, POINTER, Emitter, const, function
from alphatune.packed.kernels.lookup import Registers, look_up, tables_of

ROWS = 8  # at a time: their sums fill registers
WORDS = 4  # whose tables lie in the first cache, for so many rows


def scratch(registers: Registers) -> int:
    """Floats of working memory."""
    return ROWS * WORDS * registers.table


def module(registers: Registers) -> ir.Module:
    """gradient(plane, x, dy, result, scratch, rows, inputs, outputs, inputs per group, words from one row of the
    plane's words to the next); x [rows, inputs], dy [rows, outputs], result [groups, outputs]."""

    def body(e: Emitter, given: list[ir.Value]) -> None:
        plane, x, dy, result, tables, rows, inputs, outputs, size, stride = given
        b = e.builder
        groups = b.sdiv(b.sub(b.add(inputs, size), const(1)), size)
        for wide, i in e.over(b.mul(groups, outputs)):
            wide.store(wide.number(0.0), wide.at(result, i))
        whole = b.and_(rows, const(-ROWS))
        for count, first, last in ((ROWS, const(0), whole), (1, whole, rows)):
            with e.loop(first, last, count) as row:
                xs = [e.at(x, b.mul(inputs, b.add(row, const(r)))) for r in range(count)]
                dys = [e.at(dy, b.mul(outputs, b.add(row, const(r)))) for r in range(count)]
                with e.loop(const(0), groups) as group:
                    low = b.mul(group, size)
                    high = e.least(b.add(low, size), inputs)
                    end = b.sdiv(b.add(high, const(31)), const(32))
                    ours = e.at(result, b.mul(group, outputs))
                    with e.loop(b.sdiv(low, const(32)), end, WORDS) as start:
                        stop = e.least(b.add(start, const(WORDS)), end)
                        tables_of(e, registers, xs, tables, low, high, start, stop)
                        for wide, o in e.over(outputs):
                            sums = _sums(wide, registers, plane, stride, tables, count, start, stop, o)
                            value = wide.number(0.0)  # added to the rest at once: rounding errors stay small
                            for one, total in zip(dys, sums, strict=True):
                                value = wide.fma(wide.load(wide.at(one, o), wide.floats), total, value)
                            before = wide.load(wide.at(ours, o), wide.floats)
                            wide.store(b.fadd(before, value), wide.at(ours, o))

    return function("gradient", [POINTER] * 5 + [LONG] * 5, registers.lanes, body)


def _sums(
    e: Emitter, registers: Registers, plane: ir.Value, stride: ir.Value, tables: ir.Value,
    rows: int, start: ir.Value, stop: ir.Value, o: ir.Value,
) -> list[ir.Value]:  # fmt: skip
    """For every row, its inputs in some words times the signs of the outputs from `o` on, added up."""
    b = e.builder
    totals = [e.variable(e.floats, e.number(0.0)) for _ in range(rows)]
    with e.loop(start, stop) as word:
        bits = e.load(e.at(plane, b.add(b.mul(word, stride), o)), e.words)
        table = e.at(tables, b.mul(b.sub(word, start), const(rows * registers.table)))
        for number, part in enumerate(registers.parts):
            code = b.lshr(bits, e.word(part.start))
            for row, total in enumerate(totals):
                choices = e.at(table, const(row * registers.table + registers.lanes * number))
                b.store(b.fadd(e.get(total, e.floats), look_up(e, registers, choices, code)), total)
    return [e.get(total, e.floats) for total in totals]
