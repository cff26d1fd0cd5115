"""Softmaxes and the loss layers that end networks: at inference each is its forward function."""

from __future__ import annotations

import numpy as np

from ..dims import Size
from ..graph import TensorType
from .context import Context, Value
from .network import flattened
from .registry import Unsupported, operator
from .schema import Attributes


@operator("softmax")
def softmax(cx: Context, a: Attributes, data: Value, length: Value | None = None) -> Value:
    """Along ``axis``, of ``data / temperature``; with ``use_length`` over the first ``length`` elements, then zeros."""
    axis = _axis(a, data)
    x = _scaled(cx, a, data)
    if not a.use_length:
        return _typed(cx, a, cx.op("Softmax", x, type=x.type, axis=axis))
    if length is None:
        raise Unsupported("use_length is set, and there is no length")
    inside = _inside(cx, data, length, axis)
    masked = cx.op("Where", inside, x, cx.const(np.array(-np.inf, x.dtype)), type=x.type)
    y = cx.op("Softmax", masked, type=x.type, axis=axis)  # NaN where the length is 0; replaced below
    return _typed(cx, a, cx.op("Where", inside, y, cx.const(np.array(0, x.dtype)), type=x.type))


@operator("log_softmax")
def log_softmax(cx: Context, a: Attributes, data: Value) -> Value:
    """The logarithm of the softmax along ``axis`` of ``data / temperature``."""
    x = _scaled(cx, a, data)
    return _typed(cx, a, cx.op("LogSoftmax", x, type=x.type, axis=_axis(a, data)))


@operator("softmin")
def softmin(cx: Context, a: Attributes, data: Value) -> Value:
    """The softmax along ``axis`` of ``-data / temperature``."""
    x = _scaled(cx, a, data)
    return _typed(cx, a, cx.op("Softmax", cx.op("Neg", x, type=x.type), type=x.type, axis=_axis(a, data)))


@operator("SoftmaxActivation")
def softmax_activation(cx: Context, a: Attributes, data: Value) -> Value:
    """mode=channel: along axis 1; mode=instance: along the last axis (which is what MXNet does)."""
    if a.mode == "channel" and data.rank < 3:
        raise Unsupported(f"mode=channel needs 3 axes or more, its data have {data.rank}")
    return cx.op("Softmax", data, type=data.type, axis=1 if a.mode == "channel" else data.rank - 1)


_TRAINING = ("grad_scale", "ignore_label", "use_ignore", "normalization", "out_grad", "smooth_alpha")


@operator("SoftmaxOutput", ignore=_TRAINING)
def softmax_output(cx: Context, a: Attributes, data: Value, label: Value | None = None) -> Value:
    """Over all axes but the first joined; ``multi_output``: along axis 1; ``preserve_shape``: along the last."""
    if a.multi_output:
        if data.rank < 2:
            raise Unsupported("multi_output needs 2 axes or more, its data have 1")
        a.ignore("preserve_shape")
        return cx.op("Softmax", data, type=data.type, axis=1)
    if a.preserve_shape or data.rank == 2:
        return cx.op("Softmax", data, type=data.type, axis=data.rank - 1)
    rows = flattened(cx, data)
    return cx.reshape(cx.op("Softmax", rows, type=rows.type, axis=1), data.shape, data)


@operator("LinearRegressionOutput", "MAERegressionOutput", ignore=("grad_scale",))
def regression_output(cx: Context, a: Attributes, data: Value, label: Value | None = None) -> Value:
    """The data; the label only matters for the gradient."""
    return data


@operator("LogisticRegressionOutput", ignore=("grad_scale",))
def logistic_output(cx: Context, a: Attributes, data: Value, label: Value | None = None) -> Value:
    """The sigmoid of the data; the label only matters for the gradient."""
    return cx.op("Sigmoid", data, type=data.type)


@operator("SVMOutput", ignore=("margin", "regularization_coefficient", "use_linear"))
def svm_output(cx: Context, a: Attributes, data: Value, label: Value | None = None) -> Value:
    """The data; the label only matters for the gradient."""
    return data


@operator("IdentityAttachKLSparseReg", ignore=("sparseness_target", "penalty", "momentum"))
def identity_with_regularization(cx: Context, a: Attributes, data: Value, average: Value | None = None) -> Value:
    """The data; the penalty only matters for the gradient."""
    return data


def _axis(a: Attributes, data: Value) -> int:
    axis: int = a.axis
    if not -data.rank <= axis < data.rank:
        raise Unsupported(f"axis={axis} of data with {data.rank} axes")
    return axis % data.rank


def _typed(cx: Context, a: Attributes, y: Value) -> Value:
    """The result in the type that was asked for; a narrower one is rounded once, at the end."""
    return cx.cast(y, a.dtype) if a.dtype is not None else y


def _scaled(cx: Context, a: Attributes, data: Value) -> Value:
    """The data divided by the temperature, in the wider of the two types."""
    x = cx.cast(data, a.dtype or data.dtype) if _wider(a.dtype, data) else data
    if a.temperature is not None:
        x = cx.op("Div", x, cx.const(np.array(a.temperature, x.dtype)), type=x.type)
    return x


def _wider(dtype: str | None, data: Value) -> bool:
    return dtype is not None and np.dtype(dtype).itemsize > data.dtype.itemsize


def _inside(cx: Context, data: Value, length: Value, axis: int) -> Value:
    """True for the positions along ``axis`` that lie before the length."""
    size = data.shape[axis]
    shape: list[Size] = [1] * data.rank
    shape[axis] = size
    if isinstance(size, int):
        places = cx.const(np.arange(size, dtype=length.dtype).reshape([s if isinstance(s, int) else 1 for s in shape]))
    else:
        zero, one = cx.const(np.array(0, np.int64)), cx.const(np.array(1, np.int64))
        end = cx.squeeze(cx.size(size, data), 0)
        line = cx.op("Range", zero, end, one, type=TensorType(np.dtype(np.int64), (size,)))
        places = cx.cast(cx.unsqueeze(line, *(i for i in range(data.rank) if i != axis)), length.dtype)
    return cx.op("Less", places, cx.unsqueeze(length, axis), type=TensorType(np.dtype(bool), data.shape))
