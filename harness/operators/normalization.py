"""Normalizations: BatchNorm and its relatives, LayerNorm, InstanceNorm, GroupNorm, LRN, L2Normalization."""

from __future__ import annotations

import numpy as np

from ..dims import product
from .context import Context, Value, check_vector, static
from .registry import Unsupported, operator
from .schema import Attributes

_TRAINING = ("momentum", "cudnn_off", "use_global_stats", "min_calib_range", "max_calib_range")


@operator("BatchNorm_v1", ignore=_TRAINING)
def batch_norm_v1(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> list[Value]:
    """BatchNorm of axis 1, as the first versions had it. Outputs: y, mean, variance."""
    y = _batch_norm(cx, a, data, gamma, beta, mean, variance)
    return [y, mean, variance] if a.output_mean_var else [y]


@operator("BatchNorm", ignore=_TRAINING)
def batch_norm(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> list[Value]:
    """Inference form. With ``fix_gamma`` (the default) gamma counts as 1. Outputs: y, mean, 1/sqrt(var + eps)."""
    y = _batch_norm(cx, a, data, gamma, beta, mean, variance)
    if not a.output_mean_var:
        return [y]
    return [y, mean, cx.op("Reciprocal", cx.op("Sqrt", _shifted(cx, variance, a.eps)))]


@operator("_contrib_BatchNormWithReLU", ignore=_TRAINING)
def batch_norm_with_relu(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> list[Value]:
    """BatchNorm, then relu."""
    y, *statistics = batch_norm(cx, a, data, gamma, beta, mean, variance)
    return [cx.op("Relu", y, type=y.type), *statistics]


@operator("_contrib_SyncBatchNorm", ignore=(*_TRAINING, "ndev", "key"))
def sync_batch_norm(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> Value:
    """BatchNorm over several devices, which at inference is BatchNorm."""
    if a.output_mean_var:
        raise Unsupported("output_mean_var: MXNet leaves those outputs undefined at inference; use BatchNorm")
    return _batch_norm(cx, a, data, gamma, beta, mean, variance)


def _batch_norm(
    cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value, mean: Value, variance: Value
) -> Value:
    axis = _axis(a.axis if "axis" in a._types else 1, data)
    for value, what in ((gamma, "gamma"), (beta, "beta"), (mean, "moving mean"), (variance, "moving variance")):
        check_vector(value, data.shape[axis], what)
    ones = tuple(static(size, "gamma's size") for size in gamma.shape)
    scale = cx.const(np.ones(ones, gamma.dtype)) if a.fix_gamma else gamma
    x = cx.cast(data, gamma.dtype)  # 16-bit data come with float32 parameters, and MXNet computes in float32
    if axis == 0:
        x = cx.unsqueeze(x, 0)
    elif axis > 1:
        x = cx.transpose(x, _to_second(axis, data.rank))
    y = cx.op("BatchNormalization", x, scale, beta, mean, variance, type=x.type, epsilon=a.eps)
    if axis == 0:
        y = cx.squeeze(y, 0)
    elif axis > 1:
        y = cx.transpose(y, [0, *range(2, axis + 1), 1, *range(axis + 1, data.rank)])
    return cx.cast(y, data.dtype)


def _to_second(axis: int, rank: int) -> list[int]:
    return [0, axis, *(i for i in range(1, rank) if i != axis)]


@operator("LayerNorm")
def layer_norm(cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value) -> list[Value]:
    """Along one axis. Outputs: y, mean, sqrt(var + eps), the latter two with that axis kept as 1."""
    axis = _axis(a.axis, data)
    check_vector(gamma, data.shape[axis], "gamma")
    check_vector(beta, data.shape[axis], "beta")
    last = data.rank - 1
    swapped = [i for i in range(data.rank) if i != axis] + [axis]
    x = cx.transpose(data, swapped)
    y = cx.op("LayerNormalization", x, gamma, beta, type=x.type, axis=last, epsilon=a.eps)
    y = cx.transpose(y, [*range(axis), last, *range(axis, last)])
    return [y, *_moments(cx, data, [axis], a.eps)] if a.output_mean_var else [y]


@operator("InstanceNorm")
def instance_norm(cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value) -> Value:
    """Over all axes but the first two; eps defaults to 1e-3."""
    if data.rank < 3:
        raise Unsupported(f"its data have {data.rank} axes; 3 or more are needed")
    check_vector(gamma, data.shape[1], "gamma")
    check_vector(beta, data.shape[1], "beta")
    return cx.op("InstanceNormalization", data, gamma, beta, type=data.type, epsilon=a.eps)


@operator("GroupNorm")
def group_norm(cx: Context, a: Attributes, data: Value, gamma: Value, beta: Value) -> list[Value]:
    """Over each group of channels; gamma and beta are (num_groups,). Outputs: y, mean, sqrt(var + eps)."""
    if data.rank < 3:
        raise Unsupported(f"its data have {data.rank} axes; 3 or more are needed")
    channels, groups = static(data.shape[1], "the number of channels"), a.num_groups
    if groups < 1 or channels % groups:
        raise Unsupported(f"num_groups={groups} with {channels} channels")
    check_vector(gamma, groups, "gamma")
    check_vector(beta, groups, "beta")
    rest = channels // groups * product(data.shape[2:])
    rows = cx.reshape(data, (data.shape[0], groups, rest))
    y = cx.op("InstanceNormalization", rows, gamma, beta, type=rows.type, epsilon=a.eps)
    y = cx.reshape(y, data.shape, data)
    if not a.output_mean_var:
        return [y]
    return [y, *(cx.squeeze(moment, 2) for moment in _moments(cx, rows, [2], a.eps))]


@operator("LRN")
def local_response_norm(cx: Context, a: Attributes, data: Value) -> Value:
    """``x / (knorm + alpha / nsize * sum of squares over nsize channels) ** beta``."""
    if data.rank != 4 or a.nsize % 2 == 0:
        raise Unsupported(f"nsize={a.nsize} over data of {data.rank} axes; MXNet takes an odd window and 4 axes")
    return cx.op("LRN", data, type=data.type, alpha=a.alpha, beta=a.beta, bias=a.knorm, size=a.nsize)


@operator("L2Normalization")
def l2_normalization(cx: Context, a: Attributes, data: Value) -> Value:
    """``x / sqrt(sum(x * x) + eps)`` over all axes but the first (instance), axis 1 (channel), or 2 on (spatial)."""
    if a.mode != "instance" and data.rank < 3:
        raise Unsupported(f"mode={a.mode} needs 3 axes or more, its data have {data.rank}")
    axes = {"instance": range(1, data.rank), "channel": (1,), "spatial": range(2, data.rank)}[a.mode]
    if not axes:
        total = cx.op("Mul", data, data, type=data.type)
    else:
        total = cx.reduce("ReduceSumSquare", data, list(axes), keepdims=True)
    return cx.op("Div", data, cx.op("Sqrt", _shifted(cx, total, a.eps)), type=data.type)


def _moments(cx: Context, x: Value, axes: list[int], eps: float) -> list[Value]:
    """The mean and sqrt(variance + eps) over axes, which are kept as 1."""
    mean = cx.reduce("ReduceMean", x, axes, keepdims=True)
    centred = cx.op("Sub", x, mean, type=x.type)
    variance = cx.reduce("ReduceMean", cx.op("Mul", centred, centred, type=x.type), axes, keepdims=True)
    return [mean, cx.op("Sqrt", _shifted(cx, variance, eps))]


def _shifted(cx: Context, x: Value, eps: float) -> Value:
    return cx.op("Add", x, cx.const(np.array(eps, x.dtype)), type=x.type)


def _axis(axis: int, data: Value) -> int:
    if not -data.rank <= axis < data.rank:
        raise Unsupported(f"axis={axis} of data with {data.rank} axes")
    return axis % data.rank
