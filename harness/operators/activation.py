"""Activation and LeakyReLU."""

from __future__ import annotations

import numpy as np

from ..dims import Size
from .context import Context, Value
from .registry import Unsupported, operator
from .schema import Attributes

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, as MXNet and ONNX have them
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus", "softsign": "Softsign"}


@operator("Activation")
def activation(cx: Context, a: Attributes, data: Value) -> Value:
    """relu, sigmoid, tanh, softrelu (log(1 + exp(x))), softsign (x / (1 + |x|))."""
    return cx.op(_ACTIVATIONS[a.act_type], data, type=data.type)


@operator("LeakyReLU")
def leaky_relu(cx: Context, a: Attributes, data: Value, gamma: Value | None = None) -> Value | list[Value]:
    """leaky, elu, selu, gelu (with erf), prelu (slope ``gamma``), rrelu (the mean slope; and the slopes used)."""
    kind = a.act_type
    if kind != "rrelu":
        a.ignore("lower_bound", "upper_bound")
    if kind in ("leaky", "elu"):
        return cx.op("LeakyRelu" if kind == "leaky" else "Elu", data, type=data.type, alpha=a.slope)
    a.ignore("slope")
    if kind == "rrelu":
        slope = (np.float32(a.lower_bound) + np.float32(a.upper_bound)) / np.float32(2)
        slopes = cx.expand(cx.const(np.array(slope, data.dtype)), data.shape) if data.type.is_static else None
        y = cx.op("LeakyRelu", data, type=data.type, alpha=float(slope))
        return [y] if slopes is None else [y, slopes]
    if kind == "prelu":
        if gamma is None:
            raise Unsupported("act_type=prelu needs a second input, the slope")
        return cx.op("PRelu", data, cx.reshape(gamma, _slope_shape(gamma, data)), type=data.type)
    if kind == "selu":  # written out: TensorRT's parser takes 1.6732 and 1.0507 where they are left out
        return cx.op("Selu", data, type=data.type, alpha=SELU_ALPHA, gamma=SELU_GAMMA)
    return cx.op("Gelu", data, type=data.type)


def _slope_shape(gamma: Value, data: Value) -> tuple[Size, ...]:
    """Where the slope's axes lie among those of the data: on axis 1, else on axis 0, from the last one on."""
    shape: list[Size] = [1] * data.rank
    left = list(gamma.shape)
    for axis in range(min(1, data.rank - 1), -1, -1):
        if left and (left[-1] == data.shape[axis] or left[-1] == 1):
            shape[axis] = left.pop()
    if left:
        raise Unsupported(f"a slope of shape {gamma.shape} does not fit the first two axes of {data.type}")
    return tuple(shape)
