"""Elementwise arithmetic: unary, scalar, of equal shapes, and broadcast."""

from __future__ import annotations

from ..graph import TensorType
from .context import Context, Value
from .registry import Unsupported, operator
from .schema import Attributes


@operator("elemwise_add")
def elemwise_add(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """The sum of two tensors of equal type and shape."""
    if lhs.dtype != rhs.dtype or lhs.rank != rhs.rank:
        raise Unsupported(f"its inputs are {lhs.type} and {rhs.type}; they must be equal")
    return cx.op("Add", lhs, rhs, type=TensorType(lhs.dtype, lhs.shape))


@operator("clip")
def clip(cx: Context, a: Attributes, data: Value) -> Value:
    """Values limited to [a_min, a_max]."""
    return cx.op("Clip", data, cx.const(a.a_min, data.dtype), cx.const(a.a_max, data.dtype), type=data.type)
