"""MXNet's INT8 graphs: the operators of ``mx.contrib.quantization`` that are not fused (those are in ``onednn``).

What is held to what: integers are MXNet's own, as its oneDNN kernels give them with 8-bit dot products that do not
overflow (AVX-512 VNNI and later). They may differ by one step where the exact number lies within a few float32
roundings of the middle between two integers, because the scales are then products of roundings in another order. int32
results are equal, but for those of ``_contrib_quantized_elemwise_add``, which MXNet computes in float32. Where MXNet's
definition is odd (127 steps here and 127.5 there, a bias that is not rescaled), it is followed.
"""

from __future__ import annotations

import math

import numpy as np

from ..graph import TensorType
from .context import Context, Value, static
from .convolution import convolved, pooled
from .joining import joined
from .network import connected, flattened
from .ranges import (
    FLOAT,
    INT8,
    INT32,
    INT32_STEPS,
    STEPS,
    UINT8,
    as_int32,
    check_small,
    exact_product,
    product_range,
    quantized,
    reach,
    real,
    reinterpreted,
    scalar,
    single,
    steps_of,
    whole,
)
from .registry import Unsupported, operator, refuse
from .schema import Attributes

LEVELS = {INT8: 127, UINT8: 255}  # steps as some operators count them


def calibrated(a: Attributes) -> tuple[float, float] | None:
    """The calibrated range of a node, if it has one; one bound alone counts for nothing."""
    low, high = a.min_calib_range, a.max_calib_range
    return None if low is None or high is None else (low, high)


def _out_type(a: Attributes) -> np.dtype[np.generic]:
    """``out_type``; "auto" is uint8 for a calibrated range without negative numbers."""
    if a.out_type == "auto":
        known = calibrated(a)
        return UINT8 if known is not None and known[0] >= 0 else INT8
    return np.dtype(a.out_type)


def _check_float(data: Value) -> None:
    if data.dtype != FLOAT:
        raise Unsupported(f"its data are {data.dtype}; float32 is supported")


def _check_layout(a: Attributes, data: Value) -> None:
    if data.rank not in (4, 5) or a.layout not in (None, {4: "NCHW", 5: "NCDHW"}[data.rank]):
        raise Unsupported(f"layout={a.layout} with {data.rank} axes: MXNet takes NCHW and NCDHW")


def _range_of(cx: Context, data: Value) -> tuple[Value, Value]:
    axes = list(range(data.rank))
    low, high = (cx.reshape(cx.reduce(kind, data, axes), (1,)) for kind in ("ReduceMin", "ReduceMax"))
    return low, high


# --- to integers and back --------------------------------------------------------------------------------------------


@operator("_contrib_quantize")
def quantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """float32 as int8 or uint8 over a range that is an input; 127 and 255 steps. uint8 has 0 at 0 too."""
    _check_float(data)
    dtype = np.dtype(a.out_type)
    top = reach(cx, low, high)
    y = _stretched(cx, data, scalar(cx, "Div", single(cx, LEVELS[dtype]), top), dtype)
    return [y, low, high] if dtype == UINT8 else [y, scalar(cx, "Neg", top), top]


