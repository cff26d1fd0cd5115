"""Convolution, Deconvolution and Pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dims import Size, ceil_div, is_static
from ..graph import TensorType
from .context import Context, Value, check_vector, check_weight, static
from .registry import Unsupported, operator
from .schema import Attributes

_CHANNELS_LAST = {"NWC": 1, "NHWC": 2, "NDHWC": 3}
_CHANNELS_FIRST = {"NCW": 1, "NCHW": 2, "NCDHW": 3}
_TUNING = ("workspace", "cudnn_tune", "cudnn_off")


@operator("Convolution", "Convolution_v1", ignore=_TUNING)
def convolution(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """1-D to 3-D, grouped, dilated, channels first or last; weights are (O, C/g, ...) or, channels last, (O, ..., C/g)."""
    _check_bias(a, bias)
    return convolved(cx, a, data, weight, bias)


def convolved(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None) -> Value:
    """The convolution that ``a`` describes, whatever it says of the bias."""
    dims = len(a.kernel)
    last = _channels_last(a, data, dims)
    x, w = _first(cx, data, last), _first(cx, weight, last)
    kernel, stride, dilate, pad = _window(a, dims)
    sizes = tuple(_out_size(x.shape[2 + i], kernel[i], stride[i], dilate[i], 2 * pad[i]) for i in range(dims))
    channels = static(x.shape[1], "the number of channels")
    check_weight(w, (a.num_filter, channels // a.num_group, *kernel))
    if bias is not None:
        check_vector(bias, a.num_filter, "bias")
    if any(p > (k - 1) * e for p, k, e in zip(pad, kernel, dilate)):
        x, pad = _bordered(cx, x, pad), (0,) * dims
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


def _bordered(cx: Context, x: Value, pad: Sequence[int]) -> Value:
    """Zeros around the spatial axes, for padding wider than the window: TensorRT lacks kernels for some of that."""
    shape = (*x.shape[:2], *(size + 2 * p for size, p in zip(x.shape[2:], pad)))
    return cx.op("Pad", x, cx.ints(0, 0, *pad, 0, 0, *pad), type=TensorType(x.dtype, shape))


@operator("Deconvolution", ignore=_TUNING)
def deconvolution(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """Transposed convolution; weights are (C, O/g, ...). ``target_shape`` overrides ``pad`` and ``adj``."""
    dims = len(a.kernel)
    last = _channels_last(a, data, dims)
    x, w = _first(cx, data, last), _first(cx, weight, last)
    kernel, stride, dilate, pad = _window(a, dims)
    adj = tuple(a.adj) or (0,) * dims
    _check_bias(a, bias)
    check_weight(w, (static(x.shape[1], "the number of channels"), a.num_filter // a.num_group, *kernel))
    if bias is not None:
        check_vector(bias, a.num_filter, "bias")
    target = tuple(a.target_shape)
    begin, end = list(pad), list(pad)
    full = [(x.shape[2 + i] - 1) * stride[i] + dilate[i] * (kernel[i] - 1) + 1 for i in range(dims)]
    if any(target):
        if len(target) != dims or not all(target):
            raise Unsupported(f"target_shape={target} must name a size for each of {dims} axes")
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


@operator("Pooling", ignore=("cudnn_off",))
def pooling(cx: Context, a: Attributes, data: Value) -> Value:
    """Max, average, sum and Lp pooling over 1 to 3 axes, with the conventions "valid" and "full"."""
    return pooled(cx, a, data)


def pooled(cx: Context, a: Attributes, data: Value, divide_by_kernel: bool = False) -> Value:
    """The pooling that ``a`` describes.

    Args:
        divide_by_kernel: whether cells that the convention "full" adds count in the divisor of a mean, where padding
            does; they do in oneDNN, not in MXNet's own kernel.
    """
    dims = data.rank - 2
    if not 1 <= dims <= 3:
        raise Unsupported(f"its data have {data.rank} axes; 3, 4 or 5 are supported")
    last = _channels_last(a, data, dims)
    x = _first(cx, data, last)
    kind = a.pool_type
    if kind != "lp":
        a.ignore("p_value")
    if kind != "avg":
        a.ignore("count_include_pad")
    if a.global_pool:
        a.ignore("kernel", "stride", "pad", "pooling_convention", "count_include_pad")
        return _back(cx, _global_pool(cx, a, x, kind), last)
    if a.pooling_convention == "same":
        raise Unsupported("pooling_convention=same: MXNet's own shape inference fails with it; use pad")
    geometry = _Pool(cx, x, *_pool_window(a, dims), a.pooling_convention == "full")
    if kind == "max":
        return _back(cx, geometry.max(), last)
    if kind == "lp":
        return _back(cx, geometry.lp(a.p_value), last)
    if kind == "sum":
        return _back(cx, geometry.sum(), last)
    include_pad = a.count_include_pad is not False
    if divide_by_kernel and include_pad and geometry.beyond:
        return _back(cx, geometry.mean(), last)
    return _back(cx, geometry.average(include_pad), last)


@operator("Pooling_v1")
def pooling_v1(cx: Context, a: Attributes, data: Value) -> Value:
    """The pooling of old networks: padding is zeros that count, for maxima and in every divisor; only 2-D."""
    if data.rank != 4:
        raise Unsupported(f"its data have {data.rank} axes; Pooling_v1 takes 4, use Pooling")
    if a.global_pool:
        a.ignore("kernel", "stride", "pad", "pooling_convention")
        return _global_pool(cx, a, data, a.pool_type)
    geometry = _Pool(cx, data, *_pool_window(a, 2), a.pooling_convention == "full")
    if a.pool_type == "max":
        if geometry.may_miss:
            raise Unsupported(
                "pooling_convention=full with a last window that holds no data: MXNet's maximum of it is -inf, engines' is "
                "the smallest number; use a stride up to the kernel's size"
            )
        return geometry.max(pad_with=0, beyond=-np.inf)
    return geometry.sum() if a.pool_type == "sum" else geometry.mean()


def _pool_window(a: Attributes, dims: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    window = tuple(a.kernel), tuple(a.stride) or (1,) * dims, tuple(a.pad) or (0,) * dims
    if any(len(part) != dims for part in window):
        raise Unsupported(f"kernel, stride, pad = {window} do not fit data with {dims} spatial axes")
    return window


def _global_pool(cx: Context, a: Attributes, x: Value, kind: str) -> Value:
    axes = list(range(2, x.rank))
    if kind == "max":
        return cx.op("GlobalMaxPool", x)
    if kind == "avg":
        return cx.op("GlobalAveragePool", x)
    power = a.p_value if kind == "lp" else 1
    if power == 1:  # MXNet takes no absolute values
        return cx.reduce("ReduceSum", x, axes, keepdims=True)
    if power == 2:
        return cx.reduce("ReduceL2", x, axes, keepdims=True)
    return _cube_root(cx, cx.reduce("ReduceSum", _cube(cx, x, power), axes, keepdims=True))


class _Pool:
    """The windows of one pooling: geometry shared by its kinds.

    With the convention "full" the last window may reach past the padded data. ``extra`` is by how much: those cells
    are filled with the kind's neutral element, and never count in an average's divisor.
    """

    def __init__(
        self, cx: Context, x: Value, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], full: bool
    ) -> None:
        self.cx, self.x, self.kernel, self.stride, self.pad = cx, x, kernel, stride, pad
        dims = range(len(pad))
        sizes = [_pooled_size(x.shape[2 + i], kernel[i], stride[i], pad[i], full) for i in dims]
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise Unsupported(f"kernel={tuple(kernel)} is larger than the padded data {x.type}")
        self.type = TensorType(x.dtype, (*x.shape[:2], *sizes))
        self.extra: tuple[Size, ...] = (0,) * len(pad)
        if full:
            self.extra = tuple((sizes[i] - 1) * stride[i] + kernel[i] - (x.shape[2 + i] + 2 * pad[i]) for i in dims)
        self.beyond = any(e != 0 for e in self.extra)
        steps = zip(self.extra, kernel, stride)
        self.may_miss = any(e >= k if isinstance(e, int) else s > k for e, k, s in steps)  # a window lies wholly behind
        self.plain = not self.beyond and all(p < k for p, k in zip(pad, kernel))  # engines want pads below kernels

    def max(self, pad_with: float | None = None, beyond: float | None = None) -> Value:
        """Maxima, at least the smallest finite number; padding takes no part unless it has a value."""
        smallest = float(np.finfo(self.x.dtype).min)
        if self.plain and (pad_with is None or not any(self.pad)):
            return self._pool("MaxPool", self.x, self.pad)
        padded = self._filled(self.x, self.pad, self.pad, smallest if pad_with is None else pad_with)
        reaching = self._filled(padded, [0] * len(self.pad), self.extra, smallest if beyond is None else beyond)
        return self._pool("MaxPool", reaching)

    def average(self, include_pad: bool) -> Value:
        if self.plain:
            return self._pool("AveragePool", self.x, self.pad, count_include_pad=int(include_pad))
        return self.cx.op("Div", self.sum(), self._counts(include_pad), type=self.type)

    def mean(self) -> Value:
        """The sum over the whole kernel's size."""
        return self._mean(self._padded(self.x))

    def sum(self) -> Value:
        return self._total(self._mean(self._padded(self.x)))

    def lp(self, power: int | None) -> Value:
        if power == 1:  # MXNet takes no absolute values
            return self.sum()
        x = self._padded(self.x)
        if power == 2:
            return self._pool("LpPool", x, p=2)
        return _cube_root(self.cx, self._total(self._mean(_cube(self.cx, x, power))))

    def _pool(self, op_type: str, x: Value, pad: Sequence[int] = (), **attributes: int) -> Value:
        return self.cx.op(
            op_type,
            x,
            type=TensorType(x.dtype, (*x.shape[:2], *self.type.shape[2:])),
            kernel_shape=list(self.kernel),
            strides=list(self.stride),
            pads=[*pad, *pad] or None,
            **attributes,
        )

    def _mean(self, x: Value) -> Value:
        return self._pool("AveragePool", x)

    def _total(self, mean: Value) -> Value:
        return self.cx.op("Mul", mean, self.cx.const(np.array(np.prod(self.kernel), mean.dtype)), type=mean.type)

    def _padded(self, x: Value) -> Value:
        """The data padded explicitly, so that every window lies inside."""
        return self._filled(x, self.pad, [p + e for p, e in zip(self.pad, self.extra)], 0)

    def _filled(self, x: Value, before: Sequence[Size], after: Sequence[Size], fill: float) -> Value:
        if all(size == 0 for size in (*before, *after)):
            return x
        first, last = [0, 0, *before], [0, 0, *after]
        shape = tuple(b + s + e for b, s, e in zip(first, x.shape, last))
        pads = self.cx.shape([*first, *last], self.x)
        return self.cx.op("Pad", x, pads, self.cx.const(np.array(fill, x.dtype)), type=TensorType(x.dtype, shape))

    def _counts(self, include_pad: bool) -> Value:
        """How many cells each window averages over.

        A window that holds nothing gives 0 in MXNet. Over volumes it divides nothing by what comes out all the same:
        NaN where the window touches the data, and 0 further out, where its length is negative.
        """
        dims = len(self.pad)
        if not is_static(self.x.shape[2:]):
            counts = self._open_counts(include_pad)
            counts = counts if dims == 3 else self.cx.op("Max", counts, self.cx.const(1, np.int64), type=counts.type)
            return self.cx.cast(counts, self.x.dtype)
        table = np.ones((1, 1), np.float64)
        for i, size in enumerate(self.x.shape[2:]):
            assert isinstance(size, int)
            start = np.arange(static(self.type.shape[2 + i], "a size")) * self.stride[i] - self.pad[i]
            low, high = (start, size + self.pad[i]) if include_pad else (np.maximum(start, 0), size)
            table = table[..., None] * (np.minimum(start + self.kernel[i], high) - low)
        return self.cx.const((table if dims == 3 else np.maximum(table, 1)).astype(self.x.dtype))

    def _open_counts(self, include_pad: bool) -> Value:
        """The same of sizes that vary, as they come out."""
        cx, dims = self.cx, len(self.pad)
        table = cx.const(np.ones((1,) * (dims + 2), np.int64))
        for i in range(dims):
            count = self.type.shape[2 + i]
            line = TensorType(np.dtype(np.int64), (count,))
            zero, one = cx.const(0, np.int64), cx.const(1, np.int64)
            places = cx.op("Range", zero, cx.squeeze(cx.size(count, self.x), 0), one, type=line)
            start = cx.op(
                "Sub", cx.op("Mul", places, cx.ints(self.stride[i]), type=line), cx.ints(self.pad[i]), type=line
            )
            low = start if include_pad else cx.op("Max", start, cx.ints(0), type=line)
            high = cx.size(self.x.shape[2 + i] + (self.pad[i] if include_pad else 0), self.x)
            end = cx.op("Min", cx.op("Add", start, cx.ints(self.kernel[i]), type=line), high, type=line)
            length = cx.unsqueeze(
                cx.op("Sub", end, low, type=line), *(axis for axis in range(dims + 2) if axis != i + 2)
            )
            known = (*table.shape[: i + 2], count, *table.shape[i + 3 :])
            table = cx.op("Mul", table, length, type=TensorType(line.dtype, known))
        return table


