"""Sorting: topk, sort, argsort, histograms."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from ..dims import Size
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator, refuse
from .reshaping import flat, line_of
from .schema import Attributes

_INDEX = np.dtype(np.int64)


def ranked(cx: Context, x: Value, axis: int, count: Size, ascending: bool) -> tuple[Value, Value]:
    """The first ``count`` values along an axis in order, and their int64 positions; ties: the lowest comes first."""
    narrow = x.dtype.kind == "b" or x.dtype.itemsize == 1
    kind = TensorType(np.dtype(np.int32) if narrow else x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    values, places = cx.ops(
        "TopK",
        cx.cast(x, kind.dtype),
        cx.size(count, x),
        outputs=2,
        types=[kind, TensorType(_INDEX, kind.shape)],
        axis=axis,
        largest=int(not ascending),
        sorted=1,
    )
    return cx.cast(values, x.dtype), places


@operator("topk")
def topk(cx: Context, a: Attributes, data: Value) -> Value | list[Value]:
    """The k largest (or smallest) along an axis: their positions, values, both, or a mask. k=0 stands for all."""
    x, axis = line_of(cx, data, a.axis)
    size = x.shape[axis]
    if a.k < 0 or (isinstance(size, int) and a.k > size):
        raise Unsupported(f"k={a.k} of an axis with the size {size}")
    values, places = ranked(cx, x, axis, size if a.k < 1 else a.k, a.is_ascend)
    if a.ret_typ == "mask":
        a.ignore("dtype")
        return cx.reshape(_mask(cx, x, places, axis), data.shape)
    if a.ret_typ == "value":
        a.ignore("dtype")
        return values
    indices = cx.cast(places, np.dtype(a.dtype))
    return indices if a.ret_typ == "indices" else [values, indices]


def _mask(cx: Context, x: Value, places: Value, axis: int) -> Value:
    """Ones at these places of an axis, zeros elsewhere, in the type of ``x``."""
    zeros = cx.op("Expand", cx.const(np.zeros((1,) * x.rank, x.dtype)), cx.shape(x.shape, x), type=x.type)
    kind = TensorType(x.dtype, places.shape)
    ones = cx.op("Expand", cx.const(np.ones((1,) * x.rank, x.dtype)), cx.shape(places.shape, places, x), type=kind)
    return cx.op("ScatterElements", zeros, places, ones, type=x.type, axis=axis)


@operator("sort")
def sort(cx: Context, a: Attributes, data: Value) -> Value:
    """Values in order along an axis, or of the flattened data."""
    x, axis = line_of(cx, data, a.axis)
    return ranked(cx, x, axis, x.shape[axis], a.is_ascend)[0]


@operator("argsort")
def argsort(cx: Context, a: Attributes, data: Value) -> Value:
    """The positions that would sort an axis, or the flattened data."""
    x, axis = line_of(cx, data, a.axis)
    return cx.cast(ranked(cx, x, axis, x.shape[axis], a.is_ascend)[1], np.dtype(a.dtype))


@operator("_histogram")
def histogram(cx: Context, a: Attributes, data: Value, bins: Value | None = None) -> list[Value]:
    """How many elements lie in each bin, as int64, and the bins' edges. The last bin has both of its edges."""
    edges = bins if bins is not None else cx.const(_edges(a, data.dtype))
    count = static(edges.shape[0], "the number of edges") - 1
    if edges.rank != 1 or count < 1:
        raise Unsupported(f"its edges have the shape {edges.shape}; at least two in a row are needed")
    x, wide = cx.unsqueeze(flat(cx, data), 1), np.dtype(bool)
    if x.dtype.itemsize == 1:
        x, edges_compared = cx.cast(x, np.int32), cx.cast(edges, np.int32)
    else:
        edges_compared = edges
    kind = TensorType(wide, (x.shape[0], count))
    low, high = (_range(cx, edges_compared, begin, count) for begin in (0, 1))
    top = _range(cx, edges_compared, count, 1)
    above = cx.op("GreaterOrEqual", x, low, type=kind)
    below = cx.op("Less", x, high, type=kind)
    at_end = cx.op("Equal", x, top, type=TensorType(wide, (x.shape[0], 1)))
    is_last = cx.const(np.arange(count) == count - 1)
    closed = cx.op("Or", below, cx.op("And", at_end, is_last, type=kind), type=kind)
    hits = cx.cast(cx.op("And", above, closed, type=kind), _INDEX)
    return [cx.reduce("ReduceSum", hits, (0,)), edges]


def _range(cx: Context, x: Value, begin: int, count: int) -> Value:
    if x.const is not None:
        return cx.const(x.const[begin : begin + count])
    kind = TensorType(x.dtype, (count,))
    return cx.op("Slice", x, cx.ints(begin), cx.ints(begin + count), type=kind)


def _edges(a: Attributes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if a.bin_cnt is None or a.bin_cnt < 1:
        raise Unsupported(f"bin_cnt={a.bin_cnt}; a positive number or the bins are needed")
    try:
        low, high = (float(bound) for bound in ast.literal_eval(a.range))
    except (ValueError, SyntaxError, TypeError):
        raise Unsupported(f"range={a.range}; without it the edges depend on the data: give it") from None
    return np.asarray((low + np.arange(a.bin_cnt + 1) * ((high - low) / a.bin_cnt)).astype(dtype))


refuse("its output's length depends on the data", "_npi_bincount")
