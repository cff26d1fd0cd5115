"""Images made larger and smaller: UpSampling, BilinearResize2D, AdaptiveAvgPooling2D."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dims import Size
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes

Array = npt.NDArray[Any]
_INT64 = np.dtype(np.int64)


@operator("UpSampling", ignore=("workspace",))
def up_sampling(cx: Context, a: Attributes, *data: Value) -> Value:
    """nearest: inputs repeated to ``scale`` times the size of the first, joined or summed; bilinear: by a weight."""
    if any(x.rank != 4 for x in data):
        raise Unsupported(f"its inputs have {', '.join(str(x.rank) for x in data)} axes; 4 are needed")
    if a.sample_type == "bilinear":
        a.ignore("multi_input_mode")
        return _by_weight(cx, a, *data)
    a.ignore("num_filter")
    height, width = data[0].shape[2] * a.scale, data[0].shape[3] * a.scale
    parts = [_repeated(cx, x, height, width) for x in data]
    if len(parts) == 1:
        a.ignore("multi_input_mode")
        return parts[0]
    if a.multi_input_mode == "concat":
        return cx.concat(parts, 1)
    total = parts[0]
    for part in parts[1:]:
        total = cx.op("Add", total, part, type=total.type)
    return total


def _repeated(cx: Context, x: Value, height: Size, width: Size) -> Value:
    scale = height // x.shape[2]
    if not isinstance(scale, int) or (scale * x.shape[2], scale * x.shape[3]) != (height, width):
        raise Unsupported(f"its input {x.type} does not reach {height} x {width} by a whole factor")
    if scale == 1:
        return x
    return cx.op(
        "Resize",
        x,
        None,
        cx.const(np.array([1, 1, scale, scale], np.float32)),
        type=TensorType(x.dtype, (*x.shape[:2], height, width)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _by_weight(cx: Context, a: Attributes, *data: Value) -> Value:
    """A transposed convolution, each channel by its own kernel."""
    if len(data) != 2:
        raise Unsupported(f"sample_type=bilinear takes data and a weight, there are {len(data)} inputs")
    x, weight = data
    kernel, pad = 2 * a.scale - a.scale % 2, math.ceil((a.scale - 1) / 2)
    channels = static(x.shape[1], "the number of channels")
    if a.num_filter != channels or weight.shape != (channels, 1, kernel, kernel):
        raise Unsupported(
            f"num_filter={a.num_filter} and a weight of shape {weight.shape} do not fit {channels} channels; "
            f"the weight must be ({channels}, 1, {kernel}, {kernel})"
        )
    return cx.op(
        "ConvTranspose",
        x,
        weight,
        type=TensorType(x.dtype, (x.shape[0], channels, x.shape[2] * a.scale, x.shape[3] * a.scale)),
        kernel_shape=[kernel, kernel],
        strides=[a.scale, a.scale],
        pads=[pad] * 4,
        group=channels,
    )


# mode of BilinearResize2D -> the size of one axis
_SIZES: dict[str, Callable[[Size], Size]] = {
    "to_even_down": lambda size: 2 * (size // 2),
    "to_even_up": lambda size: 2 * ((size + 1) // 2),
    "to_odd_down": lambda size: 2 * ((size - 1) // 2) + 1,
    "to_odd_up": lambda size: 2 * (size // 2) + 1,
}


@operator("_contrib_BilinearResize2D")
def bilinear_resize(cx: Context, a: Attributes, data: Value, like: Value | None = None) -> Value:
    """Linear interpolation to a size that is given, scaled, rounded to even or odd, or another input's."""
    if data.rank != 4:
        raise Unsupported(f"its data have {data.rank} axes; 4 are needed")
    sizes = _resized(a, data, like)
    if any(isinstance(size, int) and size < 1 for size in sizes):
        raise Unsupported(f"the new size {sizes} has no pixels")
    if sizes == data.shape[2:]:
        a.ignore("align_corners")
        return data
    if all(isinstance(size, int) for size in (*data.shape[2:], *sizes)):
        x = cx.cast(data, np.float32) if data.dtype == np.float16 else data
        for axis, size in sorted(
            zip((2, 3), sizes), key=lambda pair: static(pair[1], "") / static(x.shape[pair[0]], "")
        ):
            x = _interpolated(cx, x, axis, static(size, ""), a.align_corners)
        return cx.cast(x, data.dtype)
    target = (*data.shape[:2], *sizes)
    single = not all(isinstance(size, int) and size > 1 for size in sizes)  # one pixel is taken from the corner
    rule = "align_corners" if a.align_corners else "pytorch_half_pixel" if single else "half_pixel"
    sources = [data] if like is None else [data, like]
    return cx.op(
        "Resize",
        data,
        None,
        None,
        cx.shape(target, *sources),
        type=TensorType(data.dtype, target),
        mode="linear",
        coordinate_transformation_mode=rule,
    )


def _interpolated(cx: Context, x: Value, axis: int, count: int, align_corners: bool) -> Value:
    """One axis interpolated to ``count`` places.

    Written out, because engines compute the places in float32 in an order of their own: along an axis of n pixels they
    are off by n roundings, which no rounding of the data explains.
    """
    size = static(x.shape[axis], "")
    if count == size:
        return x
    first, share = _places(size, count, align_corners)
    kind = TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]))

    def weighted(index: Array, weight: Array) -> Value:
        chosen = cx.op("Gather", x, cx.const(index.astype(np.int64)), type=kind, axis=axis)
        shape = (count,) + (1,) * (x.rank - axis - 1)
        return cx.op("Mul", chosen, cx.const(weight.reshape(shape).astype(x.dtype)), type=kind)

    if not share.any():
        return cx.op("Gather", x, cx.const(first.astype(np.int64)), type=kind, axis=axis)
    second = np.minimum(first + 1, size - 1)
    return cx.op("Add", weighted(first, 1 - share), weighted(second, share), type=kind)


