"""Vectors of 16 floats for numba kernels: what compilers' vector intrinsics are to C.

numba's loop vectoriser gives up on the blending loop, and since llvmlite 0.45 it has no vector exp. Here a kernel states its
vectors: `f16` holds 16 float32, `m16` 16 booleans; arithmetic and comparisons work lane by lane, a float mixes with a vector
by being repeated. LLVM maps them to what the machine has (one AVX-512 register, two of AVX2, four of NEON).
This module knows values; `simd_memory.py` and `simd_rows.py` bring them from arrays and back.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from .simd_ir import BIT, BITS, FLOAT, INT, INTS, LANES, VECTOR, as_vector, call_llvm, constant, f16, m16, shuffle

# Arithmetic and comparisons. "contract" allows a multiply and an add to become one fused instruction, and nothing else.
_ARITHMETIC = {
    operator.add: lambda b, x, y: b.fadd(x, y, flags=("contract",)),
    operator.sub: lambda b, x, y: b.fsub(x, y, flags=("contract",)),
    operator.mul: lambda b, x, y: b.fmul(x, y, flags=("contract",)),
    operator.truediv: lambda b, x, y: b.fdiv(x, y, flags=("contract",)),
}
_COMPARISONS = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "=="}
_OPERANDS = [(f16, f16), (f16, types.float32), (types.float32, f16), (f16, types.float64), (types.float64, f16)]


def _define(function, result, lower):
    """Let numba's `function` take two vectors, or a vector and a number."""

    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = tuple(signature(result, *pair) for pair in _OPERANDS)

    def implementation(context, builder, sig, args):
        x, y = (as_vector(context, builder, value, kind) for value, kind in zip(args, sig.args))
        return lower(builder, x, y)

    for pair in _OPERANDS:
        lower_builtin(function, *pair)(implementation)


for _function, _lower in _ARITHMETIC.items():
    _define(_function, f16, _lower)
for _function, _plain in ((operator.iadd, operator.add), (operator.isub, operator.sub), (operator.imul, operator.mul)):
    _define(_function, f16, _ARITHMETIC[_plain])
for _function, _sign in _COMPARISONS.items():
    _define(_function, m16, lambda b, x, y, sign=_sign: b.fcmp_ordered(sign, x, y))


@infer_global(operator.neg)
class _Negate(ConcreteTemplate):
    cases = (signature(f16, f16),)


@lower_builtin(operator.neg, f16)
def _negate(context, builder, sig, args):
    return builder.fsub(constant(-0.0), args[0])


for _function, _name in ((operator.and_, "and_"), (operator.or_, "or_")):

    @infer_global(_function)
    class _Logic(ConcreteTemplate):
        cases = (signature(m16, m16, m16),)

    lower_builtin(_function, m16, m16)(lambda context, builder, sig, args, name=_name: getattr(builder, name)(*args))


@infer_global(operator.invert)
class _Invert(ConcreteTemplate):
    cases = (signature(m16, m16),)


@lower_builtin(operator.invert, m16)
def _invert(context, builder, sig, args):
    return builder.not_(args[0])


@intrinsic
def select(typing_context, mask, yes, no):
    """`yes` where `mask`, else `no`; each a vector or a number."""

    def generate(context, builder, sig, args):
        x, y = (as_vector(context, builder, value, kind) for value, kind in zip(args[1:], sig.args[1:]))
        return builder.select(args[0], x, y)

    return f16(m16, yes, no), generate


def _extreme(sign: str, text: str):
    def typer(typing_context, a, b):
        def generate(context, builder, sig, args):
            x, y = (as_vector(context, builder, value, kind) for value, kind in zip(args, sig.args))
            return builder.select(builder.fcmp_ordered(sign, x, y), x, y)

        return f16(a, b), generate

    typer.__doc__ = text
    return intrinsic(typer)


smaller = _extreme("<", "The smaller of each lane; the second where the first is NaN.")
larger = _extreme(">", "The larger of each lane; the second where the first is NaN.")


@intrinsic
def splat(typing_context, value):
    """One number in all lanes."""

    def generate(context, builder, sig, args):
        return as_vector(context, builder, args[0], sig.args[0])

    return f16(value), generate


@intrinsic
def square_root(typing_context, a):
    def generate(context, builder, sig, args):
        return call_llvm(builder, f"llvm.sqrt.v{LANES}f32", VECTOR, args[0])

    return f16(f16), generate


@intrinsic
def floor(typing_context, a):
    def generate(context, builder, sig, args):
        return call_llvm(builder, f"llvm.floor.v{LANES}f32", VECTOR, args[0])

    return f16(f16), generate


