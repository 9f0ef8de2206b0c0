"""x W^T for a few rows straight from the bits: three or four inputs at a time, by a table of their signed sums.

The eight sums of three inputs fill a register of AVX2, the sixteen of four one of AVX-512; the bits of every output
choose among them by one permutation. What a word's choices add up to is multiplied by alpha at the end of a group: the
cost is linear in the planes. A word that two groups share is read for both, each time with the other's inputs as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from alphatune.native.emit import FLOAT, INT, LONG, POINTER, Emitter, const, function

AT_ONCE = 16  # words whose sums are added up before they are multiplied by alpha: rounding errors stay small


@dataclass(frozen=True)
class Registers:
    """Those of a CPU: how many floats one holds, and what permutes them."""

    inputs: int  # whose signed sums fill one
    threads: int  # of torch's, from more of which on its product is faster than one thread's lookups of a gradient
    permutation: str

    @property
    def lanes(self) -> int:
        """Floats of one register."""
        return 1 << self.inputs

    @property
    def parts(self) -> list[range]:
        """A word's 32 inputs as they are looked up: ten triples and a pair, or eight times four."""
        return [range(first, min(first + self.inputs, 32)) for first in range(0, 32, self.inputs)]

    @property
    def table(self) -> int:
        """Floats of one word's tables."""
        return self.lanes * len(self.parts)


AVX2 = Registers(3, 1, "llvm.x86.avx2.permps")
AVX512 = Registers(4, 2, "llvm.x86.avx512.permvar.sf.512")


def scratch(registers: Registers, rows: int, planes: int, outputs: int) -> int:
    """Floats of working memory: the tables, and a sum for each plane and output."""
    return rows * (AT_ONCE * registers.table + planes * outputs)


def module(registers: Registers, rows: int, planes: int, offset: bool) -> ir.Module:
    """lookup(qweight, x, alpha, offset, y, scratch, inputs, outputs, inputs per group); x [rows, inputs]."""
    kinds = [POINTER] * 6 + [LONG] * 3
    return function("lookup", kinds, registers.lanes, lambda e, given: _body(e, given, registers, rows, planes, offset))


def _body(e: Emitter, given: list[ir.Value], registers: Registers, rows: int, planes: int, offset: bool) -> None:
    qweight, x, alpha, offsets, y, tables, inputs, outputs, size = given
    b = e.builder
    run = b.mul(outputs, const(planes))  # the words of all planes and outputs lie in one run
    sums = e.at(tables, const(rows * AT_ONCE * registers.table))
    for place, count in ((y, b.mul(outputs, const(rows))), (sums, b.mul(run, const(rows)))):
        for wide, i in e.over(count):
            wide.store(wide.number(0.0), wide.at(place, i))
    groups = b.sdiv(b.sub(b.add(inputs, size), const(1)), size)
    with e.loop(const(0), groups) as group:
        low = b.mul(group, size)
        high = e.least(b.add(low, size), inputs)
        end = b.sdiv(b.add(high, const(31)), const(32))
        with e.loop(b.sdiv(low, const(32)), end, AT_ONCE) as start:
            stop = e.least(b.add(start, const(AT_ONCE)), end)
            xs = [e.at(x, b.mul(inputs, const(row))) for row in range(rows)]
            tables_of(e, registers, xs, tables, low, high, start, stop)
            with e.loop(start, stop) as word:
                table = e.at(tables, b.mul(b.sub(word, start), const(rows * registers.table)))
                bits = e.at(qweight, b.mul(word, run))
                for wide, j in e.over(run):
                    _add_up(wide, registers, bits, sums, table, run, rows, j)
            totals = [_total(e, row, low, high, start, stop) if offset else None for row in xs]
            scales = e.at(alpha, b.mul(group, run))
            shifts = e.at(offsets, b.mul(group, outputs))
            for wide, o in e.over(outputs):
                for row, total in enumerate(totals):
                    ours = wide.at(sums, b.mul(run, const(row)))
                    _multiply(wide, planes, scales, ours, wide.at(y, b.mul(outputs, const(row))), outputs, o)
                    if total is not None:
                        _shift(wide, shifts, total, wide.at(y, b.mul(outputs, const(row))), o)


def _multiply(
    e: Emitter, planes: int, scales: ir.Value, sums: ir.Value, y: ir.Value, outputs: ir.Value, o: ir.Value
) -> None:
    """Add to y the sums of all planes times their scales; the sums become 0."""
    b = e.builder
    value = e.load(e.at(y, o), e.floats)
    for plane in range(planes):
        at = b.add(b.mul(outputs, const(plane)), o)
        value = e.fma(e.load(e.at(scales, at), e.floats), e.load(e.at(sums, at), e.floats), value)
        e.store(e.number(0.0), e.at(sums, at))
    e.store(value, e.at(y, o))


