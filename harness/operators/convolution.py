"""Convolution, Deconvolution and Pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dims import Shape, Size, ceil_div
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes

_CHANNELS_LAST = {"NWC": 1, "NHWC": 2, "NDHWC": 3}
_CHANNELS_FIRST = {"NCW": 1, "NCHW": 2, "NCDHW": 3}
_TUNING = ("workspace", "cudnn_tune", "cudnn_off")


@operator("Convolution", "Convolution_v1", ignore=_TUNING)
def convolution(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """1-D to 3-D, grouped, dilated, channels first or last; weights are (O, C/g, ...) or, channels last, (O, ..., C/g)."""
    dims = len(a.kernel)
    last = _channels_last(a, data, dims)
    x, w = _first(cx, data, last), _first(cx, weight, last)
    kernel, stride, dilate, pad = _window(a, dims)
    _check_bias(a, bias)
    sizes = tuple(
        _out_size(x.shape[2 + i], kernel[i], stride[i], dilate[i], 2 * pad[i]) for i in range(dims)
    )
    channels = static(x.shape[1], "the number of channels")
    expected = (a.num_filter, channels // a.num_group, *kernel)
    if w.shape != expected:
        raise Unsupported(f"its weight has the shape {w.shape}, its attributes say {expected}")
    y = cx.op(
        "Conv",
        x,
        w,
        bias,
        type=TensorType(x.dtype, (x.shape[0], a.num_filter, *sizes)),
        kernel_shape=list(kernel),
        strides=list(stride),
        dilations=list(dilate),
        pads=[*pad, *pad],
        group=a.num_group,
    )
    return _back(cx, y, last)


@operator("Deconvolution", ignore=_TUNING)
def deconvolution(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """Transposed convolution; weights are (C, O/g, ...). ``target_shape`` overrides ``pad`` and ``adj``."""
    dims = len(a.kernel)
    last = _channels_last(a, data, dims)
    x, w = _first(cx, data, last), _first(cx, weight, last)
    kernel, stride, dilate, pad = _window(a, dims)
    adj = tuple(a.adj) or (0,) * dims
    _check_bias(a, bias)
    target = tuple(a.target_shape)
    begin, end = list(pad), list(pad)
    full = [
        (x.shape[2 + i] - 1) * stride[i] + dilate[i] * (kernel[i] - 1) + 1 for i in range(dims)
    ]
    if any(target):
        adj = (0,) * dims
        for i in range(dims):
            total = static(full[i], "a spatial size (with target_shape)") - target[i]
            if total < 0:
                raise Unsupported(f"target_shape={target} is larger than the full output {tuple(full)}")
            begin[i], end[i] = total - total // 2, total // 2
    elif any(extra >= step for extra, step in zip(adj, stride)):
        raise Unsupported(f"adj={adj} is not smaller than stride={stride}")
    sizes = tuple(full[i] - begin[i] - end[i] + adj[i] for i in range(dims))
    y = cx.op(
        "ConvTranspose",
        x,
        w,
        bias,
        type=TensorType(x.dtype, (x.shape[0], a.num_filter, *sizes)),
        kernel_shape=list(kernel),
        strides=list(stride),
        dilations=list(dilate),
        pads=[*begin, *end],
        output_padding=list(adj),
        group=a.num_group,
    )
    return _back(cx, y, last)


@operator("Pooling", "Pooling_v1", ignore=("cudnn_off",))
def pooling(cx: Context, a: Attributes, data: Value) -> Value:
    """Max, average, sum and Lp pooling over 1 to 3 axes, with the conventions "valid" and "full"."""
    dims = data.rank - 2
    if not 1 <= dims <= 3:
        raise Unsupported(f"its data have {data.rank} axes; 3, 4 or 5 are supported")
    last = _channels_last(a, data, dims)
    x = _first(cx, data, last)
    kind = a.pool_type
    if a.global_pool:
        a.ignore("kernel", "stride", "pad", "pooling_convention", "count_include_pad")
        return _back(cx, _global_pool(cx, a, x, kind), last)
    if len(a.kernel) != dims:
        raise Unsupported(f"kernel={a.kernel} does not fit data with {dims} spatial axes")
    if a.pooling_convention == "same":
        raise Unsupported("pooling_convention=same: MXNet's own shape inference fails with it")
    kernel, stride, pad = tuple(a.kernel), tuple(a.stride) or (1,) * dims, tuple(a.pad) or (0,) * dims
    full = a.pooling_convention == "full"
    sizes = tuple(_pooled_size(x.shape[2 + i], kernel[i], stride[i], pad[i], full) for i in range(dims))
    geometry = _Pool(cx, x, kernel, stride, pad, sizes, full)
    if kind == "max":
        a.ignore("p_value", "count_include_pad")
        return _back(cx, geometry.max(), last)
    if kind == "lp":
        a.ignore("count_include_pad")
        return _back(cx, geometry.lp(a.p_value), last)
    a.ignore("p_value")
    if kind == "sum":
        a.ignore("count_include_pad")
        return _back(cx, geometry.sum(), last)
    include = a.count_include_pad
    return _back(cx, geometry.average(include_pad=include is None or include), last)


def _global_pool(cx: Context, a: Attributes, x: Value, kind: str) -> Value:
    axes = list(range(2, x.rank))
    if kind == "max":
        return cx.op("GlobalMaxPool", x)
    if kind == "avg":
        return cx.op("GlobalAveragePool", x)
    if kind == "sum":
        return cx.reduce("ReduceSum", x, axes, keepdims=True)
    if a.p_value in (1, 2):
        return cx.reduce(f"ReduceL{a.p_value}", x, axes, keepdims=True)
    raise Unsupported(f"pool_type=lp with p_value={a.p_value}; 1 and 2 are supported")


class _Pool:
    """The windows of one pooling: geometry shared by its kinds.

    With the convention "full" the last window may reach past the padded data. ``extra`` is by how much: those cells
    are filled with the kind's neutral element, and never count in an average's divisor.
    """

    def __init__(
        self,
        cx: Context,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int],
        sizes: Shape,
        full: bool,
    ) -> None:
        self.cx, self.x, self.kernel, self.stride, self.pad = cx, x, kernel, stride, pad
        self.type = TensorType(x.dtype, (*x.shape[:2], *sizes))
        self.sizes = sizes
        self.full = full
        self.extra: tuple[Size, ...] = (0,) * len(pad)
        if full:
            reach = [(sizes[i] - 1) * stride[i] + kernel[i] for i in range(len(pad))]
            padded = [x.shape[2 + i] + 2 * pad[i] for i in range(len(pad))]
            self.extra = tuple(r - p for r, p in zip(reach, padded))
        self.beyond = full and any(not isinstance(e, int) or e > 0 for e in self.extra)

    def max(self) -> Value:
        x, pads = self._padded(np.finfo(self.x.dtype).min) if self.beyond else (self.x, [*self.pad, *self.pad])
        return self._pool("MaxPool", x, pads)

    def average(self, include_pad: bool) -> Value:
        if not self.beyond:
            pads = [*self.pad, *self.pad]
            return self._pool("AveragePool", self.x, pads, count_include_pad=int(include_pad))
        total = self.sum()
        return self.cx.op("Div", total, self._counts(include_pad), type=self.type)

    def sum(self) -> Value:
        x, pads = self._padded(0)
        mean = self._pool("AveragePool", x, pads, count_include_pad=1)
        return self.cx.op("Mul", mean, self.cx.const(np.prod(self.kernel), self.x.dtype), type=self.type)

    def lp(self, p: int | None) -> Value:
        if p not in (1, 2):
            raise Unsupported(f"pool_type=lp with p_value={p}; 1 and 2 are supported")
        x, pads = self._padded(0)
        return self._pool("LpPool", x, pads, p=p)

    def _pool(self, op_type: str, x: Value, pads: Sequence[int], **attributes: int) -> Value:
        return self.cx.op(
            op_type, x, type=self.type, kernel_shape=list(self.kernel), strides=list(self.stride), pads=list(pads),
            **attributes,
        )  # fmt: skip

    def _padded(self, fill: float) -> tuple[Value, list[int]]:
        """The data padded explicitly, so that every window lies inside; and the pads that are left (none)."""
        before = [0, 0, *self.pad]
        after: list[Size] = [0, 0, *(p + _positive(e) for p, e in zip(self.pad, self.extra))]
        if not any(before) and all(size == 0 for size in after):
            return self.x, [0] * 2 * len(self.pad)
        shape = tuple(b + s + e for b, s, e in zip(before, self.x.shape, after))
        pads = self.cx.shape([*before, *after], self.x)
        value = self.cx.const(np.array(fill, self.x.dtype))
        return self.cx.op("Pad", self.x, pads, value, type=TensorType(self.x.dtype, shape)), [0] * 2 * len(self.pad)

    def _counts(self, include_pad: bool) -> Value:
        """How many cells each window averages over, computed from the sizes; at least 1 (an empty window gives 0)."""
        spatial = [static(size, "a spatial size (average pooling that rounds up)") for size in self.x.shape[2:]]
        counts = np.ones((1, 1), np.float64)
        for i, size in enumerate(spatial):
            start = np.arange(static(self.sizes[i], "a size")) * self.stride[i] - self.pad[i]
            low, high = (start, size + self.pad[i]) if include_pad else (np.maximum(start, 0), size)
            length = np.minimum(start + self.kernel[i], high) - low
            counts = counts[..., None] * length
        return self.cx.const(np.maximum(counts, 1).astype(self.x.dtype))


def _positive(size: Size) -> Size:
    return max(size, 0) if isinstance(size, int) else size


def _out_size(size: Size, kernel: int, stride: int, dilate: int, pads: int) -> Size:
    return (size + (pads - dilate * (kernel - 1) - 1)) // stride + 1


def _pooled_size(size: Size, kernel: int, stride: int, pad: int, full: bool) -> Size:
    span = size + (2 * pad - kernel)
    return (ceil_div(span, stride) if full else span // stride) + 1


def _window(a: Attributes, dims: int) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, dilation and padding, each with one number per spatial axis."""
    ones, zeros = (1,) * dims, (0,) * dims
    window = tuple(a.kernel), tuple(a.stride) or ones, tuple(a.dilate) or ones, tuple(a.pad) or zeros
    if any(len(part) != dims for part in window):
        raise Unsupported(f"kernel, stride, dilate, pad = {window} differ in length")
    return window


def _check_bias(a: Attributes, bias: Value | None) -> None:
    if a.no_bias and bias is not None:
        raise Unsupported("no_bias is set, and there is a bias")


def _channels_last(a: Attributes, data: Value, dims: int) -> bool:
    layout = a.layout if "layout" in a._types else None
    if layout is None or layout in _CHANNELS_FIRST or layout in _CHANNELS_LAST:
        wanted = _CHANNELS_FIRST.get(layout) or _CHANNELS_LAST.get(layout) or dims
        if data.rank == dims + 2 == wanted + 2:
            return layout in _CHANNELS_LAST
    raise Unsupported(f"layout={layout} with a kernel of {dims} axes over data of {data.rank} axes")


def _first(cx: Context, x: Value, last: bool) -> Value:
    return cx.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)]) if last else x


def _back(cx: Context, x: Value, last: bool) -> Value:
    return cx.transpose(x, [0, *range(2, x.rank), 1]) if last else x