def _places(size: int, count: int, align_corners: bool) -> tuple[Array, Array]:
    """For each new pixel the old one before it, and the share of the next one: in MXNet's own arithmetic.

    ``area_pixel_compute_scale`` and ``area_pixel_compute_source_index`` of ``contrib/bilinear_resize-inl.h``: a scale in
    float32; the middle of a pixel in float64, rounded to float32.
    """
    steps = np.arange(count)
    if count == 1:
        scale = np.float32(0)
    elif align_corners:
        scale = np.float32(size - 1) / np.float32(count - 1)
    else:
        scale = np.float32(size) / np.float32(count)
    if align_corners:
        place = scale * steps.astype(np.float32)
    else:
        place = np.maximum((np.float64(scale) * (steps + 0.5) - 0.5).astype(np.float32), np.float32(0))
    first = place.astype(np.int64)
    return first, place.astype(np.float64) - first


def _resized(a: Attributes, data: Value, like: Value | None) -> tuple[Size, ...]:
    height, width = data.shape[2:]
    scales = a.scale_height, a.scale_width
    if a.mode == "like":
        a.ignore("height", "width", "scale_height", "scale_width")
        if like is None:
            raise Unsupported("mode=like needs a second input")
        return like.shape[2:]
    if a.mode in _SIZES:
        a.ignore("height", "width", "scale_height", "scale_width")
        return tuple(_SIZES[a.mode](size) for size in (height, width))
    if a.mode == "odd_scale":
        a.ignore("height", "width")
        return tuple(_odd_scaled(size, _given(scale)) for size, scale in zip((height, width), scales))
    if scales == (None, None):
        return a.height, a.width
    a.ignore("height", "width")
    return tuple(_scaled(size, _given(scale)) for size, scale in zip((height, width), scales))


def _given(scale: float | None) -> float:
    if scale is None:
        raise Unsupported("scale_height and scale_width must both be given")
    return scale


def _scaled(size: Size, scale: float) -> Size:
    """The size times the scale, in float32 and truncated, as MXNet has it."""
    if scale == int(scale):
        return size * int(scale)
    return int(np.float32(static(size, f"a size that is scaled by {scale}")) * np.float32(scale))


def _odd_scaled(size: Size, scale: float) -> Size:
    known = static(size, "a size with mode=odd_scale")
    return _scaled(known, scale) if known % 2 == 0 else _scaled(known - 1, scale) + 1


@operator("_contrib_AdaptiveAvgPooling2D")
def adaptive_average_pooling(cx: Context, a: Attributes, data: Value) -> Value:
    """Averages of the windows floor(i n / k) to ceil((i + 1) n / k) of either axis."""
    if data.rank != 4:
        raise Unsupported(f"its data have {data.rank} axes; 4 are needed")
    wanted = tuple(a.output_size) or (1,)
    if len(wanted) > 2 or min(wanted) < 1:
        raise Unsupported(f"output_size={wanted}; one or two positive numbers are supported")
    rows, columns = wanted if len(wanted) == 2 else wanted * 2
    if (rows, columns) == (1, 1):
        return cx.op("GlobalAveragePool", data)
    height, width = data.shape[2:]
    if isinstance(height, int) and isinstance(width, int) and height % rows == 0 == width % columns:
        window = [height // rows, width // columns]
        return cx.op("AveragePool", data, kernel_shape=window, strides=window)
    across = cx.op("MatMul", data, cx.transpose(_averages(cx, data, 3, columns), [1, 0]))
    return cx.op("MatMul", _averages(cx, data, 2, rows), across)


def _averages(cx: Context, data: Value, axis: int, count: int) -> Value:
    """The matrix (count, size) whose row i averages window i of an axis."""
    size, places = data.shape[axis], np.arange(count)[:, None]
    if isinstance(size, int):
        first, end = places * size // count, -(-(places + 1) * size // count)
        inside = (np.arange(size) >= first) & (np.arange(size) < end)
        return cx.const((inside / (end - first)).astype(data.dtype))
    total, steps = cx.size(size, data), cx.const(np.array(count, _INT64))

    def bound(multiples: Array, rounding: int) -> Value:
        kind = TensorType(_INT64, (count, 1))
        product = cx.op("Mul", cx.const(multiples), total, type=kind)
        return cx.op("Div", cx.op("Add", product, cx.const(np.array(rounding, _INT64)), type=kind), steps, type=kind)

    begin, stop = bound(places, 0), bound(places + 1, count - 1)
    zero, one = cx.const(np.array(0, _INT64)), cx.const(np.array(1, _INT64))
    line = cx.op("Range", zero, cx.squeeze(total, 0), one, type=TensorType(_INT64, (size,)))
    mask = TensorType(np.dtype(bool), (count, size))
    begun = cx.op("GreaterOrEqual", line, begin, type=mask)
    inside_ = cx.op("And", begun, cx.op("Less", line, stop, type=mask), type=mask)
    length = cx.cast(cx.op("Sub", stop, begin, type=begin.type), data.dtype)
    return cx.op("Div", cx.cast(inside_, data.dtype), length, type=TensorType(data.dtype, (count, size)))
