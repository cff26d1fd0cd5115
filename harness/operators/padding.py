"""Padding, and sliding windows as columns (im2col) and back (col2im)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .reshaping import given, sizes_of
from .schema import Attributes

Pads = Sequence[tuple[int, int]]


@operator("Pad")
def pad(cx: Context, a: Attributes, data: Value) -> Value:
    """Four or five axes padded, except for the first two: with a constant, the edge, or a reflection."""
    flat = given(a.pad_width) or ()
    if data.rank not in (4, 5) or len(flat) != 2 * data.rank or any(flat[:4]) or min(flat) < 0:
        raise Unsupported(
            f"pad_width={flat} of data with {data.rank} axes; 4 or 5 axes are supported, the first two without padding"
        )
    if data.dtype.kind != "f":
        raise Unsupported(f"MXNet pads floats only; the data are {data.dtype}")
    pads = list(zip(flat[::2], flat[1::2]))
    if a.mode != "constant":
        a.ignore("constant_value")
    if a.mode == "reflect":
        for axis, amounts in enumerate(pads):
            if max(amounts) >= static(data.shape[axis], "a reflected size") if any(amounts) else False:
                raise Unsupported(f"axis {axis} of size {data.shape[axis]} reflects {amounts}; it must be longer")
    return _padded(cx, data, pads, a.mode, a.constant_value)


def _padded(cx: Context, x: Value, pads: Pads, mode: str, value: float = 0) -> Value:
    """ONNX's Pad: constant, edge or reflect."""
    if not any(any(pair) for pair in pads):
        return x
    shape = tuple(size + before + after for size, (before, after) in zip(x.shape, pads))
    amounts = cx.ints(*(before for before, _ in pads), *(after for _, after in pads))
    number = cx.const(np.array(value).astype(x.dtype)) if mode == "constant" else None
    return cx.op("Pad", x, amounts, number, type=TensorType(x.dtype, shape), mode=mode)


@operator("_npi_pad")
def np_pad(cx: Context, a: Attributes, data: Value) -> Value:
    """NumPy's pad: constant, edge, reflect, symmetric, maximum, minimum."""
    pads = [tuple(pair) for pair in a.pad_width]
    if len(pads) != data.rank or any(len(pair) != 2 or min(pair) < 0 for pair in pads):
        raise Unsupported(f"pad_width={pads} of data with {data.rank} axes; two numbers for each axis are needed")
    mode = a.mode
    if mode != "constant":
        a.ignore("constant_value")
    if mode not in ("reflect", "symmetric"):
        a.ignore("reflect_type")
    elif a.reflect_type != "even":
        raise Unsupported(f"reflect_type={a.reflect_type}; even is supported")
    if data.dtype.kind == "b":
        return cx.cast(_np_padded(cx, cx.cast(data, np.uint8), pads, mode, float(bool(a.constant_value))), bool)
    return _np_padded(cx, data, pads, mode, a.constant_value)


def _np_padded(cx: Context, x: Value, pads: Sequence[tuple[int, ...]], mode: str, value: float) -> Value:
    pairs: Pads = [(pair[0], pair[1]) for pair in pads]
    if mode == "constant":
        return _padded(cx, x, pairs, mode, value)
    for axis, pair in enumerate(pairs):
        if any(pair):
            x = _EXTENSIONS[mode](cx, x, axis, pair)
    return x


def _by_position(mode: str):  # type: ignore[no-untyped-def]
    def extend(cx: Context, x: Value, axis: int, pair: tuple[int, int]) -> Value:
        size = static(x.shape[axis], f"the size of a padded axis (mode={mode})")
        if size == 0:
            raise Unsupported(f"mode={mode} of an axis without elements")
        table = np.pad(np.arange(size), pair, mode=mode)  # type: ignore[call-overload]
        kind = TensorType(x.dtype, (*x.shape[:axis], table.size, *x.shape[axis + 1 :]))
        return cx.op("Gather", x, cx.const(table), type=kind, axis=axis)

    return extend


def _by_extreme(reduction: str):  # type: ignore[no-untyped-def]
    def extend(cx: Context, x: Value, axis: int, pair: tuple[int, int]) -> Value:
        edge = cx.reduce(reduction, x, (axis,), keepdims=True)
        parts = []
        for count in (pair[0], None, pair[1]):
            if count is None:
                parts.append(x)
            elif count:
                parts.append(cx.expand(edge, (*x.shape[:axis], count, *x.shape[axis + 1 :])))
        shape = (*x.shape[:axis], x.shape[axis] + sum(pair), *x.shape[axis + 1 :])
        return cx.op("Concat", *parts, type=TensorType(x.dtype, shape), axis=axis)

    return extend


_EXTENSIONS = {
    "edge": _by_position("edge"),
    "reflect": _by_position("reflect"),
    "symmetric": _by_position("symmetric"),
    "maximum": _by_extreme("ReduceMax"),
    "minimum": _by_extreme("ReduceMin"),
}


