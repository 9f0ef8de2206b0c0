"""Alternating codes and scales on the intervals of sorted rows, one row after another, to the bits that torch gives.

Every sum has a stated order, here and in `alternating.py`: signed sums by butterflies, the error by halves.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from llvmlite import ir
from torch import Tensor

from alphatune.native import machine
from alphatune.native.emit import FLOAT, LONG, POINTER, Emitter, const, function

DOUBLE = ir.DoubleType()
Numbers = list[ir.Value]


class _Row:
    """Arithmetic on numbers in registers, and arrays of one row in memory."""

    def __init__(self, e: Emitter, bits: int, offset: bool) -> None:
        self.e, self.b, self.bits, self.offset = e, e.builder, bits, offset

    def at(self, base: ir.Value, index: ir.Value | int, kind: ir.Type) -> ir.Value:
        return self.b.gep(base, [const(index) if isinstance(index, int) else index], source_etype=kind)

    def load(self, base: ir.Value, index: ir.Value | int, kind: ir.Type) -> ir.Value:
        return self.b.load(self.at(base, index, kind), typ=kind)

    def line(self, base: ir.Value, count: int, kind: ir.Type) -> Numbers:
        return [self.load(base, i, kind) for i in range(count)]

    def keep(self, base: ir.Value, values: Numbers, kind: ir.Type) -> None:
        for i, value in enumerate(values):
            self.b.store(value, self.at(base, i, kind))

    def call(self, name: str, value: ir.Value) -> ir.Value:
        return self.b.call(self.e.intrinsic(name, DOUBLE, [DOUBLE]), [value])

    def signed_sums(self, values: Numbers) -> Numbers:
        """For every set of planes, the digits of the number: the sum of values times the signs of these planes."""
        step = len(values) // 2
        while step:
            made = list(values)
            for i in range(len(values)):
                if not i & step:
                    made[i] = self.b.fadd(values[i + step], values[i])
                    made[i + step] = self.b.fsub(values[i + step], values[i])
            values, step = made, step // 2
        return values

    def scales(self, mass: Numbers, moment: Numbers, tolerance: float) -> tuple[Numbers, ir.Value]:
        """Least squares as `bcq.least_squares` does them, the diagonal brought to 1; and whether they are singular."""
        b, digits = self.b, [1 << (self.bits - 1 - i) for i in range(self.bits)] + [0] * self.offset
        masses, moments = self.signed_sums(mass), self.signed_sums(moment)
        k, tiny = len(digits), ir.Constant(DOUBLE, 1e-300)
        total = b.select(b.fcmp_ordered("<", masses[0], tiny), tiny, masses[0])
        left = [[b.fdiv(masses[i ^ j], total) for j in digits] for i in digits]
        right = [b.fdiv(moments[i], total) for i in digits]
        singular = ir.Constant(ir.IntType(1), 0)
        for j in range(k):
            regular = b.fcmp_ordered(">", left[j][j], ir.Constant(DOUBLE, tolerance))
            singular = b.or_(singular, b.not_(regular))
            for r in range(j + 1, k):
                factor = b.fdiv(left[r][j], left[j][j])
                for c in range(j, k):
                    left[r][c] = b.fsub(left[r][c], b.fmul(factor, left[j][c]))
                right[r] = b.fsub(right[r], b.fmul(factor, right[j]))
        for j in reversed(range(k)):
            for c in range(j + 1, k):
                right[j] = b.fsub(right[j], b.fmul(left[j][c], right[c]))
            right[j] = b.fdiv(right[j], left[j][j])
        return right, singular

    def falling(self, values: Numbers) -> Numbers:
        """Sorted, the largest first."""
        values = list(values)
        for end in range(len(values) - 1, 0, -1):
            for i in range(end):
                less = self.b.fcmp_ordered("<", values[i], values[i + 1])
                values[i : i + 2] = [
                    self.b.select(less, values[i + 1], values[i]),
                    self.b.select(less, values[i], values[i + 1]),
                ]
        return values

    def rising(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """Levels sorted, the smallest first, and their numbers; among equals the smaller number comes first."""
        b, values, numbers = self.b, list(values), [const(i) for i in range(len(values))]
        for i, j in _network(len(values)):
            swap = b.or_(
                b.fcmp_ordered(">", values[i], values[j]),
                b.and_(b.fcmp_ordered("==", values[i], values[j]), b.icmp_signed(">", numbers[i], numbers[j])),
            )
            for those in (values, numbers):
                those[i], those[j] = b.select(swap, those[j], those[i]), b.select(swap, those[i], those[j])
        return values, numbers

    def positions(self, sorted_row: ir.Value, size: ir.Value, steps: ir.Value, bounds: Numbers) -> Numbers:
        """How many numbers of the row are at most each bound: all are searched for side by side."""
        b, e = self.b, self.e
        left = e.variable(LONG, size)
        bases = [e.variable(LONG, const(0)) for _ in bounds]
        with e.loop(const(0), steps):
            rest = e.get(left, LONG)
            half = b.lshr(rest, const(1))
            for place, bound in zip(bases, bounds, strict=True):
                base = e.get(place, LONG)
                probe = self.load(sorted_row, b.sub(b.add(base, half), const(1)), FLOAT)
                b.store(b.select(b.fcmp_ordered("<=", probe, bound), b.add(base, half), base), place)
            b.store(b.sub(rest, half), left)
        found = []
        for place, bound in zip(bases, bounds, strict=True):
            base = e.get(place, LONG)
            last = b.fcmp_ordered("<=", self.load(sorted_row, base, FLOAT), bound)
            found.append(b.select(last, b.add(base, const(1)), base))
        return found

    def total(self, values: Numbers) -> ir.Value:
        """The sum, by halves."""
        while len(values) > 1:
            half = len(values) // 2
            values = [self.b.fadd(x, y) for x, y in zip(values[:half], values[half:], strict=True)]
        return values[0]

    def turn(self, row: dict[str, ir.Value], steps: ir.Value, weighed: bool) -> tuple[ir.Value, ir.Value]:
        """One iteration; kept where the error falls. Returns whether it does, and whether the system is singular."""
        b, levels = self.b, 1 << self.bits
        mass, moment = row["mass"], row["moment"]
        by_number = [row["scratch"], self.at(row["scratch"], levels, DOUBLE)]
        for i, number in enumerate(self.line(row["order"], levels, LONG)):
            for source, target in zip((mass, moment), by_number, strict=True):
                b.store(self.load(source, i, DOUBLE), self.at(target, number, DOUBLE))
        masses, moments = (self.line(base, levels, DOUBLE) for base in by_number)
        solved, singular = self.scales(masses, moments, 1e-6 if weighed else 1e-9)
        alpha = self.falling([b.fptrunc(self.call("llvm.fabs.f64", x), FLOAT) for x in solved[: self.bits]])
        centre = b.fptrunc(solved[self.bits], FLOAT) if self.offset else self.load(row["centre"], 0, FLOAT)
        sums = [b.fneg(alpha[0]), alpha[0]]
        for scale in alpha[1:]:
            sums = [made for x in sums for made in (b.fsub(x, scale), b.fadd(x, scale))]
        sums, order = self.rising(sums)
        values = [b.fpext(b.fadd(x, centre), DOUBLE) for x in sums]
        half = ir.Constant(FLOAT, 0.5)
        middles = [b.fadd(b.fmul(b.fadd(high, low), half), centre) for low, high in pairwise(sums)]
        edges = [const(0), *self.positions(row["values"], row["size"], steps, middles), row["size"]]
        if weighed:
            held = [self.load(row["masses"], edge, DOUBLE) for edge in edges]
            masses = [b.fsub(high, low) for low, high in pairwise(held)]
        else:
            masses = [b.sitofp(b.sub(high, low), DOUBLE) for low, high in pairwise(edges)]
        prefix = [self.load(row["sums"], edge, DOUBLE) for edge in edges]
        moments = [b.fsub(high, low) for low, high in pairwise(prefix)]
        two = ir.Constant(DOUBLE, 2.0)
        terms = [
            b.fmul(value, b.fsub(b.fmul(value, m), b.fmul(two, d)))
            for value, m, d in zip(values, masses, moments, strict=True)
        ]
        error = b.fadd(row["energy"], self.total(terms))
        zero = ir.Constant(DOUBLE, 0.0)
        error = b.select(b.fcmp_ordered("<", error, zero), zero, error)
        better = b.and_(b.fcmp_ordered("<", error, self.load(row["error"], 0, DOUBLE)), b.not_(singular))
        with b.if_then(better):
            kept = {
                "alpha": (alpha, FLOAT), "centre": ([centre], FLOAT), "order": (order, LONG), "edges": (edges, LONG),
                "mass": (masses, DOUBLE), "moment": (moments, DOUBLE), "error": ([error], DOUBLE),
            }  # fmt: skip
            for name, (numbers, kind) in kept.items():
                self.keep(row[name], numbers, kind)
        return better, singular


def _network(size: int) -> list[tuple[int, int]]:
    """Batcher's merge exchange: the pairs to compare and exchange, for a power of two."""
    pairs, p = [], 1
    while p < size:
        k = p
        while k:
            for j in range(k % p, size - k, 2 * k):
                for i in range(min(k, size - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return pairs


# name, numbers of a row beside those that depend on its size (g) and the number of levels (L) and planes (q), kind
_ARRAYS = {
    "values": ("g", 0, FLOAT), "sums": ("g", 1, DOUBLE), "masses": ("g", 1, DOUBLE), "energies": ("", 1, DOUBLE),
    "alpha": ("q", 0, FLOAT), "centre": ("", 1, FLOAT), "order": ("L", 0, LONG), "edges": ("L", 1, LONG),
    "mass": ("L", 0, DOUBLE), "moment": ("L", 0, DOUBLE), "error": ("", 1, DOUBLE), "failed": ("", 1, LONG),
}  # fmt: skip


def module(bits: int, offset: bool, weighed: bool) -> ir.Module:
    """turns(arrays of `_ARRAYS`, scratch, rows, size, steps of a search, iterations)."""

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        bases = dict(zip((*_ARRAYS, "scratch"), arguments, strict=False))
        rows, size, steps, iterations = arguments[len(bases) :]
        b, work = e.builder, _Row(e, bits, offset)
        lengths = {"g": size, "L": const(1 << bits), "q": const(bits), "": const(0)}
        with e.loop(const(0), rows) as r:
            row = {"scratch": bases["scratch"], "size": size}
            for name, (length, more, kind) in _ARRAYS.items():
                each = b.add(lengths[length], const(more))
                row[name] = work.at(bases[name], b.mul(r, each), kind)
            row["energy"] = work.load(row["energies"], 0, DOUBLE)
            done = e.variable(LONG, const(0))
            head, turn, after = (b.append_basic_block(name) for name in ("turns", "turn", "settled"))
            b.branch(head)
            b.position_at_end(head)
            number = e.get(done, LONG)
            b.cbranch(b.icmp_signed("<", number, iterations), turn, after)
            b.position_at_end(turn)
            better, singular = work.turn(row, steps, weighed)
            b.store(b.zext(singular, LONG), row["failed"])
            b.store(b.select(better, b.add(number, const(1)), iterations), done)
            b.branch(head)
            b.position_at_end(after)

    return function("turns", [POINTER] * (len(_ARRAYS) + 1) + [LONG] * 4, 1, body)


def turns(
    values: Tensor, sums: Tensor, masses: Tensor | None, energies: Tensor, state: tuple[Tensor, ...], offset: bool,
    iterations: int,
) -> Tensor:  # fmt: skip
    """Iterate on the state, the parts of `alternating._State` in their order, in place.

    Args:
        values: float32 [n, g], rising.
        sums: float64 [n, g + 1], of weights times values, from the left.
        masses: float64 [n, g + 1], of the weights; None: all are 1.
        energies: float64 [n], of weights times squares.

    Returns:
        bool [n]: which rows met a singular system, which is not solved here; their state is of no use.
    """
    n, size = values.shape
    bits = state[0].shape[1]
    failed = torch.zeros(n, dtype=torch.int64, device="cpu")
    given = (values, sums, sums if masses is None else masses, energies, *state, failed)
    if not all(tensor.is_contiguous() for tensor in given):
        raise ValueError("turns: all must be contiguous")
    scratch = torch.empty(2 << bits, dtype=torch.float64, device="cpu")
    weighed = masses is not None
    name = f"turns-{bits}-{int(offset)}-{int(weighed)}"
    kernel = machine.compiled(name, lambda: module(bits, offset, weighed), len(given) + 5)
    steps = (size - 1).bit_length()
    kernel(*(tensor.data_ptr() for tensor in given), scratch.data_ptr(), n, size, steps, iterations)
    return failed.bool()
