"""Joining and splitting: concatenations, stacks, splits, Khatri-Rao products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..dims import Dim, Size
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .reshaping import axis_of, cut, flat, given
from .schema import Attributes


def joined(cx: Context, values: Sequence[Value], axis: int) -> Value:
    """Values of one type joined along an axis; their other sizes must agree.

    Raises:
        Unsupported: they differ in type, rank or another size.
    """
    first = values[0]
    place = axis_of(axis, first.rank)
    shape = list(first.shape)
    total: Size = 0
    for value in values:
        if value.dtype != first.dtype or value.rank != first.rank:
            raise Unsupported(f"its inputs are {first.type} and {value.type}; they must have one type and rank")
        for i, size in enumerate(value.shape):
            if i != place and size != shape[i]:
                if not isinstance(size, Dim) and not isinstance(shape[i], Dim):
                    raise Unsupported(f"its inputs have the sizes {shape[i]} and {size} on axis {i}")
                shape[i] = shape[i] if isinstance(size, Dim) else size
        total = total + value.shape[place]
    shape[place] = total
    if len(values) == 1:
        return first
    return cx.op("Concat", *values, type=TensorType(first.dtype, tuple(shape)), axis=place)


@operator("Concat", "_rnn_param_concat")
def concat(cx: Context, a: Attributes, *data: Value) -> Value:
    """Tensors joined along ``dim``."""
    return joined(cx, data, a.dim)


@operator("_npi_concatenate")
def concatenate(cx: Context, a: Attributes, *data: Value) -> Value:
    """Tensors joined along ``axis``; flattened ones where it is None."""
    if a.axis is None:
        return joined(cx, [flat(cx, x) for x in data], 0)
    return joined(cx, data, a.axis)


@operator("stack", "_npi_stack")
def stack(cx: Context, a: Attributes, *data: Value) -> Value:
    """Tensors of equal shape joined along a new axis."""
    axis = axis_of(a.axis, data[0].rank + 1)
    return joined(cx, [cx.unsqueeze(x, axis) for x in data], axis)


@operator("_npi_vstack")
def vstack(cx: Context, a: Attributes, *data: Value) -> Value:
    """Rows under one another; 1-D inputs are rows."""
    return joined(cx, [cx.unsqueeze(x, *range(2 - x.rank)) for x in data], 0)


@operator("_npi_hstack", ignore=("dim",))
def hstack(cx: Context, a: Attributes, *data: Value) -> Value:
    """Joined along the second axis, or the only one."""
    grown = [cx.unsqueeze(x, 0) if x.rank == 0 else x for x in data]
    return joined(cx, grown, 0 if grown[0].rank == 1 else 1)


@operator("_npi_dstack", ignore=("dim",))
def dstack(cx: Context, a: Attributes, *data: Value) -> Value:
    """Joined along the third axis, which is added where it is missing."""
    places = {0: (0, 1, 2), 1: (0, 2), 2: (2,)}
    return joined(cx, [cx.unsqueeze(x, *places.get(x.rank, ())) for x in data], 2)


@operator("_npi_column_stack")
def column_stack(cx: Context, a: Attributes, *data: Value) -> Value:
    """Joined along the second axis; 1-D inputs are columns."""
    columns = {0: (0, 1), 1: (1,)}
    return joined(cx, [cx.unsqueeze(x, *columns.get(x.rank, ())) for x in data], 1)


@operator("SliceChannel")
def slice_channel(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """``num_outputs`` equal parts along an axis, which goes where they have size 1 and ``squeeze_axis`` is set."""
    axis = axis_of(a.axis, data.rank)
    parts = _equal_parts(cx, data, axis, a.num_outputs)
    return _without_axis(cx, parts, axis) if a.squeeze_axis else parts


@operator("_split_v2")
def split(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """``sections`` equal parts along an axis, or parts that start at ``indices``."""
    return _split(cx, a, data, axis_of(a.axis, data.rank))


@operator("_npi_hsplit", ignore=("axis",))
def hsplit(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """Split along the second axis, or the only one."""
    return _split(cx, a, data, 0 if data.rank == 1 else 1)


@operator("_npi_dsplit")
def dsplit(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """Split along the third axis."""
    if a.axis != 2:
        raise Unsupported(f"axis={a.axis}: MXNet writes outside of its outputs unless np.dsplit set it to 2")
    return _split(cx, a, data, axis_of(2, data.rank))


def _split(cx: Context, a: Attributes, data: Value, axis: int) -> list[Value]:
    indices, sections = given(a.indices) or (), a.sections
    if sections > 0:
        parts = _equal_parts(cx, data, axis, sections)
    else:
        parts = _parts(cx, data, axis, indices)
    return _without_axis(cx, parts, axis) if a.squeeze_axis else parts


def _without_axis(cx: Context, parts: Sequence[Value], axis: int) -> list[Value]:
    for part in parts:
        if part.shape[axis] != 1:
            raise Unsupported(f"squeeze_axis is set, and a part has the size {part.shape[axis]} on axis {axis}")
    return [cx.squeeze(part, axis) for part in parts]


def _equal_parts(cx: Context, x: Value, axis: int, count: int) -> list[Value]:
    size = static(x.shape[axis], "the size of an axis that is split")
    if count < 1 or size % count:
        raise Unsupported(f"axis {axis} of size {size} cannot be split into {count} equal parts")
    if count == 1:
        return [x]
    kind = TensorType(x.dtype, (*x.shape[:axis], size // count, *x.shape[axis + 1 :]))
    return cx.ops("Split", x, cx.ints(*[size // count] * count), outputs=count, types=[kind] * count, axis=axis)


def _parts(cx: Context, x: Value, axis: int, starts: Sequence[int]) -> list[Value]:
    size = static(x.shape[axis], "the size of an axis that is split")
    bounds = [*starts, size]
    if any(not 0 <= begin <= end for begin, end in pairwise(bounds)):
        raise Unsupported(f"indices={tuple(starts)} do not ascend from 0 to the size {size}")
    if any(begin == end for begin, end in pairwise(bounds)) and not cx.np_shape:
        raise Unsupported(f"indices={tuple(starts)} leave a part of axis {axis} empty")
    return [cut(cx, x, axis, begin, end) for begin, end in pairwise(bounds)]


@operator("khatri_rao")
def khatri_rao(cx: Context, a: Attributes, *matrices: Value) -> Value:
    """The column-wise Kronecker product of matrices."""
    if matrices[0].dtype.kind != "f":
        raise Unsupported(f"MXNet has no khatri_rao of {matrices[0].dtype}")
    result = matrices[0]
    for matrix in matrices[1:]:
        if matrix.rank != 2 or result.rank != 2 or matrix.shape[1] != result.shape[1]:
            raise Unsupported(f"its inputs have the shapes {result.shape} and {matrix.shape}; their columns must agree")
        rows = result.shape[0] * matrix.shape[0]
        wide = (result.shape[0], matrix.shape[0], result.shape[1])
        pairs = cx.op("Mul", cx.unsqueeze(result, 1), cx.unsqueeze(matrix, 0), type=TensorType(result.dtype, wide))
        result = cx.reshape(pairs, (rows, result.shape[1]))
    return result
