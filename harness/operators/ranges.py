"""Small integers and the range that they stand for, as MXNet's INT8 graphs pass them on.

A tensor of int8 or uint8 comes with two float32 tensors of shape (1,), its least and its largest number. Both types
have 0 at 0: a number x is stored as ``x * steps`` rounded half to even and saturated, where ``steps`` is 127.5 (int8)
or 255.5 (uint8) over max(|least|, |largest|). Rounding is oneDNN's. The ONNX form is QuantizeLinear and
DequantizeLinear; ranges known at compile time stay constants, and so do the scales, for which engines have integer
kernels then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph import TensorType
from .context import Context, Value, static
from .registry import Unsupported

Array = npt.NDArray[Any]

INT8, UINT8, INT32, FLOAT = (np.dtype(kind) for kind in (np.int8, np.uint8, np.int32, np.float32))
STEPS = {INT8: np.float32(127.5), UINT8: np.float32(255.5)}
INT32_STEPS = np.float32(2**31)
_LARGEST_INT32 = np.float32(2**31 - 128)  # the largest float32 that is an int32
_EXACT = 2**24  # float32 adds integers below this without rounding
_NUMPY: dict[str, Callable[..., Array]] = {
    "Mul": np.multiply, "Div": np.divide, "Add": np.add, "Max": np.maximum, "Min": np.minimum, "Abs": np.abs,
    "Neg": np.negative, "Round": np.rint,
}  # fmt: skip


def single(cx: Context, value: float | np.floating[Any]) -> Value:
    """One float32 number as MXNet passes ranges: (1,)."""
    return cx.const(np.array([value], np.float32))


def scalar(cx: Context, op_type: str, *values: Value) -> Value:
    """Arithmetic of ranges in float32, done at compile time where all of them are known."""
    known = [value.const for value in values if value.const is not None]
    if len(known) == len(values):
        with np.errstate(all="ignore"):
            return cx.const(_NUMPY[op_type](*known))
    return cx.op(op_type, *values)


def reach(cx: Context, low: Value, high: Value) -> Value:
    """max(|low|, |high|), (1,)."""
    return scalar(cx, "Max", scalar(cx, "Abs", low), scalar(cx, "Abs", high))


def steps_of(cx: Context, dtype: np.dtype[Any], low: Value, high: Value) -> Value:
    """How many integers stand for 1, (1,)."""
    return scalar(cx, "Div", single(cx, STEPS[dtype]), reach(cx, low, high))


def check_small(x: Value, what: str = "data") -> None:
    """Raises Unsupported unless ``x`` is int8 or uint8."""
    if x.dtype not in STEPS:
        raise Unsupported(f"its {what} are {x.dtype}; int8 and uint8 are supported")


def check_type(x: Value, dtype: np.dtype[np.generic]) -> None:
    if x.dtype != dtype:
        raise Unsupported(f"an input is {x.dtype}; MXNet takes {dtype} there")


def whole(cx: Context, x: Value) -> Value:
    """Small integers as the same numbers in float32."""
    return cx.cast(x, np.float32)


def along_channels(cx: Context, numbers: Value, rank: int) -> Value:
    """One number, or one for each channel, in a shape that broadcasts with data whose axis 1 is the channels'."""
    return numbers if numbers.shape == (1,) else cx.reshape(numbers, (1, *numbers.shape, *(1,) * (rank - 2)))


def real(cx: Context, x: Value, step: Value) -> Value:
    """The float32 numbers that small integers stand for; ``step`` is what 1 stands for, of all or of each channel."""
    return cx.op("DequantizeLinear", x, *_scale(cx, step, x.dtype), type=TensorType(FLOAT, x.shape))


def quantized(cx: Context, y: Value, steps: Value, dtype: np.dtype[Any]) -> Value:
    """float32 numbers as small integers: ``y * steps`` rounded half to even and saturated; steps as in ``real``."""
    step = scalar(cx, "Div", single(cx, 1), steps)
    return cx.op("QuantizeLinear", y, *_scale(cx, step, dtype), type=TensorType(dtype, y.shape))