def _shift(e: Emitter, shifts: ir.Value, total: ir.Value, y: ir.Value, o: ir.Value) -> None:
    """Add to y the offset times the sum of the inputs."""
    value = e.fma(e.load(e.at(shifts, o), e.floats), e.splat(total), e.load(e.at(y, o), e.floats))
    e.store(value, e.at(y, o))


def tables_of(
    e: Emitter, registers: Registers, xs: list[ir.Value], tables: ir.Value,
    low: ir.Value, high: ir.Value, start: ir.Value, stop: ir.Value,
) -> None:  # fmt: skip
    """Signed sums of some words' inputs, for all rows: [word, row, part, lanes]; inputs `low` to `high` count."""
    b = e.builder
    with e.loop(start, stop) as word:
        inputs = [b.add(b.mul(word, const(32)), const(k)) for k in range(32)]
        inside = [b.and_(b.icmp_signed("<=", low, k), b.icmp_signed("<", k, high)) for k in inputs]
        safe = [b.select(known, k, low) for known, k in zip(inside, inputs, strict=True)]
        for row, x in enumerate(xs):
            index = b.add(b.mul(b.sub(word, start), const(len(xs))), const(row))
            there = e.at(tables, b.mul(index, const(registers.table)))
            for number, part in enumerate(registers.parts):
                total = e.number(0.0)
                for place, k in enumerate(part):
                    value = b.select(inside[k], e.load(e.at(x, safe[k]), FLOAT), ir.Constant(FLOAT, 0.0))
                    minus = ir.Constant(e.words, [0 if code >> place & 1 else -(2**31) for code in range(e.lanes)])
                    signed = b.bitcast(b.xor(b.bitcast(e.splat(value), e.words), minus), e.floats)
                    total = b.fadd(total, signed)
                e.store(total, e.at(there, const(registers.lanes * number)))


def _add_up(
    e: Emitter, registers: Registers, bits: ir.Value, sums: ir.Value, table: ir.Value,
    run: ir.Value, rows: int, j: ir.Value,
) -> None:  # fmt: skip
    """Add what one word's bits choose to the sums of the outputs from j on."""
    b = e.builder
    word = e.load(e.at(bits, j), e.words)
    places = [e.at(sums, b.add(b.mul(run, const(row)), j)) for row in range(rows)]
    totals = [e.load(place, e.floats) for place in places]
    for number, part in enumerate(registers.parts):
        code = b.lshr(word, e.word(part.start))
        for row in range(rows):
            choices = e.at(table, const(row * registers.table + registers.lanes * number))
            totals[row] = b.fadd(totals[row], look_up(e, registers, choices, code))
    for place, total in zip(places, totals, strict=True):
        e.store(total, place)


def look_up(e: Emitter, registers: Registers, table: ir.Value, code: ir.Value) -> ir.Value:
    """The sums that the lowest bits of `code` choose."""
    b = e.builder
    if e.lanes == 1:
        return e.load(e.at(table, b.zext(b.and_(code, e.word(registers.lanes - 1)), LONG)), FLOAT)
    permute = e.intrinsic(registers.permutation, e.floats, [e.floats, e.words])
    return b.call(permute, [e.load(table, e.floats), code])


def _total(e: Emitter, x: ir.Value, low: ir.Value, high: ir.Value, start: ir.Value, stop: ir.Value) -> ir.Value:
    """The sum of one row's inputs in the words `start` to `stop`, as far as they are in the group."""
    b = e.builder
    first = b.mul(start, const(32))
    first = b.select(b.icmp_signed("<", first, low), low, first)
    count = b.sub(e.least(b.mul(stop, const(32)), high), first)
    totals = [(e, e.variable(e.floats, e.number(0.0))), (e.with_lanes(1), e.variable(FLOAT, ir.Constant(FLOAT, 0.0)))]
    for (wide, k), (_, total) in zip(e.over(count), totals, strict=True):
        value = wide.load(wide.at(x, b.add(first, k)), wide.floats)
        b.store(b.fadd(wide.get(total, wide.floats), value), total)
    whole = e.get(totals[0][1], e.floats)
    lanes = [b.extract_element(whole, ir.Constant(INT, i)) for i in range(e.lanes)]
    while len(lanes) > 1:
        lanes = [b.fadd(one, other) for one, other in zip(lanes[::2], lanes[1::2], strict=True)]
    return b.fadd(lanes[0], e.get(totals[1][1], FLOAT))