# --- windows as columns ----------------------------------------------------------------------------------------------


def _geometry(a: Attributes) -> list[tuple[int, int, int, int]]:
    """kernel, stride, dilation and padding of each spatial axis."""
    dims = len(a.kernel)
    ones, zeros = (1,) * dims, (0,) * dims
    parts = tuple(a.kernel), tuple(a.stride) or ones, tuple(a.dilate) or ones, tuple(a.pad) or zeros
    if any(len(part) != dims for part in parts) or min(*parts[0], *parts[1], *parts[2]) < 1 or min(parts[3]) < 0:
        raise Unsupported(f"kernel, stride, dilate, pad = {parts} do not fit one another")
    return list(zip(*parts))


def _steps(size: int, kernel: int, stride: int, dilate: int, pad: int) -> int:
    count = (size + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise Unsupported(
            f"a window of {kernel} (dilated by {dilate}) is longer than an axis of {size} and its padding"
        )
    return count


@operator("im2col")
def im2col(cx: Context, a: Attributes, data: Value) -> Value:
    """Sliding windows as columns: (N, C, ...) to (N, C * window, places)."""
    geometry = _geometry(a)
    if data.rank != 2 + len(geometry):
        raise Unsupported(f"kernel={a.kernel} does not fit data with {data.rank} axes")
    spatial = sizes_of(data.shape[2:], "a spatial size")
    x = _padded(cx, data, [(0, 0), (0, 0), *((pad, pad) for *_, pad in geometry)], "constant")
    counts = []
    for i, (kernel, stride, dilate, pad) in enumerate(geometry):
        counts.append(_steps(spatial[i], kernel, stride, dilate, pad))
        table = np.arange(kernel)[:, None] * dilate + np.arange(counts[i]) * stride
        axis = 2 + 2 * i
        kind = TensorType(x.dtype, (*x.shape[:axis], *table.shape, *x.shape[axis + 1 :]))
        x = cx.op("Gather", x, cx.const(table), type=kind, axis=axis)
    dims = len(geometry)
    order = [0, 1, *(2 + 2 * i for i in range(dims)), *(3 + 2 * i for i in range(dims))]
    window = int(np.prod(a.kernel))
    return cx.reshape(cx.transpose(x, order), (data.shape[0], data.shape[1] * window, int(np.prod(counts))))


@operator("col2im")
def col2im(cx: Context, a: Attributes, data: Value) -> Value:
    """The sum of columns at the places they were taken from: (N, C * window, places) to (N, C, ...)."""
    geometry, sizes = _geometry(a), given(a.output_size) or ()
    if data.rank != 3 or len(sizes) != len(geometry):
        raise Unsupported(f"output_size={sizes} and kernel={a.kernel} do not fit data with {data.rank} axes")
    counts = [_steps(size, *part) for size, part in zip(sizes, geometry)]
    window, dims = int(np.prod(a.kernel)), len(geometry)
    if data.shape[2] != int(np.prod(counts)):
        raise Unsupported(f"its data have {data.shape[2]} columns, output_size={sizes} asks for {np.prod(counts)}")
    channels = static(data.shape[1], "the number of rows")
    if channels % window:
        raise Unsupported(f"its data have {channels} rows, which is no multiple of the window's {window}")
    x = cx.reshape(data, (data.shape[0], channels // window, *a.kernel, *counts))
    pairs = [axis for i in range(dims) for axis in (2 + i, 2 + dims + i)]
    x = cx.transpose(x, [0, 1, *pairs])
    for i, part in enumerate(geometry):
        x = _summed(cx, x, 2 + i, sizes[i], counts[i], part)
    return x


def _summed(cx: Context, x: Value, axis: int, size: int, count: int, part: tuple[int, int, int, int]) -> Value:
    """(kernel, places) on two axes added up at the positions of one. Gathers what each position receives."""
    kernel, stride, dilate, pad = part
    sources: list[list[int]] = [[] for _ in range(size)]
    for k in range(kernel):
        for step in range(count):
            position = step * stride + k * dilate - pad
            if 0 <= position < size:
                sources[position].append(k * count + step)
    none = kernel * count  # a row of zeros
    width = max(1, *(len(found) for found in sources))
    table = np.array([found + [none] * (width - len(found)) for found in sources], np.int64)
    before, after = x.shape[:axis], x.shape[axis + 2 :]
    rows = cx.reshape(x, (*before, none, *after))
    if (table == none).any():
        rows = _padded(cx, rows, [(0, int(i == axis)) for i in range(rows.rank)], "constant")
    gathered = cx.op(
        "Gather", rows, cx.const(table), type=TensorType(x.dtype, (*before, size, width, *after)), axis=axis
    )
    return cx.reduce("ReduceSum", gathered, (axis + 1,))
