"""Sampling at computed places: grids, bilinear sampling, correlation, deformable convolution."""

from __future__ import annotations

import numpy as np

from ..dims import ceil_div
from ..graph import TensorType
from .context import Context, Value, check_vector, check_weight, static
from .registry import Unsupported, operator, refuse
from .schema import Attributes


def _number(cx: Context, value: float, like: Value) -> Value:
    return cx.const(np.array(value, like.dtype))


def _affine_grid(cx: Context, theta: Value, size: tuple[int, ...]) -> Value:
    """(B, 2, H, W): x and y in [-1, 1] after the affine maps (B, 6)."""
    height, width = size
    if height < 2 or width < 2:
        raise Unsupported(f"target_shape={size}: MXNet divides by size - 1; 2 and more are supported")
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    base = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    maps = cx.reshape(theta, (theta.shape[0], 2, 3))
    kind = TensorType(theta.dtype, (theta.shape[0], 2, height * width))
    places = cx.op("MatMul", maps, cx.const(base, theta.dtype), type=kind)
    return cx.reshape(places, (theta.shape[0], 2, height, width))


def _sampled(cx: Context, data: Value, grid: Value) -> Value:
    """Bilinear samples of data (B, C, H, W) at grid (B, 2, H', W'), 0 outside; -1 and 1 are the outermost centers."""
    kind = TensorType(data.dtype, (*data.shape[:2], *grid.shape[2:]))
    places = cx.transpose(grid, [0, 2, 3, 1])
    return cx.op("GridSample", data, places, type=kind, mode="linear", padding_mode="zeros", align_corners=1)


@operator("GridGenerator")
def grid_generator(cx: Context, a: Attributes, data: Value) -> Value:
    """A sampling grid (B, 2, H, W) from affine maps (B, 6), or from a flow in pixels (B, 2, H, W)."""
    if a.transform_type == "affine":
        return _affine_grid(cx, data, a.target_shape)
    a.ignore("target_shape")
    height, width = (static(size, "a spatial size (of the flow)") for size in data.shape[2:])
    if height < 2 or width < 2:
        raise Unsupported(f"a flow of {height} x {width}: MXNet divides by size - 1; 2 and more are supported")
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    half = np.array([(width - 1) / 2, (height - 1) / 2]).reshape(2, 1, 1)
    places = cx.op("Add", data, cx.const(np.stack([x, y]), data.dtype), type=data.type)
    return cx.op("Sub", cx.op("Div", places, cx.const(half, data.dtype)), _number(cx, 1, data), type=data.type)


@operator("BilinearSampler", ignore=("cudnn_off",))
def bilinear_sampler(cx: Context, a: Attributes, data: Value, grid: Value) -> Value:
    """Bilinear samples of the data at a grid (B, 2, H, W) of x and y in [-1, 1]; 0 outside."""
    return _sampled(cx, data, grid)


@operator("SpatialTransformer", ignore=("cudnn_off", "sampler_type", "transform_type"))
def spatial_transformer(cx: Context, a: Attributes, data: Value, loc: Value) -> Value:
    """The data sampled through affine maps (B, 6)."""
    return _sampled(cx, data, _affine_grid(cx, loc, a.target_shape))


@operator("Correlation")
def correlation(cx: Context, a: Attributes, data1: Value, data2: Value) -> Value:
    """Mean over channels and window of products (or absolute differences) with each displaced neighbour.

    One row of displacements at a time; a window above 1 x 1 is an average pooling of the result.
    """
    reach, kernel, pad, step = a.max_displacement, a.kernel_size, a.pad_size, a.stride1
    if kernel % 2 == 0:
        raise Unsupported(f"kernel_size={kernel} is not odd")
    batch, channels, *spatial = data1.shape
    height, width = (static(size, "a spatial size (of Correlation's data)") + 2 * pad for size in spatial)
    border = reach + kernel // 2
    rows, cols = (static(ceil_div(size - 2 * border, step), "a size") for size in (height, width))
    if rows < 1 or cols < 1:
        raise Unsupported("the displacements and the kernel leave no place in the padded data")
    radius = reach // a.stride2
    offsets = [k * a.stride2 for k in range(-radius, radius + 1)]
    tall, wide = ((count - 1) * step + kernel for count in (rows, cols))
    first, second = _padded(cx, data1, pad), _padded(cx, data2, pad)
    own = cx.slice(first, [reach, reach], [reach + tall, reach + wide], [2, 3])
    own = cx.unsqueeze(own, 3)
    columns = np.array([np.arange(wide) + reach + offset for offset in offsets])
    parts = []
    for offset in offsets:
        line = cx.slice(second, [reach + offset], [reach + offset + tall], [2])
        kind = TensorType(data1.dtype, (batch, channels, tall, len(offsets), wide))
        near = cx.op("Gather", line, cx.const(columns.astype(np.int64)), axis=3, type=kind)
        pair = cx.op("Mul", own, near, type=kind) if a.is_multiply else cx.op("Abs", cx.op("Sub", own, near, type=kind))
        parts.append(cx.transpose(cx.reduce("ReduceMean", pair, [1]), [0, 2, 1, 3]))
    y = cx.op("Concat", *parts, axis=1, type=TensorType(data1.dtype, (batch, len(offsets) ** 2, tall, wide)))
    if kernel == 1:
        return cx.slice(y, [0, 0], [tall, wide], [2, 3], [step, step]) if step > 1 else y
    kind = TensorType(data1.dtype, (batch, len(offsets) ** 2, rows, cols))
    return cx.op("AveragePool", y, type=kind, kernel_shape=[kernel, kernel], strides=[step, step])