@intrinsic
def combine_wide(typing_context, a, b, c, ka, kb, kc, k):
    """ka a + kb b + kc c + k, computed in double and rounded once: depths that sort as exact ones do."""

    def generate(context, builder, sig, args):
        wide = ir.VectorType(ir.DoubleType(), LANES)
        factors = []
        for value in args[3:]:
            one = builder.insert_element(ir.Constant(wide, ir.Undefined), value, ir.Constant(INT, 0))
            factors.append(shuffle(builder, one, ir.Constant(wide, ir.Undefined), [0] * LANES))
        total = factors[3]
        for value, factor in zip(args[:3], factors):
            total = builder.fadd(builder.fmul(builder.fpext(value, wide), factor), total)
        return builder.fptrunc(total, VECTOR)

    return f16(f16, f16, f16, *[types.float64] * 4), generate


@intrinsic
def exp2(typing_context, a):
    """2^a for a in -126..127, relative error 3e-6: the integer part into the exponent bits, a polynomial for the rest."""

    def generate(context, builder, sig, args):
        magic = 12582912.0  # 1.5 * 2^23: adding it leaves the rounded integer in the low bits
        shifted = builder.fadd(args[0], constant(magic))
        part = builder.fsub(args[0], builder.fsub(shifted, constant(magic)))
        value = constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            value = builder.fadd(builder.fmul(value, part, flags=("contract",)), constant(coefficient), flags=("contract",))
        exponent = builder.shl(builder.bitcast(shifted, INTS), constant(23, INT))
        return builder.bitcast(builder.add(builder.bitcast(value, INTS), exponent), VECTOR)

    return f16(f16), generate


# Minimax for 2^x on -0.5..0.5, highest power first; found by weighted least squares on Chebyshev nodes.
_EXP2 = [float(np.float32(c)) for c in (0.0095701017, 0.0559178603, 0.240247448, 0.693121815, 0.999999261)]


@intrinsic
def log2(typing_context, a):
    """log2(a) for normal positive a, absolute error 2e-7: exponent bits plus the series of 2 atanh((m - 1) / (m + 1)) / ln 2."""

    def generate(context, builder, sig, args):
        bits = builder.bitcast(args[0], INTS)
        half = constant(0x3F3504F3, INT)  # sqrt(1/2): mantissas lie in sqrt(1/2)..sqrt(2)
        exponent = builder.ashr(builder.sub(bits, half), constant(23, INT))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, constant(23, INT))), VECTOR)
        ratio = builder.fdiv(builder.fsub(mantissa, constant(1.0)), builder.fadd(mantissa, constant(1.0)))
        square = builder.fmul(ratio, ratio)
        series = constant(2.8853900817779268 / 9)
        for odd in (7, 5, 3, 1):
            series = builder.fadd(
                builder.fmul(series, square, flags=("contract",)), constant(2.8853900817779268 / odd), flags=("contract",)
            )
        return builder.fadd(builder.sitofp(exponent, VECTOR), builder.fmul(series, ratio))

    return f16(f16), generate


def _lane_numbers(values: list[int], text: str):
    def typer(typing_context):
        def generate(context, builder, sig, args):
            return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(v)) for v in values])

        return f16(), generate

    typer.__doc__ = text
    return intrinsic(typer)


lane_columns = _lane_numbers([i % 4 for i in range(LANES)], "0 1 2 3 0 1 2 3 ...: the column of a lane in a block of 4 x 4.")
lane_rows = _lane_numbers([i // 4 for i in range(LANES)], "0 0 0 0 1 1 1 1 ...: the row of a lane in a block of 4 x 4.")


@intrinsic
def first_lanes(typing_context, count):
    """A mask of the first `count` lanes."""

    def generate(context, builder, sig, args):
        number = builder.trunc(context.cast(builder, args[0], sig.args[0], types.int64), INT)
        one = builder.insert_element(ir.Constant(INTS, ir.Undefined), number, ir.Constant(INT, 0))
        limit = shuffle(builder, one, ir.Constant(INTS, ir.Undefined), [0] * LANES)
        return builder.icmp_signed("<", ir.Constant(INTS, [ir.Constant(INT, i) for i in range(LANES)]), limit)

    return m16(count), generate


@intrinsic
def to_bits(typing_context, mask):
    """The mask as the low 16 bits of an integer, lane 0 lowest."""

    def generate(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), ir.IntType(64))

    return types.int64(m16), generate


@intrinsic
def from_bits(typing_context, bits):
    """The mask whose lane i is bit i."""

    def generate(context, builder, sig, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(LANES)), BITS)

    return m16(types.int64), generate


@intrinsic
def lowest_bit(typing_context, word):
    """The place of the lowest set bit of a word that is not zero."""

    def generate(context, builder, sig, args):
        return call_llvm(builder, "llvm.cttz.i64", ir.IntType(64), args[0], ir.Constant(BIT, 1))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typing_context, word):
    def generate(context, builder, sig, args):
        return call_llvm(builder, "llvm.ctpop.i64", ir.IntType(64), args[0])

    return types.int64(types.int64), generate