@operator("_contrib_quantize_v2")
def quantize_v2(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """float32 as int8 or uint8, over the calibrated range or that of the data; integers pass as they are."""
    known, dtype = calibrated(a), _out_type(a)
    if data.dtype in STEPS:
        own = float(STEPS[data.dtype])
        low, high = known or ((0.0, own) if data.dtype == UINT8 else (-own, own))
        return [reinterpreted(cx, data, dtype), single(cx, low), single(cx, high)]
    _check_float(data)
    least, largest = _range_of(cx, data) if known is None else (single(cx, known[0]), single(cx, known[1]))
    y = _stretched(cx, data, steps_of(cx, dtype, least, largest), dtype)
    if dtype == UINT8:
        return [y, least, largest]
    top = reach(cx, least, largest)
    return [y, scalar(cx, "Neg", top), top]


def _stretched(cx: Context, data: Value, steps: Value, dtype: np.dtype[np.generic]) -> Value:
    """``data * steps`` as integers, in MXNet's own arithmetic: the end of a range lies in the middle, at 127.5."""
    return quantized(cx, cx.op("Mul", data, steps, type=data.type), single(cx, 1), dtype)


@operator("_contrib_quantize_asym")
def quantize_asym(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """float32 (time, batch, channels) as uint8, ``x * scale + shift``; the scale and the shift."""
    _check_float(data)
    if data.rank != 3:
        raise Unsupported(f"its data have {data.rank} axes; MXNet takes 3")
    known = calibrated(a)
    low, high = _range_of(cx, data) if known is None else (single(cx, known[0]), single(cx, known[1]))
    scale = scalar(cx, "Div", single(cx, 255), scalar(cx, "Add", high, scalar(cx, "Neg", low)))
    shift = scalar(cx, "Add", single(cx, 255), scalar(cx, "Neg", scalar(cx, "Mul", high, scale)))
    y = cx.op("Add", cx.op("Mul", data, scale, type=data.type), shift, type=data.type)
    return [quantized(cx, y, single(cx, 1), UINT8), scale, shift]


@operator("_contrib_dequantize")
def dequantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> Value:
    """int8 or uint8 as the float32 numbers they stand for."""
    check_small(data)
    return real(cx, data, scalar(cx, "Div", reach(cx, low, high), single(cx, STEPS[data.dtype])))


@operator("_contrib_requantize")
def requantize(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """int32 as int8 or uint8 over the calibrated range, or that of the data; 127 and 255 steps."""
    if data.dtype != INT32:
        raise Unsupported(f"its data are {data.dtype}; int32 is supported")
    known, dtype = calibrated(a), _out_type(a)
    step = scalar(cx, "Div", reach(cx, low, high), single(cx, INT32_STEPS))
    x = cx.cast(data, np.float32)
    top = (
        scalar(
            cx, "Div", scalar(cx, "Mul", reach(cx, *_range_of(cx, x)), reach(cx, low, high)), single(cx, INT32_STEPS)
        )
        if known is None
        else single(cx, max(abs(known[0]), abs(known[1])))
    )
    steps = scalar(cx, "Mul", step, scalar(cx, "Div", single(cx, LEVELS[dtype]), top))
    return [quantized(cx, x, steps, dtype), single(cx, 0) if dtype == UINT8 else scalar(cx, "Neg", top), top]


# --- integers to integers, the range stays ----------------------------------------------------------------------------


@operator("_contrib_quantized_act")
def quantized_act(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """relu; the range stays. The result is int8, also of uint8, whose bytes it keeps."""
    check_small(data)
    if a.act_type != "relu":
        raise Unsupported(f"act_type={a.act_type}: MXNet quantizes relu alone")
    if data.dtype == UINT8:
        return [reinterpreted(cx, data, INT8), low, high]
    y = whole(cx, data)
    return [quantized(cx, cx.op("Relu", y, type=y.type), single(cx, 1), INT8), low, high]


@operator("_contrib_quantized_flatten")
def quantized_flatten(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """All axes but the first joined; the range stays."""
    check_small(data)
    return [flattened(cx, data), low, high]


@operator("_contrib_quantized_embedding", ignore=("sparse_grad", "dtype", "output_dim"))
def quantized_embedding(cx: Context, a: Attributes, data: Value, weight: Value, low: Value, high: Value) -> list[Value]:
    """Rows of a table of small integers; indices out of range take the first or last row."""
    index = cx.cast(data, np.int64)
    index = cx.op(
        "Max", cx.op("Min", index, cx.const(a.input_dim - 1, np.int64)), cx.const(0, np.int64), type=index.type
    )
    return [cx.op("Gather", weight, index, axis=0), low, high]


@operator("_contrib_quantized_pooling", ignore=("cudnn_off",))
def quantized_pooling(cx: Context, a: Attributes, data: Value, low: Value, high: Value) -> list[Value]:
    """Maxima, or means rounded half to even; images and volumes, channels first. The range stays.

    With the convention "full" and padding that counts, the mean divides by the whole kernel, as oneDNN does.
    """
    check_small(data)
    if a.pool_type not in ("max", "avg"):
        raise Unsupported(f"pool_type={a.pool_type}: MXNet quantizes max and avg alone")
    _check_layout(a, data)
    y = pooled(cx, a, whole(cx, data), divide_by_kernel=True)
    return [quantized(cx, y, single(cx, 1), data.dtype), low, high]


# --- integers to another range ----------------------------------------------------------------------------------------


@operator("_contrib_quantized_concat")
def quantized_concat(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """Tensors joined along ``dim`` over the range that holds all of theirs and 0; int8 if any of them is."""
    count = a.num_args
    data, bounds = inputs[:count], inputs[count:]
    if len(bounds) != 2 * count:
        raise Unsupported(f"num_args={count} with {len(inputs)} inputs; there must be three times as many")
    for x in data:
        check_small(x)
    if a.dim < 0:
        raise Unsupported(f"dim={a.dim}: MXNet itself ends the process; count from the front")
    dtype = INT8 if any(x.dtype == INT8 for x in data) else UINT8
    least, largest = single(cx, 0), single(cx, 0)
    for low, high in zip(bounds[::2], bounds[1::2]):
        least, largest = scalar(cx, "Min", least, low), scalar(cx, "Max", largest, high)
    steps = steps_of(cx, dtype, least, largest)
    parts = []
    for x, low, high in zip(data, bounds[::2], bounds[1::2]):
        factor = scalar(cx, "Div", steps, steps_of(cx, x.dtype, low, high))
        parts.append(cx.op("Mul", whole(cx, x), factor, type=TensorType(FLOAT, x.shape)))
    return [quantized(cx, joined(cx, parts, a.dim), single(cx, 1), dtype), least, largest]


@operator("_contrib_quantized_elemwise_add")
def quantized_elemwise_add(
    cx: Context, a: Attributes, lhs: Value, rhs: Value, l_low: Value, l_high: Value, r_low: Value, r_high: Value
) -> list[Value]:
    """The sum, over the calibrated range as int8 (uint8 if both are), or as int32 over the sum of both ranges.

    Of two types the uint8 one is rounded and saturated to int8 in the result's steps first, as MXNet does: without
    a calibrated range this saturates every number but 0.
    """
    check_small(lhs)
    check_small(rhs)
    known, types = calibrated(a), (lhs.dtype, rhs.dtype)
    tops = [reach(cx, l_low, l_high), reach(cx, r_low, r_high)]
    if known is not None:
        dtype = UINT8 if types == (UINT8, UINT8) else INT8
        least, largest = single(cx, known[0]), single(cx, known[1])
        steps = steps_of(cx, dtype, least, largest)
        factors = [scalar(cx, "Div", steps, scalar(cx, "Div", single(cx, STEPS[k]), t)) for k, t in zip(types, tops)]
    else:
        dtype = INT32
        largest = scalar(cx, "Add", *tops)
        least = scalar(cx, "Neg", largest)
        factors = [
            scalar(
                cx,
                "Div",
                scalar(cx, "Mul", top, single(cx, INT32_STEPS)),
                scalar(cx, "Mul", largest, single(cx, STEPS[kind])),
            )
            for kind, top in zip(types, tops)
        ]
    terms = []
    for x, factor in zip((lhs, rhs), factors):
        y = cx.op("Mul", whole(cx, x), factor, type=TensorType(FLOAT, x.shape))
        terms.append(whole(cx, quantized(cx, y, single(cx, 1), INT8)) if x.dtype == UINT8 and INT8 in types else y)
    y = cx.op("Add", *terms, type=terms[0].type)
    return [as_int32(cx, y) if dtype == INT32 else quantized(cx, y, single(cx, 1), dtype), least, largest]


@operator("_contrib_quantized_elemwise_mul")
def quantized_elemwise_mul(
    cx: Context, a: Attributes, lhs: Value, rhs: Value, l_low: Value, l_high: Value, r_low: Value, r_high: Value
) -> list[Value]:
    """The product of int8: truncated to int8 over the calibrated range, int32, or float32.

    What leaves int8 wraps round, as it does in MXNet.
    """
    for x in (lhs, rhs):
        if x.dtype != INT8:
            raise Unsupported(f"its inputs are {lhs.dtype} and {rhs.dtype}; MXNet multiplies int8 alone")
    y = cx.op("Mul", whole(cx, lhs), whole(cx, rhs), type=TensorType(FLOAT, lhs.shape))
    known = calibrated(a)
    steps = [steps_of(cx, INT8, l_low, l_high), steps_of(cx, INT8, r_low, r_high)]
    if a.enable_float_output:
        factor = scalar(cx, "Div", scalar(cx, "Div", single(cx, 1), steps[0]), steps[1])
        return [cx.op("Mul", y, factor, type=y.type)]
    if known is None:
        return [cx.cast(y, np.int32), *product_range(cx, (l_low, l_high), 127, (r_low, r_high))]
    least, largest = single(cx, known[0]), single(cx, known[1])
    factor = scalar(cx, "Div", scalar(cx, "Div", steps_of(cx, INT8, least, largest), steps[0]), steps[1])
    y = cx.op("Mul", y, factor, type=y.type)
    return [cx.cast(cx.cast(y, np.int32), np.int8), least, largest]


@operator("_contrib_quantized_batch_norm", ignore=("momentum", "use_global_stats", "fix_gamma", "cudnn_off"))
def quantized_batch_norm(
    cx: Context,
    a: Attributes,
    data: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    variance: Value,
    low: Value,
    high: Value,
) -> list[Value]:
    """BatchNorm of axis 1 over the calibrated range, int8; uint8 is halved to int8 first. gamma always counts.

    oneDNN adds eps twice: to the variance, and to the 1 that is left of it.
    """
    check_small(data)
    a.ignore("output_mean_var")
    known = calibrated(a)
    if known is None:
        raise Unsupported("no calibrated range: MXNet asks for min_calib_range and max_calib_range")
    if data.rank < 2 or a.axis % data.rank != 1:
        raise Unsupported(f"axis={a.axis} of data with {data.rank} axes: MXNet normalizes axis 1")
    x = whole(cx, data)
    if data.dtype == UINT8:
        halved = cx.op("Mul", x, single(cx, STEPS[INT8] / STEPS[UINT8]), type=x.type)
        x = whole(cx, quantized(cx, halved, single(cx, 1), INT8))
    root = cx.op("Sqrt", cx.op("Add", variance, single(cx, a.eps), type=variance.type), type=variance.type)
    scale = cx.op("Div", gamma, root, type=gamma.type)
    shift = cx.op("Sub", beta, cx.op("Mul", mean, scale, type=mean.type), type=beta.type)
    top = single(cx, max(abs(known[0]), abs(known[1])))
    again = single(cx, np.float32(np.sqrt(1 + a.eps)))
    factor = scalar(cx, "Div", reach(cx, low, high), scalar(cx, "Mul", top, again))
    wide = (1, static(gamma.shape[0], "the number of channels"), *(1,) * (data.rank - 2))
    scale = cx.reshape(cx.op("Mul", scale, factor, type=scale.type), wide)
    shift = cx.op("Mul", shift, scalar(cx, "Div", single(cx, STEPS[INT8]), top), type=shift.type)
    y = cx.op("Add", cx.op("Mul", x, scale, type=x.type), cx.reshape(shift, wide), type=x.type)
    return [quantized(cx, y, single(cx, 1), INT8), single(cx, known[0]), single(cx, known[1])]


# --- products ---------------------------------------------------------------------------------------------------------


@operator("_contrib_quantized_conv", ignore=("workspace", "cudnn_tune", "cudnn_off"))
def quantized_conv(cx: Context, a: Attributes, data: Value, weight: Value, *rest: Value) -> list[Value]:
    """Convolution of uint8 with int8 in int32. The bias is added as it is, without regard to its range."""
    if data.dtype != UINT8:
        raise Unsupported(f"its data are {data.dtype}; MXNet convolves uint8 alone")
    if a.num_group != 1:
        raise Unsupported(f"num_group={a.num_group}: MXNet's quantized convolution has no groups")
    _check_layout(a, data)
    bias, bounds = (None, rest) if a.no_bias else (rest[0], rest[1:])
    terms = math.prod(static(size, "the weight's size") for size in weight.shape[1:])
    y = exact_product(cx, data, weight, lambda x, w: convolved(cx, a, x, w, None), terms)
    if bias is not None:
        column = cx.reshape(cx.cast(bias, np.int32), (1, a.num_filter, *(1,) * (data.rank - 2)))
        y = cx.op("Add", y, column, type=y.type)
    return [y, *product_range(cx, (bounds[0], bounds[1]), 127, (bounds[2], bounds[3]))]


@operator("_contrib_quantized_fully_connected")
def quantized_fully_connected(cx: Context, a: Attributes, data: Value, weight: Value, *rest: Value) -> list[Value]:
    """Matrix product of int8 or uint8 with int8 in int32; the bias is rescaled to its steps, and truncated."""
    check_small(data)
    bias, bounds = (None, rest) if a.no_bias else (rest[0], rest[1:])
    terms = static(weight.shape[-1], "the number of inputs of each row")
    y = exact_product(cx, data, weight, lambda x, w: connected(cx, a, x, w, None), terms)
    if bias is not None:
        steps = scalar(cx, "Mul", steps_of(cx, data.dtype, *bounds[:2]), steps_of(cx, INT8, *bounds[2:4]))
        factor = scalar(cx, "Div", steps, steps_of(cx, INT8, *bounds[4:6]))
        scaled = cx.op("Mul", whole(cx, bias), factor, type=TensorType(FLOAT, bias.shape))
        y = cx.op("Add", y, cx.cast(scaled, np.int32), type=y.type)
    return [y, *product_range(cx, (bounds[0], bounds[1]), LEVELS[data.dtype], (bounds[2], bounds[3]))]


refuse(
    "is a oneDNN kernel that quantizes inside, step by step of the sequence; compile the float model",
    "_contrib_quantized_rnn",
)
refuse("chooses a range for calibration, before a network runs", "_contrib_calibrate_entropy")
