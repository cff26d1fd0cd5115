"""Layers with parameters or state of training: FullyConnected, normalizations, activations, losses, Dropout."""

from __future__ import annotations

import numpy as np

from ..dims import product
from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported, operator
from .schema import Attributes


@operator("FullyConnected")
def fully_connected(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """``data @ weight.T + bias``; weight is (num_hidden, inputs); ``flatten`` joins all axes but the first."""
    if a.no_bias and bias is not None:
        raise Unsupported("no_bias is set, and there is a bias")
    x = flattened(cx, data) if a.flatten else data
    expected = (a.num_hidden, x.shape[-1])
    if weight.shape != expected:
        raise Unsupported(f"its weight has the shape {weight.shape}, data and num_hidden ask for {expected}")
    if x.rank == 2:
        return cx.op("Gemm", x, weight, bias, type=TensorType(x.dtype, (x.shape[0], a.num_hidden)), transB=1)
    rows = cx.reshape(x, (product(x.shape[:-1]), x.shape[-1]))
    y = cx.op("Gemm", rows, weight, bias, type=TensorType(x.dtype, (rows.shape[0], a.num_hidden)), transB=1)
    return cx.reshape(y, (*x.shape[:-1], a.num_hidden)) if x.rank != 2 else y


def flattened(cx: Context, x: Value) -> Value:
    """All axes but the first joined; 1-D data become (n, 1)."""
    if x.rank == 2:
        return x
    return cx.reshape(x, (x.shape[0], product(x.shape[1:])))


@operator("Flatten")
def flatten(cx: Context, a: Attributes, data: Value) -> Value:
    """All axes but the first joined."""
    return flattened(cx, data)


@operator("BatchNorm", "BatchNorm_v1", ignore=("momentum", "cudnn_off", "use_global_stats", "min_calib_range", "max_calib_range"))
def batch_norm(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> list[Value]:
    """Inference form. With ``fix_gamma`` (the default) gamma counts as 1. Outputs: y, mean, 1/sqrt(var + eps)."""
    axis = a.axis if "axis" in a._types else 1
    if not -data.rank <= axis < data.rank:
        raise Unsupported(f"axis={axis} of data with {data.rank} axes")
    axis %= data.rank
    scale = cx.const(np.ones(tuple(static(s, "gamma's shape") for s in gamma.shape), gamma.dtype)) if a.fix_gamma else gamma
    x = data
    order = [0, axis, *(i for i in range(1, data.rank) if i != axis)] if axis else None
    if axis == 0:
        x = cx.unsqueeze(data, 0)
    elif axis != 1:
        assert order is not None
        x = cx.transpose(data, order)
    y = cx.op("BatchNormalization", x, scale, beta, mean, variance, type=x.type, epsilon=a.eps)
    if axis == 0:
        y = cx.squeeze(y, 0)
    elif axis != 1:
        assert order is not None
        y = cx.transpose(y, [order.index(i) for i in range(data.rank)])
    if not a.output_mean_var:
        return [y]
    shifted = cx.op("Add", variance, cx.const(np.array(a.eps, variance.dtype)))
    return [y, mean, cx.op("Reciprocal", cx.op("Sqrt", shifted))]


@operator("Activation")
def activation(cx: Context, a: Attributes, data: Value) -> Value:
    """relu, sigmoid, tanh, softrelu (log(1 + exp(x))), softsign."""
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus", "softsign": "Softsign"}
    return cx.op(kinds[a.act_type], data, type=data.type)


@operator("Dropout", ignore=("p", "axes", "cudnn_off"))
def dropout(cx: Context, a: Attributes, data: Value) -> Value:
    """The identity, unless it was asked to drop at inference too."""
    if a.mode == "always":
        raise Unsupported("mode=always draws random numbers at inference")
    return data
