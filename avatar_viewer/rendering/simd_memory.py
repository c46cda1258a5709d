"""Between arrays and vectors, one place at a time.

Arrays are addressed by flat element offset, without bounds checks or negative indices: offsets are the kernel's responsibility.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd_ir import INT, LANES, call_llvm, constant, f16, m16, pointer_to, shuffle, splat_value


def _repeat_short(builder, value, lanes: int):
    wide = ir.VectorType(ir.IntType(16), lanes)
    one = builder.insert_element(ir.Constant(wide, ir.Undefined), value, ir.Constant(INT, 0))
    return shuffle(builder, one, ir.Constant(wide, ir.Undefined), [0] * lanes)


@intrinsic
def words_with_bit(typing_context, words, offset, bit):
    """Of 64 elements of a uint16 array: the word whose bit i says whether element i has `bit`."""

    def generate(context, builder, sig, args):
        short = ir.IntType(16)
        pointer = pointer_to(context, builder, sig.args[0], args[0], args[1], 64)
        values = builder.load(pointer, align=2)
        flag = builder.shl(ir.Constant(short, 1), builder.trunc(args[2], short))
        hit = builder.icmp_unsigned("!=", builder.and_(values, _repeat_short(builder, flag, 64)), constant(0, short, 64))
        return builder.bitcast(hit, ir.IntType(64))

    return types.uint64(words, types.intp, types.int64), generate


@intrinsic
def any_of_bits(typing_context, words, offset, bits):
    """Which of 16 elements of a uint16 array have any of `bits` set."""

    def generate(context, builder, sig, args):
        short = ir.IntType(16)
        values = builder.load(pointer_to(context, builder, sig.args[0], args[0], args[1], LANES), align=2)
        wanted = _repeat_short(builder, builder.trunc(args[2], short), LANES)
        return builder.icmp_unsigned("!=", builder.and_(values, wanted), constant(0, short))

    return m16(words, types.intp, types.int64), generate


@intrinsic
def fetch_add(typing_context, counter, amount):
    """Add to element 0 of an int64 array, atomically; its value before. Hands out work among threads."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, args[1], "monotonic")

    return types.int64(counter, types.int64), generate


@intrinsic
def load(typing_context, array, offset):
    """16 consecutive elements of a float32 array."""

    def generate(context, builder, sig, args):
        return builder.load(pointer_to(context, builder, sig.args[0], args[0], args[1], LANES), align=4)

    return f16(array, types.intp), generate


@intrinsic
def store(typing_context, array, offset, value):
    def generate(context, builder, sig, args):
        builder.store(args[2], pointer_to(context, builder, sig.args[0], args[0], args[1], LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, f16), generate


@intrinsic
def prefetch(typing_context, array, offset):
    """Ask for the cache line of an element before it is needed."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.gep(data, [args[1]])
        read, soon, of_data = (ir.Constant(INT, n) for n in (0, 3, 1))
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), place, read, soon, of_data)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def repeat(typing_context, array, offset):
    """One element of a float32 array in all lanes."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return splat_value(builder, builder.load(builder.gep(data, [args[1]])))

    return f16(array, types.intp), generate


@intrinsic
def peek(typing_context, array, offset):
    """One element of an array, by flat offset."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic
def poke(typing_context, array, offset, value):
    """Set one element of an array, by flat offset."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        builder.store(args[2], builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate
