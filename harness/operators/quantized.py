"""MXNet's INT8 graphs: integers with a range, min and max, that stands for them.

int8 stands for [-T, T] with T = max(|min|, |max|); uint8 for [0, max]. Values
are rounded half to even and saturate, as MXNet's oneDNN kernels do. Where those kernels are the only ones and round
inside, a node is refused: it runs in MXNet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dims import product
from ..graph import TensorType
from .context import Context, Value
from .registry import Unsupported, operator, refuse
from .schema import Attributes

_INT32_STEPS = float(2**31 - 1)
_INT8_STEPS, _UINT8_STEPS = 127.5, 255.5  # of quantize_v2 and dequantize; quantize and requantize count 127 and 255


def _reach(cx: Context, low: Value, high: Value) -> Value:
    """max(|min|, |max|), (1,)."""
    return cx.op("Max", cx.op("Abs", low), cx.op("Abs", high))


def _rounded(cx: Context, x: Value, steps: Value, dtype: type) -> Value:
    """x times steps, rounded half to even, saturated, as small integers."""
    info: np.iinfo[Any] = np.iinfo(dtype)
    y = cx.op("Round", cx.op("Mul", x, steps, type=x.type), type=x.type)
    y = cx.op("Clip", y, cx.const(info.min, np.float32), cx.const(info.max, np.float32), type=x.type)
    return cx.cast(cx.cast(y, np.int32), dtype)


def _single(cx: Context, value: float) -> Value:
    return cx.const(np.array([value], np.float32))


def _check_float(data: Value) -> None:
    if data.dtype != np.float32:
        raise Unsupported(f"its data are {data.dtype}; float32 is supported")


@operator("_contrib_quantize")
def quantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """float32 as int8 or uint8 over a range that is given at run time; the range as it counts."""
    _check_float(data)
    if a.out_type == "uint8":
        raise Unsupported("out_type=uint8: MXNet's kernels differ in their offset; int8 is supported")
    reach = _reach(cx, low, high)
    return [_rounded(cx, data, cx.op("Div", _single(cx, 127), reach), np.int8), cx.op("Neg", reach), reach]


@operator("_contrib_quantize_v2")
def quantize_v2(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """float32 as int8 or uint8, over the calibrated range, or that of the data; the range as it counts."""
    _check_float(data)
    if a.min_calib_range is None or a.max_calib_range is None:
        if a.out_type == "auto":
            a.ignore("min_calib_range", "max_calib_range")
        axes = list(range(data.rank))
        low, high = (cx.reshape(cx.reduce(kind, data, axes), (1,)) for kind in ("ReduceMin", "ReduceMax"))
        known = None
    else:
        known = (a.min_calib_range, a.max_calib_range)
        low, high = _single(cx, known[0]), _single(cx, known[1])
    if a.out_type == "uint8" or (a.out_type == "auto" and known is not None and known[0] >= 0):
        steps = cx.op("Div", _single(cx, _UINT8_STEPS), _reach(cx, low, high))
        return [_rounded(cx, data, steps, np.uint8), low, high]
    if a.out_type == "auto" and known is None:
        raise Unsupported("out_type=auto without a calibrated range: the type depends on the data")
    reach = _reach(cx, low, high)
    return [_rounded(cx, data, cx.op("Div", _single(cx, _INT8_STEPS), reach), np.int8), cx.op("Neg", reach), reach]


@operator("_contrib_dequantize")
def dequantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> Value:
    """int8 or uint8 as the float32 numbers they stand for."""
    if data.dtype not in (np.int8, np.uint8):
        raise Unsupported(f"its data are {data.dtype}; int8 and uint8 are supported")
    steps = _INT8_STEPS if data.dtype == np.int8 else _UINT8_STEPS
    step = cx.op("Div", _reach(cx, low, high), _single(cx, steps))
    return cx.op("Mul", cx.cast(data, np.float32), step, type=TensorType(np.dtype(np.float32), data.shape))


@operator("_contrib_requantize")
def requantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """int32 as int8 or uint8 over the calibrated range."""
    if a.min_calib_range is None or a.max_calib_range is None:
        raise Unsupported("no calibrated range: give min_calib_range and max_calib_range")
    if data.dtype != np.int32:
        raise Unsupported(f"its data are {data.dtype}; int32 is supported")
    unsigned = a.out_type == "uint8" or (a.out_type == "auto" and a.min_calib_range >= 0)
    step = cx.op("Div", _reach(cx, low, high), _single(cx, _INT32_STEPS))
    x = cx.cast(data, np.float32)
    if unsigned:
        top = a.max_calib_range
        steps = cx.op("Mul", step, _single(cx, 255 / top))
        return [_rounded(cx, x, steps, np.uint8), _single(cx, 0), _single(cx, top)]
    top = max(abs(a.min_calib_range), abs(a.max_calib_range))
    return [_rounded(cx, x, cx.op("Mul", step, _single(cx, 127 / top)), np.int8), _single(cx, -top), _single(cx, top)]


@operator("_contrib_quantized_act")
def quantized_act(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """relu of small integers; the range stays."""
    if a.act_type != "relu":
        raise Unsupported(f"act_type={a.act_type}: MXNet quantizes relu alone")
    positive = cx.op(
        "Max", cx.cast(data, np.int32), cx.const(0, np.int32), type=TensorType(np.dtype(np.int32), data.shape)
    )
    return [cx.cast(positive, data.dtype), cx.op("Identity", low), cx.op("Identity", high)]


@operator("_contrib_quantized_flatten")
def quantized_flatten(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """All axes but the first joined; the range stays."""
    shape = (data.shape[0], product(data.shape[1:]))
    return [cx.reshape(data, shape), cx.op("Identity", low), cx.op("Identity", high)]


@operator("_contrib_quantized_embedding", ignore=("sparse_grad", "dtype", "output_dim"))
def quantized_embedding(cx: Context, a: Attributes, data: Value, weight: Value, low: Value, high: Value) -> list[Value]:
    """Rows of a table of small integers; indices out of range take the first or last row."""
    index = cx.cast(data, np.int64)
    index = cx.op(
        "Max", cx.op("Min", index, cx.const(a.input_dim - 1, np.int64)), cx.const(0, np.int64), type=index.type
    )
    return [cx.op("Gather", weight, index, axis=0), cx.op("Identity", low), cx.op("Identity", high)]


@operator("_contrib_quantized_pooling", ignore=("cudnn_off", "p_value", "count_include_pad"))
def quantized_pooling(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """Maximum of small integers over windows; the range stays."""
    if a.pool_type != "max":
        raise Unsupported(f"pool_type={a.pool_type}: oneDNN rounds the mean inside; max is supported")
    if a.layout not in (None, "NCHW") or data.rank != 4:
        raise Unsupported(f"layout={a.layout} with {data.rank} axes: only NCHW is supported")
    x = cx.cast(data, np.float32)
    if a.global_pool:
        a.ignore("kernel", "stride", "pad", "pooling_convention")
        y = cx.op("GlobalMaxPool", x)
    else:
        if a.pooling_convention != "valid":
            raise Unsupported(f"pooling_convention={a.pooling_convention}: valid is supported")
        pad = list(a.pad or (0, 0))
        y = cx.op("MaxPool", x, kernel_shape=list(a.kernel), strides=list(a.stride or (1, 1)), pads=[*pad, *pad])
    return [cx.cast(cx.cast(y, np.int32), data.dtype), cx.op("Identity", low), cx.op("Identity", high)]


refuse(
    "is a oneDNN kernel of MXNet's own INT8 graph, whose rounding has no counterpart; "
    "compile the float model with precision=int8 instead",
    "_contrib_quantize_asym",
    "_contrib_quantized_batch_norm",
    "_contrib_quantized_concat",
    "_contrib_quantized_conv",
    "_contrib_quantized_elemwise_add",
    "_contrib_quantized_elemwise_mul",
    "_contrib_quantized_fully_connected",
    "_contrib_quantized_rnn",
    "_sg_mkldnn_conv",
    "_sg_mkldnn_fully_connected",
    "_sg_mkldnn_selfatt_qk",
    "_sg_mkldnn_selfatt_valatt",
)
refuse("chooses a range for calibration, before a network runs", "_contrib_calibrate_entropy")
