"""Sums, products, extremes, norms and moments over axes; positions of extremes; cumulative sums and differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dims import Shape, is_static, product
from ..graph import TensorType
from .context import Array, Context, Value, static
from .elementwise import BOOL, is_float, isnan, like, pair, select, truth, typed, wide
from .registry import Unsupported, operator
from .schema import Attributes

_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)


# --- axes ------------------------------------------------------------------------------------------------------------


def normal_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Sorted axes from 0; Unsupported if one does not exist or occurs twice."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise Unsupported(f"axis={axis} of data with {rank} axes")
    places = sorted({axis % rank for axis in axes})
    if len(places) != len(axes):
        raise Unsupported(f"axis={tuple(axes)} names an axis twice")
    return places


def _legacy_axes(a: Attributes, x: Value) -> list[int]:
    """None and () mean all axes; ``exclude`` means the others."""
    if not a.axis:
        a.ignore("exclude")
        return list(range(x.rank))
    axes = normal_axes(a.axis, x.rank)
    exclude = "exclude" in a._types and a.exclude
    return [axis for axis in range(x.rank) if axis not in axes] if exclude else axes


def _np_axes(axis: Sequence[int] | None, x: Value) -> list[int]:
    """None means all axes, () none."""
    return list(range(x.rank)) if axis is None else normal_axes(axis, x.rank)


def reduced(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape after a reduction."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def reduce(cx: Context, op_type: str, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """An ONNX reduction over constant axes; none leaves the tensor as it is."""
    if not axes:
        return x
    kind = TensorType(x.dtype, reduced(x.shape, axes, keepdims))
    return cx.op(op_type, x, cx.ints(*axes), type=kind, keepdims=int(keepdims))


def _legacy_shape(cx: Context, x: Value) -> Value:
    """What has no axes left has the shape (1,) in MXNet's first front end."""
    return cx.reshape(x, (1,)) if x.rank == 0 else x


def count(cx: Context, x: Value, axes: Sequence[int], dtype: np.dtype[Any]) -> Value:
    """The number of elements that are reduced, as a tensor without axes or of shape (1,)."""
    sizes = [x.shape[axis] for axis in axes]
    if is_static(sizes):
        return cx.const(np.array(product(sizes)).astype(dtype))
    number = cx.cast(cx.size(product(sizes), x), dtype)
    return cx.squeeze(number, 0)


# --- sums, products, extremes ----------------------------------------------------------------------------------------

Reduction = Callable[[Context, Value, Sequence[int], bool], Value]


