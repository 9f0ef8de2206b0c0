"""From bits and scales to float32 weights: the part that rebuilding and multiplying share.

The sums are those of the definition, plane after plane, offset last, in float32; a weight comes out with the same bits
whichever path made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from alphatune.native.emit import INT, LONG, POINTER, Emitter, const, function

TREE = 3  # planes whose sums are made once per group and then chosen by the bits; further planes are added
LANES = 16  # outputs at a time: a cache line of words or of weights


@dataclass(frozen=True)
class Addresses:
    """Where the bits and scales of a layer lie: addresses, and sizes known when the code runs."""

    planes: int
    qweight: ir.Value  # int32 [ceil(inputs / 32), planes, outputs]
    alpha: ir.Value  # float32 [groups, planes, outputs]
    offset: ir.Value | None  # float32 [groups, outputs]
    inputs: ir.Value
    outputs: ir.Value
    size: ir.Value  # inputs per group


def decode_word(e: Emitter, source: Addresses, word: ir.Value, o: ir.Value, target: ir.Value, stride: ir.Value) -> None:
    """Write the weights of one word's inputs, for the outputs from `o` on; those of an input lie `stride` floats on."""
    b = e.builder
    first = b.mul(word, const(32))
    end = e.least(b.add(first, const(32)), source.inputs)
    place = e.variable(LONG, first)
    head, body, after = (b.append_basic_block(name) for name in ("runs", "run", "decoded"))
    b.branch(head)
    b.position_at_end(head)
    start = e.get(place, LONG)
    b.cbranch(b.icmp_signed("<", start, end), body, after)
    b.position_at_end(body)
    group = b.sdiv(start, source.size)
    stop = e.least(b.mul(b.add(group, const(1)), source.size), end)
    to = e.at(target, b.mul(b.sub(start, first), stride))
    _decode_run(e, source, word, group, o, b.sub(stop, first), b.sub(stop, start), to, stride)
    b.store(stop, place)
    b.branch(head)
    b.position_at_end(after)


def _decode_run(
    e: Emitter, source: Addresses, word: ir.Value, group: ir.Value, o: ir.Value,
    stop: ir.Value, count: ir.Value, target: ir.Value, stride: ir.Value,
) -> None:  # fmt: skip
    """The same for the `count` inputs of one group that end before input `stop` of the word."""
    b, planes = e.builder, source.planes

    def lines(base: ir.Value, row: ir.Value, kind: ir.Type) -> list[ir.Value]:
        first = b.mul(row, const(planes))
        return [
            e.load(e.at(base, b.add(b.mul(b.add(first, const(i)), source.outputs), o)), kind) for i in range(planes)
        ]

    shift = e.splat(b.trunc(b.sub(const(32), stop), INT))  # the last input's bit comes first, then those before it
    words = [b.shl(w, shift) for w in lines(source.qweight, word, e.words)]
    scales = lines(source.alpha, group, e.floats)
    tree = min(planes, TREE)
    words[1:tree] = [b.xor(words[0], w) for w in words[1:tree]]  # set where the sign is not that of the first plane
    sums = [scales[0]]  # for a first sign of +1; for -1 they are the negatives, rounded alike
    for scale in scales[1:tree]:
        sums = [plus_or_minus(s, scale) for s in sums for plus_or_minus in (b.fadd, b.fsub)]
    last = e.number(0.0)  # without an offset too: -0 becomes 0, as in a sum that starts from 0
    if source.offset is not None:
        last = e.load(e.at(source.offset, b.add(b.mul(group, source.outputs), o)), e.floats)
    moving = [e.variable(e.words, w) for w in words]
    with e.loop(const(0), count) as i:
        now = [e.get(place, e.words) for place in moving]
        level = sums
        for differs in reversed(now[1:tree]):
            level = [e.chosen(differs, minus, plus) for plus, minus in zip(level[::2], level[1::2], strict=True)]
        value = e.flipped(level[0], now[0])
        for signs, scale in zip(now[tree:], scales[tree:], strict=True):
            value = b.fadd(value, e.flipped(scale, signs))
        e.store(b.fadd(value, last), e.at(target, b.mul(b.sub(b.sub(count, const(1)), i), stride)))
        for place, w in zip(moving, now, strict=True):
            b.store(b.shl(w, e.word(1)), place)


def module(planes: int, offset: bool) -> ir.Module:
    """rebuild(qweight, alpha, offset, weight, inputs, outputs, inputs per group): the whole W^T [inputs, outputs]."""

    def body(e: Emitter, arguments: list[ir.Value]) -> None:
        qweight, alpha, offsets, weight, inputs, outputs, size = arguments
        source, b = Addresses(planes, qweight, alpha, offsets if offset else None, inputs, outputs, size), e.builder
        with e.loop(const(0), b.sdiv(b.add(inputs, const(31)), const(32))) as word:
            target = e.at(weight, b.mul(b.mul(word, const(32)), outputs))
            for wide, o in e.over(outputs):
                decode_word(wide, source, word, o, wide.at(target, o), outputs)

    return function("rebuild", [POINTER] * 4 + [LONG] * 3, LANES, body)
