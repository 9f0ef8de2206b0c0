"""Values times the codes of one plane, which the gradient of a scale sums up: signs are flipped by the bits."""

from __future__ import annotations

from llvmlite import ir

from alphatune.native.emit import INT, LONG, POINTER, Emitter, const, function
from alphatune.packed.kernels.decode import LANES


def module() -> ir.Module:
    """signs(plane, values, result, inputs, outputs, words from one row of the plane's words to the next)."""

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        plane, values, result, inputs, outputs, stride = arguments
        b = e.builder
        with e.loop(const(0), inputs) as k:  # row by row: values and result are read and written in one run
            words = e.at(plane, b.mul(b.sdiv(k, const(32)), stride))
            to_the_top = b.trunc(b.sub(const(31), b.and_(k, const(31))), INT)
            row = b.mul(k, outputs)
            for wide, o in e.over(outputs):
                bits = b.shl(wide.load(wide.at(words, o), wide.words), wide.splat(to_the_top))
                value = wide.load(wide.at(values, b.add(row, o)), wide.floats)
                wide.store(wide.flipped(value, bits), wide.at(result, b.add(row, o)))

    return function("signs", [POINTER] * 3 + [LONG] * 3, LANES, body)
