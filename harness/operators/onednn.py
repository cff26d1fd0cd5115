"""What MXNet's oneDNN backend fuses into one node: convolutions, dense layers and self-attention, in float or INT8.

Such a node carries the float operators it was made of as a subgraph. In float it is that subgraph. In INT8 it takes
int8 or uint8 and, but for dense layers, quantizes its float weights itself, per output channel where the range of the
result is calibrated. The order of the arithmetic is oneDNN's: the integer sum and the integer bias, times a scale,
plus the scaled summand, through the activation, rounded. An activation sees a convolution's result in steps of the
output, and a dense layer's as it is. What is held to what is said in ``quantized``, with one liberty: where the range
of the data is computed as the model runs, MXNet quantizes the weights of a channel whose bias would leave int32 more
coarsely, which moves a result by less than 2e-5 steps for each term of its sum.

Definitions: MXNet's ``src/operator/subgraph/mkldnn``.
"""

from __future__ import annotations

import numpy as np

from ..graph import Node
from .attention import self_scores, self_values
from .context import Context, Value, static
from .convolution import convolved
from .fusion import (
    ACTIVATIONS,
    Apply,
    End,
    Weights,
    applied,
    array_of,
    check_clip,
    kind_of,
    next_activation,
    nodes_of,
    only,
    optional,
    product_of,
    product_with_bias,
    quantize_weights,
    settings_of,
)
from .network import connected
from .quantized import LEVELS, calibrated
from .ranges import (
    INT8,
    UINT8,
    Array,
    along_channels,
    as_int32,
    check_small,
    check_type,
    exact_product,
    product_range,
    quantized,
    real,
    scalar,
    single,
    steps_of,
    whole,
)
from .registry import Unsupported, operator
from .schema import Attributes

_UNSIGNED = ("relu", "sigmoid", "softrelu", "clip")  # what a convolution gives out as uint8
_SIGNED = ("", "tanh", "elu", "gelu")  # what a dense layer gives out as int8
Range = tuple[Value, Value]


# --- convolution ------------------------------------------------------------------------------------------------------