def summed(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    return cx.cast(reduce(cx, "ReduceSum", wide(cx, x), axes, keepdims), x.dtype)


def multiplied(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    return cx.cast(reduce(cx, "ReduceProd", wide(cx, x), axes, keepdims), x.dtype)


def _largest(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    return _extreme(cx, "ReduceMax", x, axes, keepdims)


def _smallest(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    return _extreme(cx, "ReduceMin", x, axes, keepdims)


def _extreme(cx: Context, op_type: str, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    if any(isinstance(x.shape[axis], int) and x.shape[axis] == 0 for axis in axes):
        raise Unsupported("the largest or smallest of no elements")
    return cx.cast(reduce(cx, op_type, wide(cx, x), axes, keepdims), x.dtype)


def mean(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """The sum in the type of ``x`` (it wraps around), divided by the count in that type (integers: truncated)."""
    if is_float(x):
        return reduce(cx, "ReduceMean", x, axes, keepdims)
    total = wide(cx, summed(cx, x, axes, keepdims))
    number = count(cx, x, axes, total.dtype)
    if x.dtype.itemsize == 1 and (number.const is None or not 0 < number.const <= np.iinfo(x.dtype).max):
        raise Unsupported(f"the mean of that many elements of {x.dtype}; cast the input to int32")
    return cx.cast(pair(cx, "Div", total, number), x.dtype)


def _without_nan(number: float, then: Reduction) -> Reduction:
    def lower(cx: Context, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
        if is_float(x):
            x = select(cx, isnan(cx, x), like(cx, number, x), x)
        return then(cx, x, axes, keepdims)

    return lower


_LEGACY: dict[str, Reduction] = {
    "sum": summed,
    "prod": multiplied,
    "mean": mean,
    "nansum": _without_nan(0, summed),
    "nanprod": _without_nan(1, multiplied),
    "max": _largest,
    "min": _smallest,
}


def _register_legacy(name: str, formula: Reduction) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """Over ``axis`` (none: all), or with ``exclude`` over the others; a full reduction has the shape (1,)."""
        if data.dtype == BOOL and name not in ("max", "min"):
            raise Unsupported(f"{name} of bool; cast the input to int32")
        return _legacy_shape(cx, formula(cx, data, _legacy_axes(a, data), a.keepdims))


for _name, _formula in _LEGACY.items():
    _register_legacy(_name, _formula)


def _no_initial(a: Attributes) -> None:
    if a.initial is not None:
        raise Unsupported("initial is not supported; MXNet refuses it too")


def _np_dtype(a: Attributes, x: Value) -> np.dtype[Any]:
    """The type asked for; else the data's own, int64 for bool."""
    if a.dtype is not None:
        return np.dtype(a.dtype)
    return _INT64 if x.dtype == BOOL else x.dtype


def _register_np_sum(name: str, formula: Reduction) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """Over ``axis`` (None: all, (): none) in the type ``dtype``."""
        _no_initial(a)
        target = _np_dtype(a, data)
        if target == BOOL or (is_float(data) and target.kind in "iu"):
            raise Unsupported(f"dtype={target.name} of {data.dtype} data; cast the output instead")
        return formula(cx, cx.cast(data, target), _np_axes(a.axis, data), a.keepdims)


_register_np_sum("_np_sum", summed)
_register_np_sum("_np_prod", multiplied)


def _register_np_extreme(name: str, formula: Reduction) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """Over ``axis`` (None: all, (): none)."""
        _no_initial(a)
        return formula(cx, data, _np_axes(a.axis, data), a.keepdims)


_register_np_extreme("_np_max", _largest)
_register_np_extreme("_np_min", _smallest)


@operator("_npi_mean")
def np_mean(cx: Context, a: Attributes, data: Value) -> Value:
    """The mean over ``axis``; integers and bool give float32 unless ``dtype`` says otherwise."""
    _no_initial(a)
    target = np.dtype(a.dtype) if a.dtype else data.dtype if is_float(data) else _FLOAT32
    if target.kind in "iub":
        raise Unsupported(f"dtype={target.name}; cast the output instead")
    return mean(cx, cx.cast(data, target), _np_axes(a.axis, data), a.keepdims)


def _register_np_truth(name: str, op_type: str) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """Whether any, or every, element over ``axis`` differs from 0, as bool."""
        flags = cx.cast(truth(cx, data), np.int32)
        return cx.cast(reduce(cx, op_type, flags, _np_axes(a.axis, data), a.keepdims), BOOL)


_register_np_truth("_np_any", "ReduceMax")
_register_np_truth("_np_all", "ReduceMin")


# --- variance, moments, norms ----------------------------------------------------------------------------------------


def variance(cx: Context, x: Value, axes: Sequence[int], keepdims: bool, ddof: int = 0) -> Value:
    """The mean of the squared distance from the mean, over count - ddof."""
    away = pair(cx, "Sub", x, reduce(cx, "ReduceMean", x, axes, True))
    squares = pair(cx, "Mul", away, away)
    if ddof == 0:
        return reduce(cx, "ReduceMean", squares, axes, keepdims)
    number = pair(cx, "Sub", count(cx, x, axes, x.dtype), like(cx, ddof, x))
    return pair(cx, "Div", reduce(cx, "ReduceSum", squares, axes, keepdims), number)


def _np_variance(cx: Context, a: Attributes, data: Value) -> Value:
    wanted = a.dtype
    target = np.dtype(wanted) if wanted else data.dtype
    if target.kind in "iub":
        raise Unsupported(f"the answer would be truncated to {target.name}; cast the input to float32 or set dtype")
    narrows = is_float(data) and data.dtype.itemsize > target.itemsize  # MXNet rounds the variance, not the data
    x = data if narrows else cx.cast(data, target)
    return cx.cast(variance(cx, x, _np_axes(a.axis, data), a.keepdims, a.ddof), target)


@operator("_npi_var")
def np_var(cx: Context, a: Attributes, data: Value) -> Value:
    """The variance over ``axis``, with ``ddof`` taken from the count."""
    return _np_variance(cx, a, data)


@operator("_npi_std")
def np_std(cx: Context, a: Attributes, data: Value) -> Value:
    """The standard deviation over ``axis``, with ``ddof`` taken from the count."""
    return typed(cx, "Sqrt", _np_variance(cx, a, data))


@operator("moments")
def moments(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """Mean and variance over ``axes``."""
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; cast them to float32")
    axes = normal_axes(a.axes, data.rank) if a.axes else list(range(data.rank))
    results = [mean(cx, data, axes, a.keepdims), variance(cx, data, axes, a.keepdims)]
    return [_legacy_shape(cx, x) for x in results]


@operator("norm")
def norm(cx: Context, a: Attributes, data: Value) -> Value:
    """The sum of absolute values (ord 1), or the root of the sum of squares (ord 2), over ``axis``."""
    if a.ord not in (1, 2):
        raise Unsupported(f"ord={a.ord}; MXNet has 1 and 2")
    if a.out_dtype not in (None, data.dtype.name):
        raise Unsupported(f"out_dtype={a.out_dtype} of {data.dtype}; cast the output instead")
    axes = _legacy_axes(a, data)
    if a.ord == 1 and data.dtype != BOOL:
        return _legacy_shape(cx, summed(cx, typed(cx, "Abs", data), axes, a.keepdims))
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; cast them to float32")
    return _legacy_shape(cx, reduce(cx, "ReduceL2", data, axes, a.keepdims))


@operator("multi_sum_sq", ignore=("num_arrays",))
def multi_sum_sq(cx: Context, a: Attributes, *data: Value) -> Value:
    """For each array the sum of its squares: shape (number of arrays,), float32."""
    if not all(is_float(x) for x in data):
        raise Unsupported("its inputs are not all floats; cast them to float32")
    sums = []
    for x in data:
        y = cx.cast(x, _FLOAT32)
        sums.append(cx.reshape(reduce(cx, "ReduceSumSquare", y, list(range(y.rank)), False), (1,)))
    return cx.concat(sums, 0)


@operator("_npi_average")
def average(cx: Context, a: Attributes, data: Value, weights: Value | None = None) -> list[Value]:
    """The weighted mean over ``axis``, and the sum of the weights; a 1-D weight runs along the one axis."""
    if not is_float(data) or (weights is not None and weights.dtype != data.dtype):
        raise Unsupported("data and weights must be floats of one type; cast them")
    axes = _np_axes(a.axis, data)
    a.ignore("returned")
    if not a.weighted or weights is None:
        return [mean(cx, data, axes, False), count(cx, data, axes, data.dtype)]
    w = weights
    if w.rank != data.rank:
        if len(axes) != 1 or w.rank != 1:
            raise Unsupported(f"weights of shape {w.shape} for data of shape {data.shape}, axis={a.axis}")
        w = cx.reshape(w, tuple(w.shape[0] if axis == axes[0] else 1 for axis in range(data.rank)))
    total = reduce(cx, "ReduceSum", w, axes, False)
    weighted = reduce(cx, "ReduceSum", pair(cx, "Mul", data, w), axes, False)
    answer = pair(cx, "Div", weighted, total)
    if weights.rank != data.rank:
        total = cx.reshape(total, ())
    return [answer, total]


# --- positions -------------------------------------------------------------------------------------------------------


def _position(cx: Context, op_type: str, data: Value, axis: int | None, keepdims: bool) -> Value:
    """The first position of an extreme as int64."""
    if data.dtype == BOOL:
        raise Unsupported("MXNet has no kernel for bool here; cast the input to int32")
    x, rank = data, data.rank
    if axis is None:
        x, axis = cx.reshape(data, (product(data.shape),)), 0
    else:
        (axis,) = normal_axes([axis], rank)
    if isinstance(x.shape[axis], int) and x.shape[axis] == 0:
        raise Unsupported("the position of an extreme among no elements")
    if x.rank > 1:
        kind = TensorType(_INT64, reduced(x.shape, [axis], keepdims))
        return cx.op(op_type, wide(cx, x), type=kind, axis=axis, keepdims=int(keepdims))
    row = cx.unsqueeze(wide(cx, x), 0)  # TensorRT wants two axes
    found = cx.op(op_type, row, type=TensorType(_INT64, (1,)), axis=1, keepdims=0)
    return cx.reshape(found, (1,) * rank if keepdims else ())


def _register_position(name: str, op_type: str, legacy: bool) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """The first position of the extreme over ``axis`` (None: of the flattened data), in the data's type or int64."""
        if not legacy:
            return _position(cx, op_type, data, a.axis, a.keepdims)
        return _legacy_shape(cx, cx.cast(_position(cx, op_type, data, a.axis, a.keepdims), data.dtype))


_register_position("argmax", "ArgMax", True)
_register_position("argmin", "ArgMin", True)
_register_position("_npi_argmax", "ArgMax", False)
_register_position("_npi_argmin", "ArgMin", False)


@operator("argmax_channel")
def argmax_channel(cx: Context, a: Attributes, data: Value) -> Value:
    """The first position of the largest element over axis 1."""
    return cx.cast(_position(cx, "ArgMax", data, 1, False), data.dtype)


# --- along an axis ---------------------------------------------------------------------------------------------------


@operator("_np_cumsum")
def cumsum(cx: Context, a: Attributes, data: Value) -> Value:
    """The cumulative sum along ``axis`` (None: of the flattened data) in the type ``dtype``."""
    target = _np_dtype(a, data)
    if is_float(data) and target.kind in "iu":
        raise Unsupported(f"dtype={target.name} of {data.dtype} data; cast the output instead")
    x = cx.cast(data, target)
    axis = a.axis
    if axis is None:
        x, axis = cx.reshape(x, (product(x.shape),)), 0
    (axis,) = normal_axes([axis], x.rank)
    y = wide(cx, x)
    return cx.cast(cx.op("CumSum", y, cx.const(np.array(axis, np.int64)), type=y.type), target)


def differences(cx: Context, x: Value, axis: int) -> Value:
    """Each element but the first less its predecessor."""
    end = int(np.iinfo(np.int64).max)
    return pair(cx, "Sub", cx.slice(x, [1], [end], [axis]), cx.slice(x, [0], [-1], [axis]))


@operator("_npi_diff")
def diff(cx: Context, a: Attributes, data: Value) -> Value:
    """The n-th differences along ``axis``."""
    if data.dtype == BOOL:
        raise Unsupported("MXNet has no kernel for bool here; cast the input to int32")
    (axis,) = normal_axes([a.axis], data.rank)
    size = static(data.shape[axis], "the size of the axis")
    if not 0 <= a.n < size:
        raise Unsupported(f"n={a.n} differences of {size} elements")
    x = wide(cx, data)
    for _ in range(a.n):
        x = differences(cx, x, axis)
    return cx.cast(x, data.dtype)


@operator("_npi_ediff1d")
def ediff1d(cx: Context, a: Attributes, data: Value, *ends: Value) -> Value:
    """Differences of the flattened data, between what ``to_begin`` and ``to_end`` give."""
    if data.dtype == BOOL:
        raise Unsupported("MXNet has no kernel for bool here; cast the input to int32")
    arrays = list(ends)
    x = wide(cx, data)
    flat = cx.reshape(x, (product(x.shape),))
    if isinstance(flat.shape[0], int) and flat.shape[0] < 1:
        raise Unsupported("differences of no elements")

    def end(given: bool, number: float | None) -> list[Value]:
        if given:
            part = wide(cx, arrays.pop(0))
            return [cx.cast(cx.reshape(part, (product(part.shape),)), x.dtype)]
        return [] if number is None else [cx.const(np.array([number]).astype(data.dtype).astype(x.dtype))]

    begin = end(a.to_begin_arr_given, a.to_begin_scalar)
    close = end(a.to_end_arr_given, a.to_end_scalar)
    return cx.cast(cx.concat([*begin, differences(cx, flat, 0), *close], 0), data.dtype)


@operator("_npi_polyval")
def polyval(cx: Context, a: Attributes, coefficients: Value, x: Value) -> Value:
    """The polynomial with these coefficients, highest power first, at each element (Horner)."""
    if not is_float(x) or coefficients.dtype != x.dtype:
        raise Unsupported(f"inputs of {coefficients.dtype} and {x.dtype}; cast both to float32")
    number = static(coefficients.shape[0], "the number of coefficients")
    if number > 64:
        raise Unsupported(f"a polynomial with {number} coefficients; at most 64 are written out")
    total: Value | None = None
    for position in range(number):
        term = cx.slice(coefficients, [position], [position + 1], [0])
        term = cx.squeeze(term, 0)
        total = term if total is None else pair(cx, "Add", pair(cx, "Mul", total, x), term)
    if total is None:
        raise Unsupported("a polynomial without coefficients")
    return cx.expand(total, x.shape, x)


@operator("softmax_cross_entropy")
def softmax_cross_entropy(cx: Context, a: Attributes, data: Value, label: Value) -> Value:
    """Minus the sum over rows of the log-softmax at the row's label; shape (1,)."""
    if data.rank != 2 or not is_float(data):
        raise Unsupported(f"data of type {data.type}; MXNet takes 2-D floats")
    logs = cx.op("LogSoftmax", data, type=data.type, axis=1)
    places = cx.unsqueeze(cx.cast(label, _INT64), 1)
    chosen = cx.op("GatherElements", logs, places, type=TensorType(data.dtype, places.shape), axis=1)
    return cx.reshape(typed(cx, "Neg", reduce(cx, "ReduceSum", chosen, [0, 1], False)), (1,))


# --- percentiles -----------------------------------------------------------------------------------------------------


@operator("_npi_percentile")
def percentile(cx: Context, a: Attributes, data: Value, q: Value | None = None) -> Value:
    """Percentiles over ``axis``, by interpolation between the two nearest of the sorted elements."""
    percents = _percents(a, q)
    x = data if is_float(data) else cx.cast(data, _FLOAT32)
    axes = _np_axes(a.axis, x)
    rest = [axis for axis in range(x.rank) if axis not in axes]
    number = static(product(x.shape[axis] for axis in axes), "the number of elements of a percentile")
    if not 1 <= number <= 3840:
        raise Unsupported(f"the percentile of {number} elements; 1 to 3840 can be sorted")
    kept = tuple(x.shape[axis] for axis in rest)
    rows = cx.reshape(cx.transpose(x, [*rest, *axes]), (*kept, number))
    sorted_type = TensorType(x.dtype, rows.shape)
    ordered = cx.ops(
        "TopK",
        rows,
        cx.ints(number),
        outputs=2,
        types=[sorted_type, TensorType(_INT64, rows.shape)],
        axis=-1,
        largest=0,
    )[0]
    parts = [_at_percentile(cx, ordered, p, number, a.interpolation) for p in np.atleast_1d(percents)]
    shape = reduced(x.shape, axes, a.keepdims)
    if np.ndim(percents) == 0:
        return cx.reshape(cx.squeeze(parts[0], -1), shape)
    stacked = cx.concat([cx.reshape(part, (1, *shape)) for part in parts], 0)
    return cx.reshape(stacked, (*np.shape(percents), *shape))


def _percents(a: Attributes, q: Value | None) -> Array:
    if q is None:
        if a.q_scalar is None:
            raise Unsupported("neither q nor q_scalar is given")
        percents = np.array(a.q_scalar, np.float64)
    else:
        a.ignore("q_scalar")
        if q.const is None:
            raise Unsupported("q must be a constant or a parameter")
        percents = q.const.astype(np.float64)
    if not np.all((percents >= 0) & (percents <= 100)):
        raise Unsupported("percentiles lie in [0, 100]")
    return percents


def _at_percentile(cx: Context, ordered: Value, percent: float, number: int, interpolation: str) -> Value:
    place = percent * (number - 1) / 100
    low, high = int(np.floor(place)), int(np.ceil(place))
    if interpolation == "lower" or low == high:
        return _at(cx, ordered, low)
    if interpolation == "higher":
        return _at(cx, ordered, high)
    if interpolation == "nearest":
        return _at(cx, ordered, int(np.floor(place + 0.5)))
    share = 0.5 if interpolation == "midpoint" else place - low
    first, second = _at(cx, ordered, low), _at(cx, ordered, high)
    step = pair(cx, "Mul", pair(cx, "Sub", second, first), like(cx, share, ordered))
    return pair(cx, "Add", first, step)


def _at(cx: Context, ordered: Value, place: int) -> Value:
    return cx.slice(ordered, [place], [place + 1], [-1])


# --- densities -------------------------------------------------------------------------------------------------------


def beside(cx: Context, parameter: Value, sample: Value) -> Value:
    """A parameter of a distribution, one for each row of samples."""
    if not is_float(sample) or parameter.dtype != sample.dtype:
        raise Unsupported(f"inputs of {sample.dtype} and {parameter.dtype}; cast all to float32")
    return cx.reshape(parameter, (*parameter.shape, *(1,) * (sample.rank - parameter.rank)))


@operator("_random_pdf_normal")
def pdf_normal(cx: Context, a: Attributes, sample: Value, mu: Value, sigma: Value) -> Value:
    """The density exp(-((x - mu) / sigma)^2 / 2) / (sigma sqrt(2 pi)) at each sample, or its logarithm."""
    spread = beside(cx, sigma, sample)
    z = pair(cx, "Div", pair(cx, "Sub", sample, beside(cx, mu, sample)), spread)
    exponent = pair(cx, "Mul", pair(cx, "Mul", z, z), like(cx, -0.5, sample))
    scale = pair(cx, "Mul", spread, like(cx, float(np.sqrt(2 * np.pi)), sample))
    if a.is_log:
        return pair(cx, "Sub", exponent, typed(cx, "Log", scale))
    return pair(cx, "Div", typed(cx, "Exp", exponent), scale)


@operator("_random_pdf_exponential")
def pdf_exponential(cx: Context, a: Attributes, sample: Value, lam: Value) -> Value:
    """The density lam exp(-lam x) at each sample, or its logarithm."""
    rate = beside(cx, lam, sample)
    exponent = typed(cx, "Neg", pair(cx, "Mul", sample, rate))
    if a.is_log:
        return pair(cx, "Add", exponent, typed(cx, "Log", rate))
    return pair(cx, "Mul", typed(cx, "Exp", exponent), rate)


@operator("_random_pdf_uniform")
def pdf_uniform(cx: Context, a: Attributes, sample: Value, low: Value, high: Value) -> Value:
    """1 / (high - low) at each sample, outside of the interval too, or its logarithm."""
    width = pair(cx, "Sub", beside(cx, high, sample), beside(cx, low, sample))
    density = typed(cx, "Neg", typed(cx, "Log", width)) if a.is_log else typed(cx, "Reciprocal", width)
    return cx.expand(density, sample.shape, sample)
