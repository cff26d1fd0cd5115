"""FullyConnected, Flatten and Dropout."""

from __future__ import annotations

from ..dims import product
from ..graph import TensorType
from .context import Context, Value, check_vector, static
from .registry import Unsupported, operator
from .schema import Attributes


@operator("FullyConnected")
def fully_connected(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None = None) -> Value:
    """``data @ weight.T + bias``; weight is (num_hidden, inputs); ``flatten`` joins all axes but the first."""
    if a.no_bias != (bias is None):
        raise Unsupported(f"no_bias={a.no_bias}, and there is {'no' if bias is None else 'a'} bias")
    return connected(cx, a, data, weight, bias)


def connected(cx: Context, a: Attributes, data: Value, weight: Value, bias: Value | None) -> Value:
    """The product that ``a`` describes, whatever it says of the bias."""
    x = flattened(cx, data) if a.flatten else data
    expected = (a.num_hidden, static(x.shape[-1], "the number of inputs of each row"))
    if weight.shape != expected:
        raise Unsupported(f"its weight has the shape {weight.shape}, data and num_hidden ask for {expected}")
    if bias is not None:
        if bias.shape not in ((a.num_hidden,), (a.num_hidden, 1)):  # MXNet takes both
            check_vector(bias, a.num_hidden, "bias")
        bias = cx.reshape(bias, (a.num_hidden,))
    rows = cx.reshape(x, (product(x.shape[:-1]), x.shape[-1]))
    y = cx.op("Gemm", rows, weight, bias, type=TensorType(x.dtype, (rows.shape[0], a.num_hidden)), transB=1)
    return cx.reshape(y, (*x.shape[:-1], a.num_hidden), x)


def flattened(cx: Context, x: Value) -> Value:
    """All axes but the first joined; 1-D data become (n, 1)."""
    if x.rank == 0:
        raise Unsupported("its data have no axes")
    return cx.reshape(x, (x.shape[0], product(x.shape[1:])))


@operator("Flatten")
def flatten(cx: Context, a: Attributes, data: Value) -> Value:
    """All axes but the first joined."""
    return flattened(cx, data)


@operator("Dropout", ignore=("axes", "cudnn_off"))
def dropout(cx: Context, a: Attributes, data: Value) -> Value:
    """The identity, unless it was asked to drop at inference too."""
    if a.mode == "always" and a.p > 0:
        raise Unsupported("mode=always draws random numbers at inference")
    a.ignore("p")
    return data
