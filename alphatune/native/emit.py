"""Writing LLVM code: loops, addresses and vectors of float32, one, eight or sixteen at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

INT, LONG, FLOAT, POINTER = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.PointerType()


def const(value: int) -> ir.Constant:
    """A 64-bit integer."""
    return ir.Constant(LONG, value)


class Emitter:
    """One function under construction: `lanes` floats or words are handled by every instruction."""

    def __init__(self, function: ir.Function, builder: ir.IRBuilder, lanes: int) -> None:
        self.function, self.builder, self.lanes = function, builder, lanes
        self.floats = ir.VectorType(FLOAT, lanes) if lanes > 1 else FLOAT
        self.words = ir.VectorType(INT, lanes) if lanes > 1 else INT

    def with_lanes(self, lanes: int) -> Emitter:
        """The same place in the same function, in another width."""
        return Emitter(self.function, self.builder, lanes)

    # --- control

    @contextmanager
    def loop(self, start: ir.Value, stop: ir.Value, step: int = 1) -> Iterator[ir.Value]:
        """`for i in range(start, stop, step)` around what is emitted inside; yields i."""
        b = self.builder
        before = b.block
        head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(LONG)
        i.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", i, stop), body, after)
        b.position_at_end(body)
        yield i
        i.add_incoming(b.add(i, const(step)), b.block)
        b.branch(head)
        b.position_at_end(after)

    def over(self, stop: ir.Value) -> Iterator[tuple[Emitter, ir.Value]]:
        """Two loops over 0 .. stop, to be run through in full: in steps of `lanes`, then one by one.

        Yields an emitter of the loop's width and the index.
        """
        whole = self.builder.and_(stop, const(-self.lanes))
        for width, start, end in ((self, const(0), whole), (self.with_lanes(1), whole, stop)):
            with width.loop(start, end, width.lanes) as i:
                yield width, i

    def variable(self, kind: ir.Type, initial: ir.Value) -> ir.Value:
        """A local variable; LLVM turns it into a register."""
        b = self.builder
        with b.goto_entry_block():
            place = b.alloca(kind)
        b.store(initial, place)
        return place

    def get(self, place: ir.Value, kind: ir.Type) -> ir.Value:
        """The value of a variable."""
        return self.builder.load(place, typ=kind)

    # --- memory

    def at(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """The address of float or word number `index`."""
        return self.builder.gep(pointer, [index], source_etype=INT)

    def load(self, pointer: ir.Value, kind: ir.Type) -> ir.Value:
        """A value from any address that is a multiple of four."""
        return self.builder.load(pointer, align=4, typ=kind)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """A value to any address that is a multiple of four."""
        self.builder.store(value, pointer, align=4)

    # --- values

    def least(self, one: ir.Value, other: ir.Value) -> ir.Value:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", one, other), one, other)

    def splat(self, value: ir.Value) -> ir.Value:
        """One value in every lane."""
        if self.lanes == 1:
            return value
        kind = ir.VectorType(value.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT, 0))
        mask = ir.Constant(ir.VectorType(INT, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)

    def number(self, value: float | list[float]) -> ir.Constant:
        """A float, or one for each lane."""
        values = value if isinstance(value, list) else [value] * self.lanes
        return ir.Constant(self.floats, values if self.lanes > 1 else values[0])

    def word(self, value: int) -> ir.Constant:
        """A 32-bit integer in every lane."""
        return ir.Constant(self.words, [value] * self.lanes if self.lanes > 1 else value)

    def flipped(self, values: ir.Value, signs: ir.Value) -> ir.Value:
        """`values`, negated where the highest bit of `signs` is not set."""
        b = self.builder
        minus = b.and_(b.not_(signs), self.word(-(2**31)))
        return b.bitcast(b.xor(b.bitcast(values, self.words), minus), self.floats)

    def chosen(self, signs: ir.Value, positive: ir.Value, negative: ir.Value) -> ir.Value:
        """`positive` where the highest bit of `signs` is set, else `negative`."""
        return self.builder.select(self.builder.icmp_signed("<", signs, self.word(0)), positive, negative)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once where the CPU can."""
        name = f"llvm.fmuladd.v{self.lanes}f32" if self.lanes > 1 else "llvm.fmuladd.f32"
        return self.builder.call(self.intrinsic(name, self.floats, [self.floats] * 3), [a, b, c])

    def intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        """A function that LLVM knows by name."""
        module = self.function.module
        if name in module.globals:
            return module.globals[name]
        return ir.Function(module, ir.FunctionType(result, arguments), name)


def function(
    name: str, arguments: list[ir.Type], lanes: int, body: Callable[[Emitter, list[ir.Value]], None]
) -> ir.Module:
    """A module with one function that returns nothing."""
    module = ir.Module(name)
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    builder = ir.IRBuilder(made.append_basic_block("entry"))
    body(Emitter(made, builder, lanes), list(made.args))
    builder.ret_void()
    return module
