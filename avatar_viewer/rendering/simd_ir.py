"""Vectors of 16 floats for numba kernels, on numba's own terms: two types, and how LLVM is told about them.

The intrinsics of `simd.py`, `simd_memory.py` and `simd_rows.py` are written in these words; kernels use only those.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default

LANES = 16
FLOAT, INT, BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
VECTOR, INTS, BITS = (ir.VectorType(t, LANES) for t in (FLOAT, INT, BIT))


class Vector(types.Type):
    """The numba type of a vector."""


f16 = Vector(name="f16")
m16 = Vector(name="m16")


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, VECTOR if fe_type.name == "f16" else BITS)


def constant(value: float, kind=FLOAT, lanes: int = LANES) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, lanes), [ir.Constant(kind, value)] * lanes)


def shuffle(builder, a, b, picks: list[int]):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(picks)), [ir.Constant(INT, p) for p in picks]))


def splat_value(builder, value):
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, ir.Constant(INT, 0))
    return shuffle(builder, one, ir.Constant(VECTOR, ir.Undefined), [0] * LANES)


def as_vector(context, builder, value, kind):
    """`value` of numba type `kind`, repeated if it is one number."""
    if kind == f16:
        return value
    return splat_value(builder, context.cast(builder, value, kind, types.float32))


def pointer_to(context, builder, array_type, array, offset, lanes: int):
    data = context.make_array(array_type)(context, builder, array).data
    element = builder.gep(data, [offset])
    return builder.bitcast(element, ir.VectorType(element.type.pointee, lanes).as_pointer())


def call_llvm(builder, name: str, result, *arguments):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)