@operator("_sg_mkldnn_conv")
def fused_convolution(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """Convolution, with BatchNorm, an activation, a summand and an activation of the sum, as far as it has them.

    INT8: int8 or uint8 in; out int8 or (after relu, sigmoid, softrelu, clip) uint8 over the calibrated range, else
    int32. Where the summand has the other small type, the result saturates in that type first, as it does in MXNet.
    """
    conv, norm, acts = only(cx, "Convolution"), optional(cx, "BatchNorm", a.with_bn), nodes_of(cx, *ACTIVATIONS)
    act = next_activation(acts, a.with_act or a.with_relu)
    after = next_activation(acts, a.with_postsum_act or a.with_postsum_relu)
    optional(cx, "elemwise_add", a.with_sum)
    known = calibrated(a)
    if not a.quantized:
        check_clip(act, after)
        return [cx.inline(0, inputs)[0]]
    settings, given = settings_of(conv), list(inputs)
    data, weight = given.pop(0), array_of(given.pop(0), "weight")
    check_small(data)
    bias = None if settings.no_bias else array_of(given.pop(0), "bias")
    if norm is not None:
        statistics = [array_of(given.pop(0), what) for what in ("gamma", "beta", "mean", "variance")]
        weight, bias = _folded(settings_of(norm), weight, bias, statistics)
    summand = given.pop(0) if a.with_sum else None
    steps = steps_of(cx, data.dtype, given[0], given[1])
    weights = quantize_weights(weight, bias, steps, known is not None, settings.num_group)
    apply = product_of(conv, lambda attributes, x, w, b: convolved(cx, attributes, x, w, b))
    end = End(act, after, None if summand is None else (summand, given[2], given[3]))
    if known is None:
        return _exact_convolution(cx, data, (given[0], given[1]), weights, bias, apply, end)
    dtype = UINT8 if kind_of(after if a.with_sum else act or after) in _UNSIGNED else INT8
    low, high = single(cx, known[0]), single(cx, known[1])
    wide, out_steps = (1, len(weight), *(1,) * (data.rank - 2)), steps_of(cx, dtype, low, high)
    bias_steps = None if bias is None else weights.integer_bias(cx, bias, steps)
    if summand is None and steps.const is not None:  # what engines have integer kernels for
        shift = None if bias_steps is None else scalar(cx, "Div", bias_steps, weights.product_steps(cx, steps))
        x = real(cx, data, scalar(cx, "Div", single(cx, 1), steps))
        y, factor = product_with_bias(cx, x, weights.real(cx), shift, apply, wide), out_steps
    else:
        shift = None if bias_steps is None else scalar(cx, "Mul", bias_steps, weights.shifts(cx))
        y = product_with_bias(cx, whole(cx, data), weights.shifted(cx), shift, apply, wide)
        factor = scalar(cx, "Div", scalar(cx, "Div", out_steps, steps), cx.const(weights.scales))
        factor = scalar(cx, "Div", factor, weights.shifts(cx))
    return [end.quantize(cx, y, factor, out_steps, dtype), low, high]


def _exact_convolution(
    cx: Context, data: Value, bounds: Range, weights: Weights, bias: Array | None, apply: Apply, end: End
) -> list[Value]:
    steps = steps_of(cx, data.dtype, *bounds)
    terms = int(np.prod(weights.integers.shape[1:]))
    y = exact_product(cx, data, cx.const(weights.integers), lambda x, w: apply(x, w, None), terms)
    if bias is not None:
        whole_bias = along_channels(cx, as_int32(cx, weights.integer_bias(cx, bias, steps)), data.rank)
        y = cx.op("Add", y, whole_bias, type=y.type)
    factor = scalar(cx, "Mul", steps, single(cx, weights.scales[0]))
    low, high = (single(cx, bound) for bound in (weights.least, weights.largest))
    return [end.round(cx, y, factor), *product_range(cx, bounds, LEVELS[data.dtype], (low, high))]


def _folded(a: Attributes, weight: Array, bias: Array | None, statistics: list[Array]) -> tuple[Array, Array]:
    """Weights and bias with BatchNorm in them, in MXNet's arithmetic."""
    if a.axis != 1:
        raise Unsupported(f"axis={a.axis} of its BatchNorm: oneDNN normalizes channels")
    gamma, beta, mean, variance = statistics
    top = np.float32(1) if a.fix_gamma else gamma
    alpha = (top / np.sqrt(variance.astype(np.float64) + a.eps)).astype(np.float32)
    shift = beta - alpha * mean if bias is None else beta + alpha * (bias - mean)
    return weight * alpha.reshape(-1, *(1,) * (weight.ndim - 1)), shift


# --- dense layers -----------------------------------------------------------------------------------------------------


@operator("_sg_mkldnn_fully_connected")
def fused_dense(cx: Context, a: Attributes, *inputs: Value) -> list[Value]:
    """Dense layer with an activation.

    INT8: int8 or uint8 data; weights int8 with a range, or float32 quantized per output channel; out int8 or (after
    any activation but tanh, elu and gelu) uint8 over the calibrated range, else int32, or float32.
    """
    dense, acts = only(cx, "FullyConnected"), nodes_of(cx, *ACTIVATIONS)
    act = next_activation(acts, a.with_eltwise or a.with_relu)
    known, per_channel = calibrated(a), a.channel_wise_quantize is not None  # MXNet only asks whether it is set
    check_clip(act)
    if not a.quantized:
        a.ignore("enable_float_output")
        return [cx.inline(0, inputs)[0]]
    settings, given = settings_of(dense), list(inputs)
    data, weight = given.pop(0), given.pop(0)
    check_small(data)
    bias = None if settings.no_bias else given.pop(0)
    steps = steps_of(cx, data.dtype, given[0], given[1])
    apply = product_of(dense, lambda attributes, x, w, b: connected(cx, attributes, x, w, b))
    wide, x = (settings.num_hidden,), real(cx, data, scalar(cx, "Div", single(cx, 1), steps))
    if per_channel:
        if known is None and not a.enable_float_output:
            raise Unsupported("channel_wise_quantize: MXNet wants a calibrated range or enable_float_output")
        numbers = None if bias is None else array_of(bias, "bias")
        weights = quantize_weights(array_of(weight, "weight"), numbers, steps, True)
        shift = None if numbers is None else weights.integer_bias(cx, numbers, steps)
        shift = None if shift is None else scalar(cx, "Div", shift, weights.product_steps(cx, steps))
        return _dense_result(cx, a, product_with_bias(cx, x, weights.real(cx), shift, apply, wide), act)
    both = scalar(cx, "Mul", steps, steps_of(cx, INT8, given[2], given[3]))
    integers = None if bias is None else _dense_bias(cx, bias, both, given[4:6])
    if known is None and not a.enable_float_output:
        terms = static(weight.shape[-1], "the number of inputs of each row")
        y = exact_product(cx, data, weight, lambda x, w: apply(x, w, None), terms)
        if integers is not None:
            y = cx.op("Add", y, as_int32(cx, integers), type=y.type)
        y = End(None if kind_of(act) == "clip" else act, None, None).round(cx, y, both)
        if kind_of(act) == "clip":
            y = as_int32(cx, applied(cx, act, cx.cast(y, np.float32)))
        return [y, *product_range(cx, (given[0], given[1]), LEVELS[data.dtype], (given[2], given[3]))]
    step = scalar(cx, "Div", single(cx, 1), steps_of(cx, INT8, given[2], given[3]))
    shift = None if integers is None else scalar(cx, "Div", integers, both)
    return _dense_result(cx, a, product_with_bias(cx, x, real(cx, weight, step), shift, apply, wide), act)


def _dense_bias(cx: Context, bias: Value, steps: Value, bounds: list[Value]) -> Value:
    """The bias as whole float32 numbers in steps of the product."""
    check_type(bias, INT8)
    factor = scalar(cx, "Div", steps, steps_of(cx, INT8, *bounds))
    if factor.const is not None and factor.const[0] > 2**23:
        raise Unsupported("its bias is so large beside its data and weights that MXNet changes the weights")
    return scalar(cx, "Round", scalar(cx, "Mul", cx.cast(bias, np.float32), factor))


def _dense_result(cx: Context, a: Attributes, y: Value, act: Node | None) -> list[Value]:
    """What the node gives out, from the exact result."""
    y, known = applied(cx, act, y), calibrated(a)
    if known is None:
        return [y]
    low, high = single(cx, known[0]), single(cx, known[1])
    if a.enable_float_output:  # MXNet then takes float32 for a type of 255.5 steps
        return [cx.op("Mul", y, steps_of(cx, UINT8, low, high), type=y.type)]
    dtype = INT8 if kind_of(act) in _SIGNED else UINT8
    return [quantized(cx, y, steps_of(cx, dtype, low, high), dtype), low, high]


# --- self-attention ---------------------------------------------------------------------------------------------------


@operator("_sg_mkldnn_selfatt_qk")
def fused_attention_scores(cx: Context, a: Attributes, queries_keys_values: Value, *bounds: Value) -> list[Value]:
    """The scores of self-attention, in float; or of int8 as int8 over the calibrated range, or as float32."""
    known = calibrated(a)
    if not a.quantized:
        a.ignore("enable_float_output")
        return [self_scores(cx, a.heads, queries_keys_values)]
    check_type(queries_keys_values, INT8)
    if (known is None) != bool(a.enable_float_output):
        raise Unsupported("MXNet leaves its answer undefined unless it has either a calibrated range or float output")
    step = scalar(cx, "Div", single(cx, 1), steps_of(cx, INT8, *bounds))
    y = self_scores(cx, a.heads, real(cx, queries_keys_values, step))
    if known is None:
        return [y]
    low, high = single(cx, known[0]), single(cx, known[1])
    return [quantized(cx, y, steps_of(cx, INT8, low, high), INT8), low, high]


@operator("_sg_mkldnn_selfatt_valatt")
def fused_attention_values(
    cx: Context, a: Attributes, queries_keys_values: Value, attention: Value, *bounds: Value
) -> list[Value]:
    """The values of self-attention, in float; or of int8 with uint8 attention as int8, int32 or float32."""
    known = calibrated(a)
    if not a.quantized:
        a.ignore("enable_float_output")
        return [self_values(cx, a.heads, queries_keys_values, attention)]
    check_type(queries_keys_values, INT8)
    check_type(attention, UINT8)
    if known is None and not a.enable_float_output:
        terms = static(attention.shape[-1], "the length of the sequence")
        y = exact_product(cx, attention, queries_keys_values, lambda x, w: self_values(cx, a.heads, w, x), terms)
        return [y, *product_range(cx, (bounds[2], bounds[3]), 255, (bounds[0], bounds[1]))]
    steps = steps_of(cx, INT8, *bounds[:2]), steps_of(cx, UINT8, *bounds[2:])
    x, weights = (
        real(cx, value, scalar(cx, "Div", single(cx, 1), step))
        for value, step in zip((queries_keys_values, attention), steps)
    )
    y = self_values(cx, a.heads, x, weights)
    if known is None:
        return [y]
    low, high = single(cx, known[0]), single(cx, known[1])
    if a.enable_float_output:
        return [cx.op("Mul", y, steps_of(cx, UINT8, low, high), type=y.type)]
    return [quantized(cx, y, steps_of(cx, INT8, low, high), INT8), low, high]