def _padded(cx: Context, x: Value, pad: int) -> Value:
    if not pad:
        return x
    kind = TensorType(x.dtype, (*x.shape[:2], *(size + 2 * pad for size in x.shape[2:])))
    return cx.op("Pad", x, cx.ints(0, 0, pad, pad, 0, 0, pad, pad), type=kind)


@operator("_contrib_ModulatedDeformableConvolution", ignore=("workspace", "im2col_step"))
def modulated_deformable_convolution(
    cx: Context, a: Attributes, data: Value, offset: Value, mask: Value, weight: Value, bias: Value | None = None
) -> Value:
    """Convolution whose samples are moved by offsets and weighted by a mask; cells outside count as 0."""
    return _deformed(cx, a, data, offset, mask, weight, bias)


@operator("_contrib_DeformableConvolution", ignore=("workspace",))
def deformable_convolution(
    cx: Context, a: Attributes, data: Value, offset: Value, weight: Value, bias: Value | None = None
) -> Value:
    """Convolution whose samples are moved by offsets.

    A sample outside [0, size) counts 0, and one between the last cell and the border takes the last cell: the offsets
    are bounded so that ONNX's rule (cells outside are 0) gives the same, and a mask drops those outside.
    """
    kernel, stride, dilate, pad = _window(a)
    height, width = (static(size, "a spatial size (of DeformableConvolution's data)") for size in data.shape[2:])
    batch, groups = offset.shape[0], a.num_deformable_group
    rows, cols = (static(size, "a spatial size (of the offsets)") for size in offset.shape[2:])
    taps = kernel[0] * kernel[1]
    moves = cx.reshape(offset, (batch, groups, taps, 2, rows, cols))
    tap_y, tap_x = (k.reshape(-1) for k in np.meshgrid(*map(np.arange, kernel), indexing="ij"))
    y = tap_y[:, None] * dilate[0] + np.arange(rows) * stride[0] - pad[0]
    x = tap_x[:, None] * dilate[1] + np.arange(cols) * stride[1] - pad[1]
    base = np.stack(np.broadcast_arrays(y[:, :, None], x[:, None, :]), axis=1)[None, None]
    home = cx.const(base, data.dtype)
    sizes = cx.const(np.array([height, width]).reshape(1, 1, 1, 2, 1, 1), data.dtype)
    last = cx.const(np.array([height - 1, width - 1]).reshape(1, 1, 1, 2, 1, 1), data.dtype)
    places = cx.op("Add", moves, home, type=moves.type)
    inside = cx.op("And", cx.op("GreaterOrEqual", places, _number(cx, 0, data)), cx.op("Less", places, sizes))
    mask = cx.reduce("ReduceMin", cx.cast(inside, data.dtype), [3])
    mask = cx.reshape(mask, (batch, groups * taps, rows, cols))
    bounded = cx.op("Min", cx.op("Max", places, _number(cx, 0, data)), last, type=moves.type)
    moved = cx.reshape(cx.op("Sub", bounded, home, type=moves.type), offset.shape)
    return _deformed(cx, a, data, moved, mask, weight, bias)


def _window(a: Attributes) -> list[tuple[int, ...]]:
    if a.layout not in (None, "NCHW") or len(a.kernel) != 2:
        raise Unsupported(
            f"layout={a.layout} with kernel={a.kernel}: only two dimensions, channels first, are supported"
        )
    return [tuple(a.kernel), tuple(a.stride) or (1, 1), tuple(a.dilate) or (1, 1), tuple(a.pad) or (0, 0)]


def _deformed(
    cx: Context, a: Attributes, data: Value, offset: Value, mask: Value, weight: Value, bias: Value | None
) -> Value:
    kernel, stride, dilate, pad = _window(a)
    if a.no_bias and bias is not None:
        raise Unsupported("no_bias is set, and there is a bias")
    check_weight(weight, (a.num_filter, static(data.shape[1], "the number of channels") // a.num_group, *kernel))
    if bias is not None:
        check_vector(bias, a.num_filter, "bias")
    kind = TensorType(data.dtype, (data.shape[0], a.num_filter, *offset.shape[2:]))
    return cx.op(
        "DeformConv", data, weight, offset, bias, mask, type=kind, kernel_shape=list(kernel), strides=list(stride),
        dilations=list(dilate), pads=[*pad, *pad], group=a.num_group, offset_group=a.num_deformable_group,
    )  # fmt: skip


refuse(
    "MXNet 1.9.1 has it on NVIDIA GPUs only, and MXNet there is needed to run it",
    "_contrib_fft",
    "_contrib_ifft",
    "_contrib_count_sketch",
)
refuse("is the likelihood of a point process, which MXNet alone computes", "_contrib_hawkesll")
