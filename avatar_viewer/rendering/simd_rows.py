"""Sixteen rows of an array as vectors, one a column, and other rearrangements of lanes.

Like `simd_memory.py` it takes flat offsets and checks nothing; only rows from `count` on are left alone where one is asked for.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd_ir import FLOAT, INT, INTS, LANES, VECTOR, call_llvm, f16, pointer_to, shuffle


def _valid_elements(builder, count, columns: int):
    """The mask of the first `count * columns` of `16 * columns` elements."""
    lanes = LANES * columns
    kind = ir.VectorType(INT, lanes)
    limit = builder.trunc(builder.mul(count, ir.Constant(count.type, columns)), INT)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), limit, ir.Constant(INT, 0))
    limits = shuffle(builder, one, ir.Constant(kind, ir.Undefined), [0] * lanes)
    return builder.icmp_signed("<", ir.Constant(kind, [ir.Constant(INT, i) for i in range(lanes)]), limits)


def _join(builder, vectors):
    """One vector of all lanes in turn; LLVM shuffles two of one length at a time."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors.append(ir.Constant(vectors[-1].type, ir.Undefined))
        lanes = vectors[0].type.count
        vectors = [shuffle(builder, a, b, list(range(2 * lanes))) for a, b in zip(vectors[::2], vectors[1::2])]
    return vectors[0]


def _load_columns(columns: int):
    def typer(typing_context, array, offset, count):
        def generate(context, builder, sig, args):
            lanes = LANES * columns
            wide = ir.VectorType(FLOAT, lanes)
            pointer = pointer_to(context, builder, sig.args[0], args[0], args[1], lanes)
            mask = _valid_elements(builder, args[2], columns)
            name = f"llvm.masked.load.v{lanes}f32.p0"
            values = call_llvm(builder, name, wide, pointer, ir.Constant(INT, 4), mask, ir.Constant(wide, None))
            parts = [
                shuffle(builder, values, ir.Constant(wide, ir.Undefined), list(range(c, lanes, columns))) for c in range(columns)
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
        values = shuffle(builder, wide, ir.Constant(wide.type, ir.Undefined), picks)
        pointer = pointer_to(context, builder, sig.args[0], args[0], args[1], lanes)
        mask = _valid_elements(builder, args[2], columns)
        call_llvm(builder, f"llvm.masked.store.v{lanes}f32.p0", ir.VoidType(), values, pointer, ir.Constant(INT, 4), mask)
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


def _rows_of_shorts(builder, columns):
    shorts = ir.VectorType(ir.IntType(16), LANES)
    wide = _join(builder, [builder.fptosi(column, shorts) for column in columns])
    return shuffle(builder, wide, ir.Constant(wide.type, ir.Undefined), [c * LANES + r for r in range(LANES) for c in range(4)])


@intrinsic
def store_shorts4(typing_context, array, offset, v0, v1, v2, v3):
    """Write 16 rows of four whole numbers 0..32767 to an int16 array."""

    def generate(context, builder, sig, args):
        values = _rows_of_shorts(builder, args[2:])
        builder.store(values, pointer_to(context, builder, sig.args[0], args[0], args[1], 4 * LANES), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, f16, f16, f16, f16), generate


@intrinsic
def find_new_shorts4(typing_context, array, offset, v0, v1, v2, v3):
    """The rows, as bits, that `store_shorts4` would change."""

    def generate(context, builder, sig, args):
        values = _rows_of_shorts(builder, args[2:])
        found = builder.load(pointer_to(context, builder, sig.args[0], args[0], args[1], 4 * LANES), align=2)
        rows = ir.VectorType(ir.IntType(64), LANES)
        differ = builder.icmp_unsigned("!=", builder.bitcast(values, rows), builder.bitcast(found, rows))
        return builder.zext(builder.bitcast(differ, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(array, types.intp, f16, f16, f16, f16), generate


def _transpose(builder, rows: list):
    """Lane i of vector j becomes lane j of vector i."""
    step = 1
    while step < LANES:
        low = [i if not i & step else i - step + LANES for i in range(LANES)]
        high = [i + step if not i & step else i + LANES for i in range(LANES)]
        for i in range(LANES):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i], rows[i + step] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        step *= 2
    return rows


def _rows_of_records(builder, sig_columns, columns) -> list:
    rows = list(cgutils.unpack_tuple(builder, columns, len(sig_columns)))
    return _transpose(builder, rows + [ir.Constant(VECTOR, None)] * (LANES - len(rows)))


@intrinsic
def store_records(typing_context, array, offset, columns):
    """Write 16 rows of 16 floats from a tuple of up to 16 columns; the missing columns become 0. Always whole rows."""

    def generate(context, builder, sig, args):
        for i, row in enumerate(_rows_of_records(builder, sig.args[2], args[2])):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            builder.store(row, pointer_to(context, builder, sig.args[0], args[0], place, LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, columns), generate


@intrinsic
def find_new_records(typing_context, array, offset, columns):
    """The rows, as bits, of which `store_records` would change a bit."""

    def generate(context, builder, sig, args):
        short, wide = ir.IntType(LANES), ir.IntType(64)
        found = ir.Constant(wide, 0)
        for i, row in enumerate(_rows_of_records(builder, sig.args[2], args[2])):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            old = builder.load(pointer_to(context, builder, sig.args[0], args[0], place, LANES), align=4)
            differ = builder.icmp_unsigned("!=", builder.bitcast(row, INTS), builder.bitcast(old, INTS))
            is_new = builder.icmp_unsigned("!=", builder.bitcast(differ, short), ir.Constant(short, 0))
            found = builder.or_(found, builder.shl(builder.zext(is_new, wide), ir.Constant(wide, i)))
        return found

    return types.int64(array, types.intp, columns), generate


@intrinsic
def load_records(typing_context, array, offset):
    """The 16 columns of 16 rows of 16 floats."""

    def generate(context, builder, sig, args):
        rows = []
        for i in range(LANES):
            place = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            rows.append(builder.load(pointer_to(context, builder, sig.args[0], args[0], place, LANES), align=4))
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
                    parts[i], parts[i + step] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(f16, 4)(f16, f16, f16, f16), generate


@intrinsic
def totals(typing_context, vectors):
    """One vector whose lane j is the sum over the lanes of vector j of the tuple; the lanes after the last are 0."""

    def generate(context, builder, sig, args):
        parts = list(cgutils.unpack_tuple(builder, args[0], len(sig.args[0])))
        zero = ir.Constant(VECTOR, None)
        step = 1
        while step < LANES:
            merged = []
            for k in range(0, len(parts), 2):
                a, b = parts[k], parts[k + 1] if k + 1 < len(parts) else zero
                # Lanes whose `step` bit is 0 go on with a, the others with b; each takes in its partner across that bit.
                keep = [i if not i & step else i + LANES for i in range(LANES)]
                give = [i + step if not i & step else i - step + LANES for i in range(LANES)]
                merged.append(builder.fadd(shuffle(builder, a, b, keep), shuffle(builder, a, b, give)))
            parts = merged
            step *= 2
        return parts[0]

    return f16(vectors), generate