def _cube(cx: Context, x: Value, power: int | None) -> Value:
    if power != 3:
        raise Unsupported(f"pool_type=lp with p_value={power}; MXNet takes 1, 2 and 3")
    return cx.op("Mul", x, cx.op("Mul", x, x, type=x.type), type=x.type)


def _cube_root(cx: Context, x: Value) -> Value:
    root = cx.op("Pow", cx.op("Abs", x, type=x.type), cx.const(np.array(1 / 3, x.dtype)), type=x.type)
    return cx.op("Mul", cx.op("Sign", x, type=x.type), root, type=x.type)


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
    """That there is one where the attributes say so."""
    if a.no_bias and bias is not None:
        raise Unsupported("no_bias is set, and there is a bias")
    if not a.no_bias and bias is None:
        raise Unsupported("no_bias is not set, and there is no bias")


def _channels_last(a: Attributes, data: Value, dims: int) -> bool:
    layout = a.layout if "layout" in a._types else None
    if layout is None or layout in _CHANNELS_FIRST or layout in _CHANNELS_LAST:
        wanted = {**_CHANNELS_FIRST, **_CHANNELS_LAST}.get(str(layout), dims)
        if data.rank == dims + 2 == wanted + 2:
            return layout in _CHANNELS_LAST
    raise Unsupported(f"layout={layout} with a kernel of {dims} axes over data of {data.rank} axes")


def _first(cx: Context, x: Value, last: bool) -> Value:
    return cx.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)]) if last else x


def _back(cx: Context, x: Value, last: bool) -> Value:
    return cx.transpose(x, [0, *range(2, x.rank), 1]) if last else x
