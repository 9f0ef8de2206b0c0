"""x W^T for a middling number of rows: 256 inputs of 16 outputs are decoded into the first cache, then multiplied.

What a dense product does to read and rearrange its weights, this one does to decode them. It asks for nothing of the
CPU that LLVM cannot give on any, so it is the portable path too, and takes any group size.
"""

from __future__ import annotations

from llvmlite import ir

from alphatune.native.emit import FLOAT, LONG, POINTER, Emitter, const, function
from alphatune.packed.kernels.decode import LANES, Addresses, decode_word

WORDS = 8  # of 32 inputs each, decoded at once
SCRATCH = WORDS * 32 * LANES  # floats of working memory
ROWS = 5  # at a time: their sums fill the registers; with six LLVM 22 runs out of them


def module(planes: int, offset: bool) -> ir.Module:
    """tiles(qweight, x, alpha, offset, y, scratch, rows, inputs, outputs, inputs per group); x [rows, inputs]."""

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        qweight, x, alpha, offsets, y, tile, rows, inputs, outputs, size = arguments
        source, b = Addresses(planes, qweight, alpha, offsets if offset else None, inputs, outputs, size), e.builder
        for wide, i in e.over(b.mul(rows, outputs)):
            wide.store(wide.number(0.0), wide.at(y, i))
        words = b.sdiv(b.add(inputs, const(31)), const(32))
        with e.loop(const(0), words, WORDS) as start:
            stop = e.least(b.add(start, const(WORDS)), words)
            first = b.mul(start, const(32))
            count = b.sub(e.least(b.mul(stop, const(32)), inputs), first)
            for wide, o in e.over(outputs):
                with wide.loop(start, stop) as word:
                    place = wide.at(tile, b.mul(b.sub(word, start), const(32 * wide.lanes)))
                    decode_word(wide, source, word, o, place, const(wide.lanes))
                _multiply(wide, wide.at(x, first), tile, wide.at(y, o), rows, inputs, outputs, count)

    return function("tiles", [POINTER] * 6 + [LONG] * 4, LANES, body)


def _multiply(
    e: Emitter, x: ir.Value, tile: ir.Value, y: ir.Value,
    rows: ir.Value, inputs: ir.Value, outputs: ir.Value, count: ir.Value,
) -> None:  # fmt: skip
    """Add to y the products of all rows with one tile of `count` inputs: five rows at a time, the last ones evenly."""
    b = e.builder
    done = e.variable(LONG, const(0))
    head, choose, after = (b.append_basic_block(name) for name in ("rows", "choose", "multiplied"))
    b.branch(head)
    b.position_at_end(head)
    row = e.get(done, LONG)
    left = b.sub(rows, row)
    b.cbranch(b.icmp_signed("<", row, rows), choose, after)
    b.position_at_end(choose)
    half = b.sdiv(b.add(left, const(1)), const(2))
    now = b.select(b.icmp_signed("<=", left, const(2 * ROWS)), half, const(ROWS))
    now = b.select(b.icmp_signed("<=", left, const(ROWS)), left, now)
    cases = [b.append_basic_block(f"rows{n}") for n in range(1, ROWS + 1)]
    switch = b.switch(now, cases[-1])
    for n, case in enumerate(cases, start=1):
        switch.add_case(const(n), case)
        b.position_at_end(case)
        _multiply_rows(e, n, e.at(x, b.mul(row, inputs)), tile, e.at(y, b.mul(row, outputs)), inputs, outputs, count)
        b.store(b.add(row, const(n)), done)
        b.branch(head)
    b.position_at_end(after)


def _multiply_rows(
    e: Emitter, n: int, x: ir.Value, tile: ir.Value, y: ir.Value, inputs: ir.Value, outputs: ir.Value, count: ir.Value
) -> None:
    b = e.builder
    sums = [e.variable(e.floats, e.number(0.0)) for _ in range(n)]
    with e.loop(const(0), count) as k:
        weights = e.load(e.at(tile, b.mul(k, const(e.lanes))), e.floats)
        for row, total in enumerate(sums):
            value = e.splat(e.load(e.at(x, b.add(b.mul(inputs, const(row)), k)), FLOAT))
            b.store(e.fma(value, weights, e.get(total, e.floats)), total)
    for row, total in enumerate(sums):
        place = e.at(y, b.mul(outputs, const(row)))
        e.store(b.fadd(e.load(place, e.floats), e.get(total, e.floats)), place)