def _scale(cx: Context, step: Value, dtype: np.dtype[Any]) -> tuple[Value, Value]:
    """ONNX's scale and zero point; axis 1 is its default."""
    shape = () if step.shape == (1,) else tuple(static(size, "the number of channels") for size in step.shape)
    return cx.reshape(step, shape), cx.const(np.zeros(shape, dtype))


def as_int32(cx: Context, y: Value) -> Value:
    """float32 numbers rounded half to even and saturated, as int32."""
    y = cx.op("Round", y, type=y.type)
    y = cx.op("Clip", y, cx.const(-INT32_STEPS), cx.const(_LARGEST_INT32), type=y.type)
    return cx.cast(y, np.int32)


def reinterpreted(cx: Context, x: Value, dtype: np.dtype[Any]) -> Value:
    """The same bytes as the other small type."""
    if x.dtype == dtype:
        return x
    return cx.cast(cx.cast(x, np.int32), dtype)


def product_range(cx: Context, one: tuple[Value, Value], levels: int, other: tuple[Value, Value]) -> list[Value]:
    """The range that int32 products stand for: MXNet counts ``levels`` (127 or 255) and 127 steps here.

    Definition: ``QuantizationRangeForMultiplication`` in MXNet's ``src/operator/quantization/quantization_utils.h``.
    """
    left = scalar(cx, "Div", reach(cx, *one), single(cx, levels))
    right = scalar(cx, "Div", reach(cx, *other), single(cx, 127))
    top = scalar(cx, "Mul", scalar(cx, "Mul", left, right), single(cx, INT32_STEPS))
    return [scalar(cx, "Neg", top), top]


def exact_product(cx: Context, data: Value, weight: Value, apply: Callable[[Value, Value], Value], terms: int) -> Value:
    """A convolution or matrix product of small integers in int32, by float32 arithmetic that does not round.

    Where a sum might reach 2^24, constant weights are taken apart into digits, whose products are joined in int32.

    Args:
        data, weight: int8 or uint8; the first axis of ``weight`` is that of the outputs.
        apply: the product of two float32 values.
        terms: how many products one sum has.

    Raises:
        Unsupported: the sums may be too large, and the weights are not parameters.
    """
    largest = 128 if data.dtype == INT8 else 255
    x = whole(cx, data)

    def product(factor: Value) -> Value:
        y = apply(x, factor)
        return cx.cast(cx.op("Round", y, type=y.type), np.int32)

    if terms * largest * 128 < _EXACT:
        return product(whole(cx, weight) if weight.const is None else cx.const(weight.const, np.float32))
    if weight.const is None:
        raise Unsupported(f"its sums have {terms} terms and may pass 2^24; make its weights parameters")
    digits = weight.const.astype(np.int32)
    for base in (256, 16, 4, 2):
        parts = _digits(digits, base)
        if max(_largest_sum(part) for part in parts) * largest < _EXACT:
            total = product(cx.const(parts[-1], np.float32))
            for part in reversed(parts[:-1]):
                total = cx.op("Mul", total, cx.const(base, np.int32), type=total.type)
                total = cx.op("Add", total, product(cx.const(part, np.float32)), type=total.type)
            return total
    raise Unsupported(f"its sums have {terms} terms; int32 does not hold them")


def _digits(numbers: Array, base: int) -> list[Array]:
    """``numbers`` of 8 bits to a base, the last digit signed."""
    parts, width = [], base
    while width < 256:
        parts.append(numbers % base)
        numbers, width = numbers // base, width * base
    return [*parts, numbers]


def _largest_sum(part: Array) -> int:
    sums = np.abs(part).reshape(len(part), -1).sum(1)
    return int(sums.max(initial=0))
