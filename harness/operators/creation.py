"""Tensors made of nothing but attributes and sizes: zeros, ranges, windows, shapes as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dims import Size, is_static, product
from ..graph import TensorType
from .context import Context, Value
from .indexing import counted
from .registry import Unsupported, operator
from .reshaping import axis_of, given
from .schema import Attributes

Array = npt.NDArray[Any]


def _dtype(name: str | None, default: npt.DTypeLike = np.float32) -> np.dtype[Any]:
    if name == "bfloat16":
        raise Unsupported("dtype=bfloat16; NumPy arrays cannot hold it")
    return np.dtype(name or default)


def _shape(cx: Context, a: Attributes) -> tuple[Size, ...]:
    """The shape attribute; sizes that it leaves open are found from what the output is used with."""
    shape = given(a["shape"])
    unknown = -1 if cx.np_shape else 0
    if shape is None or any(size < unknown for size in shape) or (not shape and not cx.np_shape):
        raise Unsupported(f"shape={shape} leaves axes to be found from what the output is used for; give all of them")
    sizes = [cx.open_size(f"size{i}") if size == unknown else size for i, size in enumerate(shape)]
    if None in sizes:
        raise Unsupported(f"shape={shape} leaves sizes open that nothing it is used with tells; give all of them")
    return tuple(size for size in sizes if size is not None)


def _number(value: float, dtype: np.dtype[Any]) -> Array:
    """A number in a type; integers drop the fraction and wrap round."""
    if dtype.kind in "iu" and math.isfinite(value):
        return np.array(int(value)).astype(dtype)
    return np.array(value).astype(dtype)


def _filled(cx: Context, number: Array, shape: tuple[Size, ...], *sources: Value) -> Value:
    """A tensor of one number; nothing is stored where it would be large."""
    if is_static(shape) and product(shape) <= 4096:  # type: ignore[operator]
        return cx.const(np.full(tuple(shape), number, number.dtype))
    kind = TensorType(number.dtype, shape)
    return cx.op("Expand", cx.const(number.reshape((1,) * len(shape))), cx.shape(shape, *sources), type=kind)


def _made(cx: Context, a: Attributes, number: Array) -> Value:
    """A tensor of one number with the shape that the attributes ask for."""
    shape = _shape(cx, a)
    if is_static(shape):
        return cx.const(np.full(tuple(shape), number, number.dtype))
    if any(cx.is_open(size) for size in shape):  # only for its type: the graph is lowered again
        return cx.op("Identity", cx.const(number), type=TensorType(number.dtype, shape))
    return _filled(cx, number, shape, *cx.sources)


# --- constants -------------------------------------------------------------------------------------------------------


@operator("_zeros", "_npi_zeros")
def zeros(cx: Context, a: Attributes) -> Value:
    """Zeros."""
    return _made(cx, a, np.zeros((), _dtype(a.dtype)))


@operator("_ones", "_npi_ones")
def ones(cx: Context, a: Attributes) -> Value:
    """Ones."""
    return _made(cx, a, np.ones((), _dtype(a.dtype)))


@operator("_full")
def full(cx: Context, a: Attributes) -> Value:
    """One number everywhere."""
    return _made(cx, a, _number(a.value, _dtype(a.dtype)))


_DTYPE_NUMBERS = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")


@operator("_zeros_without_dtype")
def zeros_without_dtype(cx: Context, a: Attributes) -> Value:
    """Zeros, of a type given by MXNet's number for it."""
    if not 0 <= a.dtype < len(_DTYPE_NUMBERS):
        raise Unsupported(f"dtype={a.dtype} leaves the type to be found from what the output is used for; give it")
    return _made(cx, a, np.zeros((), _DTYPE_NUMBERS[a.dtype]))


@operator("_npi_identity")
def identity(cx: Context, a: Attributes) -> Value:
    """The identity matrix."""
    shape = given(a["shape"]) or ()
    if len(shape) != 2 or shape[0] != shape[1]:
        raise Unsupported(f"shape={shape} is not a square")
    return cx.const(np.eye(shape[0], dtype=_dtype(a.dtype)))


@operator("_eye")
def eye(cx: Context, a: Attributes) -> Value:
    """Ones on a diagonal of an N x M matrix; M=0 stands for N."""
    return cx.const(np.eye(a.N, a.M or a.N, a.k, dtype=_dtype(a.dtype)))


@operator("_npi_eye")
def np_eye(cx: Context, a: Attributes) -> Value:
    """Ones on a diagonal of an N x M matrix; M is N by default."""
    columns = a.N if a.M in (None, "None", "") else int(a.M)
    return cx.const(np.eye(a.N, columns, a.k, dtype=_dtype(a.dtype)))


