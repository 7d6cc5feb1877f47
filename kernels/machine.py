"""Machine operations that numba does not offer, as LLVM instructions: they compile for any little-endian processor.

    load64(data, at)        the 8 bytes from `at` on as one number, the first byte the highest
    nonzero64(data, at)     bit i is set if byte at + i is not zero, for 64 bytes: a few vector instructions
    fold32(data, at, out, to, case, digits, signs)
                            writes 32 bytes of text to `out`, all but ASCII letters and digits as 0, and says by the
                            bits of its answer which bytes are to be seen to one by one: those that are not ASCII, and
                            digits and signs (neither word nor white space) if asked so. case: 32 for lower-case
                            letters, 0 for letters as they are; digits, signs: 255 or 0.
    trailing_zeros(x)       place of the lowest set bit of x; 64 for 0
    ones(x)                 number of set bits of x

None looks at the bounds: the caller sees to it that 8 or 64 bytes lie behind `at`. `data` is uint8, contiguous; `at` is
int64, x is uint64.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I1, _I8, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)


def pointer(context: Any, builder: Any, kind: Any, array: Any, value: Any, at: Any) -> Any:
    """Address of element `at` of an array of bytes, as one of LLVM type `kind`; for intrinsics."""
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


@intrinsic
def load64(typing_context: Any, data: Any, at: Any) -> Any:
    """See the module: uint8[any], int64 -> uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(pointer(context, builder, _I64, signature.args[0], args[0], args[1]), align=1)
        return builder.bswap(value)

    return types.uint64(data, types.intp), build


@intrinsic
def nonzero64(typing_context: Any, data: Any, at: Any) -> Any:
    """See the module: uint8[any], int64 -> uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_I8, 64)
        values = builder.load(pointer(context, builder, vector, signature.args[0], args[0], args[1]), align=1)
        return builder.bitcast(builder.icmp_unsigned("!=", values, ir.Constant(vector, [0] * 64)), _I64)

    return types.uint64(data, types.intp), build


@intrinsic
def fold32(typing_context: Any, data: Any, at: Any, out: Any, to: Any, case: Any, digits: Any, signs: Any) -> Any:
    """See the module: uint8[any], int64, uint8[any], int64, uint8, uint8, uint8 -> uint32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, lanes = ir.VectorType(_I8, 32), ir.VectorType(ir.IntType(32), 32)

        def every(value: int) -> Any:
            return ir.Constant(vector, [value] * 32)

        def spread(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I64, 0))
            return builder.shuffle_vector(one, one, ir.Constant(lanes, [0] * 32))

        def among(values: Any, first: int, count: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(values, every(first)), every(count))

        def mask(condition: Any) -> Any:
            return builder.sext(condition, vector)

        source, target = signature.args[0], signature.args[2]
        values = builder.load(pointer(context, builder, vector, source, args[0], args[1]), align=1)
        digit = mask(among(values, ord("0"), 10))
        word = builder.or_(digit, mask(among(builder.or_(values, every(32)), ord("a"), 26)))
        space = mask(among(values, 9, 5))
        space = builder.or_(space, mask(among(values, 0x1C, 5)))
        upper = mask(among(values, ord("A"), 26))
        folded = builder.or_(values, builder.and_(upper, spread(args[4])))
        there = pointer(context, builder, vector, target, args[2], args[3])
        builder.store(builder.and_(folded, word), there, align=1)
        special = builder.and_(digit, spread(args[5]))
        sign = builder.not_(builder.or_(word, space))
        special = builder.or_(special, builder.and_(sign, spread(args[6])))
        special = builder.or_(special, mask(builder.icmp_signed("<", values, every(0))))
        return builder.bitcast(builder.icmp_unsigned("!=", special, every(0)), ir.IntType(32))

    return types.uint32(data, types.intp, out, types.intp, types.uint8, types.uint8, types.uint8), build


@intrinsic
def trailing_zeros(typing_context: Any, x: Any) -> Any:
    """See the module: uint64 -> int64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(_I1, 0))

    return types.int64(types.uint64), build


@intrinsic
def ones(typing_context: Any, x: Any) -> Any:
    """See the module: uint64 -> int64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), build
