"""Vectors of 16 floats for numba kernels: what compilers' vector intrinsics are to C.

numba's loop vectoriser gives up on the blending loop, and since llvmlite 0.45 it has no vector exp. Here a kernel states its
vectors: `f16` holds 16 float32, `m16` 16 booleans; arithmetic and comparisons work lane by lane, a float mixes with a vector
by being repeated. LLVM maps them to what the machine has (one AVX-512 register, two of AVX2, four of NEON).
Arrays are addressed by flat element offset, without bounds checks or negative indices: offsets are the kernel's responsibility.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

LANES = 16
_FLOAT, _INT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_VECTOR, _INTS, _BITS = (ir.VectorType(t, LANES) for t in (_FLOAT, _INT, _BIT))


class _Vector(types.Type):
    """The numba type of a vector."""


f16 = _Vector(name="f16")
m16 = _Vector(name="m16")


@register_default(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR if fe_type.name == "f16" else _BITS)


def _constant(value: float, kind=_FLOAT, lanes: int = LANES) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, lanes), [ir.Constant(kind, value)] * lanes)


def _shuffle(builder, a, b, picks: list[int]):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(picks)), [ir.Constant(_INT, p) for p in picks]))


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INT, 0))
    return _shuffle(builder, one, ir.Constant(_VECTOR, ir.Undefined), [0] * LANES)


def _as_vector(context, builder, value, kind):
    """`value` of numba type `kind`, repeated if it is one number."""
    if kind == f16:
        return value
    return _splat(builder, context.cast(builder, value, kind, types.float32))


def _pointer(context, builder, array_type, array, offset, lanes: int):
    data = context.make_array(array_type)(context, builder, array).data
    element = builder.gep(data, [offset])
    return builder.bitcast(element, ir.VectorType(element.type.pointee, lanes).as_pointer())


def _call(builder, name: str, result, *arguments):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)


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
        x, y = (_as_vector(context, builder, value, kind) for value, kind in zip(args, sig.args))
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
    return builder.fsub(_constant(-0.0), args[0])


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
        x, y = (_as_vector(context, builder, value, kind) for value, kind in zip(args[1:], sig.args[1:]))
        return builder.select(args[0], x, y)

    return f16(m16, yes, no), generate


def _extreme(sign: str, text: str):
    def typer(typing_context, a, b):
        def generate(context, builder, sig, args):
            x, y = (_as_vector(context, builder, value, kind) for value, kind in zip(args, sig.args))
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
        return _as_vector(context, builder, args[0], sig.args[0])

    return f16(value), generate


@intrinsic
def square_root(typing_context, a):
    def generate(context, builder, sig, args):
        return _call(builder, f"llvm.sqrt.v{LANES}f32", _VECTOR, args[0])

    return f16(f16), generate


@intrinsic
def floor(typing_context, a):
    def generate(context, builder, sig, args):
        return _call(builder, f"llvm.floor.v{LANES}f32", _VECTOR, args[0])

    return f16(f16), generate


@intrinsic
def combine_wide(typing_context, a, b, c, ka, kb, kc, k):
    """ka a + kb b + kc c + k, computed in double and rounded once: depths that sort as exact ones do."""

    def generate(context, builder, sig, args):
        wide = ir.VectorType(ir.DoubleType(), LANES)
        factors = []
        for value in args[3:]:
            one = builder.insert_element(ir.Constant(wide, ir.Undefined), value, ir.Constant(_INT, 0))
            factors.append(_shuffle(builder, one, ir.Constant(wide, ir.Undefined), [0] * LANES))
        total = factors[3]
        for value, factor in zip(args[:3], factors):
            total = builder.fadd(builder.fmul(builder.fpext(value, wide), factor), total)
        return builder.fptrunc(total, _VECTOR)

    return f16(f16, f16, f16, *[types.float64] * 4), generate


@intrinsic
def exp2(typing_context, a):
    """2^a for a in -126..127, relative error 3e-6: the integer part into the exponent bits, a polynomial for the rest."""

    def generate(context, builder, sig, args):
        magic = 12582912.0  # 1.5 * 2^23: adding it leaves the rounded integer in the low bits
        shifted = builder.fadd(args[0], _constant(magic))
        part = builder.fsub(args[0], builder.fsub(shifted, _constant(magic)))
        value = _constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            value = builder.fadd(builder.fmul(value, part, flags=("contract",)), _constant(coefficient), flags=("contract",))
        exponent = builder.shl(builder.bitcast(shifted, _INTS), _constant(23, _INT))
        return builder.bitcast(builder.add(builder.bitcast(value, _INTS), exponent), _VECTOR)

    return f16(f16), generate


# Minimax for 2^x on -0.5..0.5, highest power first; found by weighted least squares on Chebyshev nodes.
_EXP2 = [float(np.float32(c)) for c in (0.0095701017, 0.0559178603, 0.240247448, 0.693121815, 0.999999261)]


@intrinsic
def log2(typing_context, a):
    """log2(a) for normal positive a, absolute error 2e-7: exponent bits plus the series of 2 atanh((m - 1) / (m + 1)) / ln 2."""

    def generate(context, builder, sig, args):
        bits = builder.bitcast(args[0], _INTS)
        half = _constant(0x3F3504F3, _INT)  # sqrt(1/2): mantissas lie in sqrt(1/2)..sqrt(2)
        exponent = builder.ashr(builder.sub(bits, half), _constant(23, _INT))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, _constant(23, _INT))), _VECTOR)
        ratio = builder.fdiv(builder.fsub(mantissa, _constant(1.0)), builder.fadd(mantissa, _constant(1.0)))
        square = builder.fmul(ratio, ratio)
        series = _constant(2.8853900817779268 / 9)
        for odd in (7, 5, 3, 1):
            series = builder.fadd(
                builder.fmul(series, square, flags=("contract",)), _constant(2.8853900817779268 / odd), flags=("contract",)
            )
        return builder.fadd(builder.sitofp(exponent, _VECTOR), builder.fmul(series, ratio))

    return f16(f16), generate


def _lane_numbers(values: list[int], text: str):
    def typer(typing_context):
        def generate(context, builder, sig, args):
            return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(v)) for v in values])

        return f16(), generate

    typer.__doc__ = text
    return intrinsic(typer)


lane_columns = _lane_numbers([i % 4 for i in range(LANES)], "0 1 2 3 0 1 2 3 ...: the column of a lane in a block of 4 x 4.")
lane_rows = _lane_numbers([i // 4 for i in range(LANES)], "0 0 0 0 1 1 1 1 ...: the row of a lane in a block of 4 x 4.")


@intrinsic
def first_lanes(typing_context, count):
    """A mask of the first `count` lanes."""

    def generate(context, builder, sig, args):
        number = builder.trunc(context.cast(builder, args[0], sig.args[0], types.int64), _INT)
        one = builder.insert_element(ir.Constant(_INTS, ir.Undefined), number, ir.Constant(_INT, 0))
        limit = _shuffle(builder, one, ir.Constant(_INTS, ir.Undefined), [0] * LANES)
        return builder.icmp_signed("<", ir.Constant(_INTS, [ir.Constant(_INT, i) for i in range(LANES)]), limit)

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
        return builder.bitcast(builder.trunc(args[0], ir.IntType(LANES)), _BITS)

    return m16(types.int64), generate


@intrinsic
def lowest_bit(typing_context, word):
    """The place of the lowest set bit of a word that is not zero."""

    def generate(context, builder, sig, args):
        return _call(builder, "llvm.cttz.i64", ir.IntType(64), args[0], ir.Constant(_BIT, 1))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typing_context, word):
    def generate(context, builder, sig, args):
        return _call(builder, "llvm.ctpop.i64", ir.IntType(64), args[0])

    return types.int64(types.int64), generate


@intrinsic
def words_with_bit(typing_context, words, offset, bit):
    """Of 64 elements of a uint16 array: the word whose bit i says whether element i has `bit`."""

    def generate(context, builder, sig, args):
        short = ir.IntType(16)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], 64)
        values = builder.load(pointer, align=2)
        flag = builder.shl(ir.Constant(short, 1), builder.trunc(args[2], short))
        wide = ir.VectorType(short, 64)
        one = builder.insert_element(ir.Constant(wide, ir.Undefined), flag, ir.Constant(_INT, 0))
        flags = _shuffle(builder, one, ir.Constant(wide, ir.Undefined), [0] * 64)
        hit = builder.icmp_unsigned("!=", builder.and_(values, flags), _constant(0, short, 64))
        return builder.bitcast(hit, ir.IntType(64))

    return types.uint64(words, types.intp, types.int64), generate


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
        return builder.load(_pointer(context, builder, sig.args[0], args[0], args[1], LANES), align=4)

    return f16(array, types.intp), generate


@intrinsic
def store(typing_context, array, offset, value):
    def generate(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig.args[0], args[0], args[1], LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, f16), generate


@intrinsic
def prefetch(typing_context, array, offset):
    """Ask for the cache line of an element before it is needed."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.gep(data, [args[1]])
        read, soon, of_data = (ir.Constant(_INT, n) for n in (0, 3, 1))
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), place, read, soon, of_data)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def repeat(typing_context, array, offset):
    """One element of a float32 array in all lanes."""

    def generate(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return _splat(builder, builder.load(builder.gep(data, [args[1]])))

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


def _valid_elements(builder, count, columns: int):
    """The mask of the first `count * columns` of `16 * columns` elements."""
    lanes = LANES * columns
    kind = ir.VectorType(_INT, lanes)
    limit = builder.trunc(builder.mul(count, ir.Constant(count.type, columns)), _INT)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), limit, ir.Constant(_INT, 0))
    limits = _shuffle(builder, one, ir.Constant(kind, ir.Undefined), [0] * lanes)
    return builder.icmp_signed("<", ir.Constant(kind, [ir.Constant(_INT, i) for i in range(lanes)]), limits)