@operator("_npi_indices")
def indices(cx: Context, a: Attributes) -> Value:
    """The positions of a grid, one plane for each axis."""
    return cx.const(np.indices(given(a.dimensions) or (), _dtype(a.dtype)))


# --- ranges ----------------------------------------------------------------------------------------------------------


@operator("_npi_arange")
def np_arange(cx: Context, a: Attributes) -> Value:
    """``start``, ``start + step``, ... below ``stop``."""
    if a.repeat != 1:
        raise Unsupported(f"repeat={a.repeat}; MXNet takes 1 only")
    return arange(cx, a)


@operator("_arange")
def arange(cx: Context, a: Attributes) -> Value:
    """``start``, ``start + step``, ... below ``stop``, each ``repeat`` times."""
    stop = a.stop
    if a.infer_range and stop is None:
        return _inferred_range(cx, a)
    start, stop = (0.0, a.start) if stop is None else (a.start, stop)
    if a.step == 0 or a.repeat < 1:
        raise Unsupported(f"step={a.step} and repeat={a.repeat}; step must not be 0, and repeat positive")
    count = max(0, math.ceil((stop - start) / a.step))
    if not count and not cx.np_shape:
        raise Unsupported(f"start={start}, stop={stop}, step={a.step} give nothing")
    return cx.const(np.repeat(_steps(start, a.step, count, _dtype(a.dtype)), a.repeat))


