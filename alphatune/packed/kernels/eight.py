"""x W^T for a few rows where a weight is a signed byte times a scale of its output: what an 8-bit head computes."""

from __future__ import annotations

from llvmlite import ir

from alphatune.native.emit import FLOAT, INT, LONG, POINTER, Emitter, const, function

LANES = 16  # two registers of AVX2
AT_ONCE = 2  # outputs whose sums grow side by side: one multiplication need not wait for the last
BYTE = ir.IntType(8)


def module(rows: int) -> ir.Module:
    """eight(codes, x, scale, y, inputs, outputs); codes int8 [outputs, inputs], x [rows, inputs], y [rows, outputs]."""

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        codes, x, scale, y, inputs, outputs = arguments
        b = e.builder
        whole = b.and_(outputs, const(-AT_ONCE))
        for count, start, stop in ((AT_ONCE, const(0), whole), (1, whole, outputs)):
            with e.loop(start, stop, count) as o:
                sums = _sums(e, codes, x, inputs, [b.add(o, const(i)) for i in range(count)], rows)
                for row in range(rows):
                    for i in range(count):
                        output = b.add(o, const(i))
                        value = b.fmul(sums[row][i], e.load(e.at(scale, output), FLOAT))
                        e.store(value, e.at(y, b.add(b.mul(outputs, const(row)), output)))

    return function("eight", [POINTER] * 4 + [LONG] * 2, LANES, body)


def _sums(
    e: Emitter, codes: ir.Value, x: ir.Value, inputs: ir.Value, outputs: list[ir.Value], rows: int
) -> list[list[ir.Value]]:
    """x times the codes of some outputs, for every row."""
    b = e.builder
    lines = [b.gep(codes, [b.mul(o, inputs)], source_etype=BYTE) for o in outputs]
    widths = (e, e.with_lanes(1))
    totals = [[[w.variable(w.floats, w.number(0.0)) for w in widths] for _ in outputs] for _ in range(rows)]
    for which, (wide, k) in enumerate(e.over(inputs)):
        byte = ir.VectorType(BYTE, wide.lanes) if wide.lanes > 1 else BYTE
        values = [wide.load(wide.at(x, b.add(b.mul(inputs, const(row)), k)), wide.floats) for row in range(rows)]
        for i, line in enumerate(lines):
            code = b.load(b.gep(line, [k], source_etype=BYTE), align=1, typ=byte)
            weight = b.sitofp(b.sext(code, wide.words), wide.floats)
            for row, value in enumerate(values):
                place = totals[row][i][which]
                b.store(wide.fma(value, weight, wide.get(place, wide.floats)), place)
    return [[_added(e, *both) for both in row] for row in totals]


def _added(e: Emitter, wide: ir.Value, rest: ir.Value) -> ir.Value:
    """The lanes of one sum and a rest, added up in pairs."""
    b = e.builder
    whole = e.get(wide, e.floats)
    lanes = [b.extract_element(whole, ir.Constant(INT, i)) for i in range(e.lanes)]
    while len(lanes) > 1:
        lanes = [b.fadd(one, other) for one, other in zip(lanes[::2], lanes[1::2], strict=True)]
    return b.fadd(lanes[0], e.get(rest, FLOAT))