def _join(builder, vectors):
    """One vector of all lanes in turn; LLVM shuffles two of one length at a time."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors.append(ir.Constant(vectors[-1].type, ir.Undefined))
        lanes = vectors[0].type.count
        vectors = [_shuffle(builder, a, b, list(range(2 * lanes))) for a, b in zip(vectors[::2], vectors[1::2])]
    return vectors[0]


def _load_columns(columns: int):
    def typer(typing_context, array, offset, count):
        def generate(context, builder, sig, args):
            lanes = LANES * columns
            wide = ir.VectorType(_FLOAT, lanes)
            pointer = _pointer(context, builder, sig.args[0], args[0], args[1], lanes)
            mask = _valid_elements(builder, args[2], columns)
            name = f"llvm.masked.load.v{lanes}f32.p0"
            values = _call(builder, name, wide, pointer, ir.Constant(_INT, 4), mask, ir.Constant(wide, None))
            parts = [
                _shuffle(builder, values, ir.Constant(wide, ir.Undefined), list(range(c, lanes, columns))) for c in range(columns)
            ]
            return context.make_tuple(builder, sig.return_type, parts) if columns > 1 else parts[0]

        result = types.UniTuple(f16, columns) if columns > 1 else f16
        return result(array, types.intp, types.intp), generate

    typer.__doc__ = f"The {columns} columns of 16 rows of {columns} floats; rows from `count` on are not read and give 0."
    return intrinsic(typer)


def _store_columns(columns: int):
    parameters = ", ".join(f"v{c}" for c in range(columns))

    def lower(context, builder, sig, args):
        lanes = LANES * columns
        wide = _join(builder, list(args[3:]))
        picks = [c * LANES + row for row in range(LANES) for c in range(columns)]
        values = _shuffle(builder, wide, ir.Constant(wide.type, ir.Undefined), picks)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], lanes)
        mask = _valid_elements(builder, args[2], columns)
        _call(builder, f"llvm.masked.store.v{lanes}f32.p0", ir.VoidType(), values, pointer, ir.Constant(_INT, 4), mask)
        return context.get_dummy_value()

    def signature_of(array):
        return types.void(array, types.intp, types.intp, *([f16] * columns))

    if columns == 1:
        typer = lambda typing_context, array, offset, count, v0: (signature_of(array), lower)
    elif columns == 3:
        typer = lambda typing_context, array, offset, count, v0, v1, v2: (signature_of(array), lower)
    else:
        typer = lambda typing_context, array, offset, count, v0, v1, v2, v3: (signature_of(array), lower)
    typer.__name__, typer.__doc__ = f"store{columns}", f"Write 16 rows of {parameters}; rows from `count` on are not touched."
    return intrinsic(typer)


load1, load3, load4 = _load_columns(1), _load_columns(3), _load_columns(4)
store1, store3, store4 = _store_columns(1), _store_columns(3), _store_columns(4)


@intrinsic
def store_shorts4(typing_context, array, offset, v0, v1, v2, v3):
    """Write 16 rows of four whole numbers 0..32767 to an int16 array."""

    def generate(context, builder, sig, args):
        shorts = ir.VectorType(ir.IntType(16), LANES)
        wide = _join(builder, [builder.fptosi(a, shorts) for a in args[2:]])
        values = _shuffle(
            builder, wide, ir.Constant(wide.type, ir.Undefined), [c * LANES + r for r in range(LANES) for c in range(4)]
        )
        builder.store(values, _pointer(context, builder, sig.args[0], args[0], args[1], 4 * LANES), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, f16, f16, f16, f16), generate


def _transpose(builder, rows: list):
    """Lane i of vector j becomes lane j of vector i."""
    step = 1
    while step < LANES:
        low = [i if not i & step else i - step + LANES for i in range(LANES)]
        high = [i + step if not i & step else i + LANES for i in range(LANES)]
        for i in range(LANES):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i], rows[i + step] = _shuffle(builder, a, b, low), _shuffle(builder, a, b, high)
        step *= 2
    return rows


@intrinsic
def store_records(typing_context, array, offset, columns):
    """Write 16 rows of 16 floats from a tuple of up to 16 columns; the missing columns become 0. Always whole rows."""

    def generate(context, builder, sig, args):
        rows = list(cgutils.unpack_tuple(builder, args[2], len(sig.args[2])))
        rows += [ir.Constant(_VECTOR, None)] * (LANES - len(rows))
        for i, row in enumerate(_transpose(builder, rows)):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            builder.store(row, _pointer(context, builder, sig.args[0], args[0], place, LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, columns), generate


@intrinsic
def load_records(typing_context, array, offset):
    """The 16 columns of 16 rows of 16 floats."""

    def generate(context, builder, sig, args):
        rows = []
        for i in range(LANES):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            rows.append(builder.load(_pointer(context, builder, sig.args[0], args[0], place, LANES), align=4))
        return context.make_tuple(builder, sig.return_type, _transpose(builder, rows))

    return types.UniTuple(f16, LANES)(array, types.intp), generate


@intrinsic
def swap_blocks_and_rows(typing_context, v0, v1, v2, v3):
    """Four blocks of 4 x 4, side by side, into their four rows of 16, or four such rows into blocks."""

    def generate(context, builder, sig, args):
        parts = list(args)
        for step in (1, 2):
            for i in range(4):
                if not i & step:
                    a, b = parts[i], parts[i + step]
                    low = [4 * (q if not q & step else q - step + 4) + r for q in range(4) for r in range(4)]
                    high = [4 * (q + step if not q & step else q + 4) + r for q in range(4) for r in range(4)]
                    parts[i], parts[i + step] = _shuffle(builder, a, b, low), _shuffle(builder, a, b, high)
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(f16, 4)(f16, f16, f16, f16), generate


@intrinsic
def totals(typing_context, vectors):
    """One vector whose lane j is the sum over the lanes of vector j of the tuple; the lanes after the last are 0."""

    def generate(context, builder, sig, args):
        parts = list(cgutils.unpack_tuple(builder, args[0], len(sig.args[0])))
        zero = ir.Constant(_VECTOR, None)
        step = 1
        while step < LANES:
            merged = []
            for k in range(0, len(parts), 2):
                a, b = parts[k], parts[k + 1] if k + 1 < len(parts) else zero
                # Lanes whose `step` bit is 0 go on with a, the others with b; each takes in its partner across that bit.
                keep = [i if not i & step else i + LANES for i in range(LANES)]
                give = [i + step if not i & step else i - step + LANES for i in range(LANES)]
                merged.append(builder.fadd(_shuffle(builder, a, b, keep), _shuffle(builder, a, b, give)))
            parts = merged
            step *= 2
        return parts[0]

    return f16(vectors), generate