def _inferred_range(cx: Context, a: Attributes) -> Value:
    """As many steps as what the range is used with has."""
    start, step, repeat, dtype = a.start, a.step, a.repeat, _dtype(a.dtype)
    length = cx.open_size("length")
    if length is None or repeat < 1:
        raise Unsupported("infer_range leaves the length open, and nothing that it is used with tells: give stop")
    kind = TensorType(dtype, (length,))
    if isinstance(length, int):
        return cx.const(np.repeat(_steps(start, step, -(-length // repeat), dtype), repeat)[:length])
    if cx.is_open(length):  # only for its type: the graph is lowered again
        return cx.op("Identity", cx.const(np.zeros((), dtype)), type=kind)
    zero, one = (cx.const(np.array(n, np.int64)) for n in (0, 1))
    stop = cx.squeeze(cx.size(length, *cx.sources), 0)
    places = cx.op("Range", zero, stop, one, type=TensorType(np.dtype(np.int64), (length,)))
    if repeat > 1:
        places = cx.op("Div", places, cx.ints(repeat), type=places.type)
    whole = dtype.kind in "iu" or dtype == np.float16  # as in _steps
    first, width = (cx.const(_number(int(n) if whole else n, dtype)) for n in (start, step))
    return cx.op("Add", first, cx.op("Mul", cx.cast(places, dtype), width, type=kind), type=kind)


def _steps(start: float, step: float, count: int, dtype: np.dtype[Any]) -> Array:
    """MXNet's arithmetic: start and step in the output's type first; half precision drops their fractions."""
    if dtype.kind in "iu" or dtype == np.float16:
        return (int(start) + np.arange(count) * int(step)).astype(dtype)
    return np.asarray(np.array(start, dtype) + np.arange(count).astype(dtype) * np.array(step, dtype), dtype)


@operator("_contrib_arange_like")
def arange_like(cx: Context, a: Attributes, data: Value) -> Value:
    """A range as long as the data, in its shape; or as long as one of its axes."""
    if a.repeat < 1:
        raise Unsupported(f"repeat={a.repeat}; it must be positive")
    shape = data.shape if a.axis is None else (data.shape[axis_of(a.axis, data.rank)],)
    count = product(shape)
    if isinstance(count, int):
        line = _steps(a.start, a.step, -(-count // a.repeat), data.dtype)
        return cx.const(np.repeat(line, a.repeat)[:count].reshape(shape))  # type: ignore[arg-type]
    if a.axis is None:
        flat = cx.reshape(data, (count,))
        return cx.reshape(_open_range(cx, a, flat, 0), shape, data)
    return _open_range(cx, a, data, axis_of(a.axis, data.rank))


def _open_range(cx: Context, a: Attributes, data: Value, axis: int) -> Value:
    places = counted(cx, data, axis)
    if a.repeat != 1:
        places = cx.op("Div", places, cx.const(np.array(a.repeat, np.int64)), type=places.type)
    if data.dtype.kind in "iu" or data.dtype == np.float16:
        start, step = cx.const(np.array(int(a.start), np.int64)), cx.const(np.array(int(a.step), np.int64))
    else:
        places = cx.cast(places, data.dtype)
        start, step = cx.const(np.array(a.start, data.dtype)), cx.const(np.array(a.step, data.dtype))
    scaled = cx.op("Mul", places, step, type=places.type)
    return cx.cast(cx.op("Add", scaled, start, type=places.type), data.dtype)


@operator("_linspace")
def linspace(cx: Context, a: Attributes) -> Value:
    """``num`` numbers from ``start`` to ``stop``, which is the last of them where ``endpoint`` is set."""
    pieces = a.num - 1 if a.endpoint else a.num
    a.ignore("stop")  # one number alone is start
    step = (a.stop - a.start) / pieces if pieces > 0 else 0.0
    return cx.const((a.start + np.arange(a.num) * step).astype(_dtype(a.dtype)))


@operator("_npi_logspace")
def logspace(cx: Context, a: Attributes) -> Value:
    """Powers of ``base`` with exponents that are equally far apart."""
    pieces = a.num - 1 if a.endpoint else a.num
    a.ignore("stop")  # one number alone is start
    step = (a.stop - a.start) / pieces if pieces > 0 else 0.0
    return cx.const(np.power(a.base, a.start + np.arange(a.num) * step).astype(_dtype(a.dtype)))


# --- windows ---------------------------------------------------------------------------------------------------------


def _window(name: str, formula: Callable[[Array, np.floating[Any]], Array]) -> None:
    @operator(name)
    def window(cx: Context, a: Attributes) -> Value:
        """NumPy's window of M points, in MXNet's float32 arithmetic."""
        dtype = _dtype(a.dtype)
        try:
            count = int(a.M)
        except ValueError:
            raise Unsupported(f"M={a.M} is not a number") from None
        if count <= 0 and not cx.np_shape:
            raise Unsupported(f"M={count} gives nothing")
        if count == 1:
            return cx.const(np.ones(1, dtype))
        if dtype.kind in "iu":  # MXNet computes in the type itself, where a half is 0
            return cx.const(np.zeros(max(count, 0), dtype))
        if dtype == np.float64:
            raise Unsupported("dtype=float64; MXNet computes windows in float32 and its last digits are not defined")
        last = np.float32(max(count - 1, 1))
        return cx.const(formula(np.arange(max(count, 0), dtype=np.float32), last).astype(dtype))


def _terms(place: Array, last: np.floating[Any], *weights: float) -> Array:
    kind = np.float32
    total = np.full(place.shape, kind(weights[0]))
    for i, weight in enumerate(weights[1:], 1):
        total = total + kind(weight) * np.cos(kind(2 * i) * kind(np.pi) * place / last)
    return np.asarray(total, kind)


_window("_npi_hanning", lambda place, last: _terms(place, last, 0.5, -0.5))
_window("_npi_hamming", lambda place, last: _terms(place, last, 0.54, -0.46))
_window("_npi_blackman", lambda place, last: _terms(place, last, 0.42, -0.5, 0.08))


# --- like another tensor ---------------------------------------------------------------------------------------------


@operator("zeros_like")
def zeros_like(cx: Context, a: Attributes, data: Value) -> Value:
    """Zeros in the data's shape and type."""
    return _filled(cx, np.array(0, data.dtype), data.shape, data)


@operator("ones_like")
def ones_like(cx: Context, a: Attributes, data: Value) -> Value:
    """Ones in the data's shape and type."""
    return _filled(cx, np.array(1, data.dtype), data.shape, data)


@operator("_npi_full_like")
def full_like(cx: Context, a: Attributes, data: Value) -> Value:
    """One number in the data's shape, in their type unless another is given."""
    return _filled(cx, _number(a.fill_value, _dtype(a.dtype, data.dtype)), data.shape, data)


@operator("shape_array")
def shape_array(cx: Context, a: Attributes, data: Value) -> Value:
    """The sizes, as int64."""
    return cx.shape(data.shape, data)


@operator("size_array")
def size_array(cx: Context, a: Attributes, data: Value) -> Value:
    """The number of elements, as int64 of shape (1,)."""
    return cx.size(product(data.shape), data)


@operator("_npi_diag_indices_from")
def diag_indices_from(cx: Context, a: Attributes, data: Value) -> Value:
    """The coordinates of the main diagonal of a hypercube, one row for each axis."""
    if data.rank < 2 or any(size != data.shape[0] for size in data.shape):
        raise Unsupported(f"its data have the shape {data.shape}; at least two axes of equal size are needed")
    line = cx.unsqueeze(counted(cx, data, 0), 0)
    return cx.expand(line, (data.rank, data.shape[0]))
