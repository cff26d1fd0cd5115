"""Elementwise arithmetic of one tensor, of two of equal shapes, and of two that broadcast.

MXNet computes integers in C: math on them goes through float32 and is truncated, sums of int8 and uint8 wrap around.
ONNX and the engines lack most integer kernels below 32 bits, so those are widened to int32, which is exact, and cast
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dims import Shape, Size
from ..graph import TensorType
from .context import Context, Value
from .registry import Unsupported, operator
from .schema import Attributes, schemas

Unary = Callable[[Context, Value], Value]
Binary = Callable[[Context, Value, Value], Value]
BOOL = np.dtype(bool)
_SMALL = (np.dtype(np.int8), np.dtype(np.uint8), BOOL)
_FLOATS = [np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)]


# --- helpers shared by the families of elementwise operators ---------------------------------------------------------


def is_float(x: Value) -> bool:
    return x.dtype.kind not in "iub"


def typed(cx: Context, op_type: str, x: Value, *others: Value) -> Value:
    """An ONNX node whose output has the type and shape of its first input."""
    return cx.op(op_type, x, *others, type=x.type)


def like(cx: Context, number: float, x: Value) -> Value:
    """A scalar constant of the type of ``x``."""
    return cx.const(np.array(number, x.dtype))


def wide(cx: Context, x: Value) -> Value:
    """int8, uint8 and bool as int32; other types as they are."""
    return cx.cast(x, np.int32) if x.dtype in _SMALL else x


def broadcast_shape(a: Shape, b: Shape) -> Shape | None:
    """The shape of two tensors that broadcast, or None if symbolic sizes leave it open."""
    if len(a) < len(b):
        a, b = b, a
    b = (1,) * (len(a) - len(b)) + tuple(b)
    sizes: list[Size] = []
    for x, y in zip(a, b, strict=True):
        if x == y or (isinstance(y, int) and y == 1):
            sizes.append(x)
        elif isinstance(x, int) and x == 1:
            sizes.append(y)
        elif isinstance(x, int) and isinstance(y, int):
            raise Unsupported(f"the shapes {a} and {b} do not broadcast")
        else:
            return None
    return tuple(sizes)


def pair(cx: Context, op_type: str, x: Value, y: Value, dtype: npt.DTypeLike | None = None) -> Value:
    """An ONNX node of two tensors that broadcast."""
    shape = broadcast_shape(x.shape, y.shape)
    kind = TensorType(np.dtype(dtype or x.dtype), shape) if shape is not None else None
    return cx.op(op_type, x, y, type=kind)


def select(cx: Context, condition: Value, x: Value, y: Value) -> Value:
    """``x`` where the condition holds, else ``y``."""
    partial = broadcast_shape(x.shape, y.shape)
    shape = broadcast_shape(condition.shape, partial) if partial is not None else None
    kind = TensorType(wide(cx, x).dtype, shape) if shape is not None else None
    return cx.cast(cx.op("Where", condition, wide(cx, x), wide(cx, y), type=kind), x.dtype)


def compare(cx: Context, op_type: str, x: Value, y: Value) -> Value:
    """A comparison as bool; ``op_type`` may be NotEqual."""
    if op_type == "NotEqual":
        return negated(cx, compare(cx, "Equal", x, y))
    return pair(cx, op_type, wide(cx, x), wide(cx, y), bool)


def negated(cx: Context, x: Value) -> Value:
    return cx.op("Not", x, type=x.type)


def truth(cx: Context, x: Value) -> Value:
    """Whether elements differ from 0 (NaN does)."""
    if x.const is not None:
        return cx.const(x.const != 0)
    return x if x.dtype == BOOL else compare(cx, "NotEqual", x, like(cx, 0, x))


def where_constant(cx: Context, condition: Value, number: float, x: Value) -> Value:
    return select(cx, condition, like(cx, number, x), x)


def isnan(cx: Context, x: Value) -> Value:
    return cx.op("IsNaN", x, type=TensorType(BOOL, x.shape))


def isinf(cx: Context, x: Value, negative: bool = True, positive: bool = True) -> Value:
    kind = TensorType(BOOL, x.shape)
    return cx.op("IsInf", x, type=kind, detect_negative=int(negative), detect_positive=int(positive))


def has_sign(cx: Context, x: Value) -> Value:
    """Whether the sign bit of a float is set, that of -0 included (1/-0 is -inf)."""
    zero = like(cx, 0, x)
    at_zero = typed(cx, "Reciprocal", x)
    return compare(cx, "Less", select(cx, compare(cx, "Equal", x, zero), at_zero, x), zero)


def through_float(cx: Context, x: Value, formula: Callable[[Value], Value]) -> Value:
    """Math on integers as MXNet does it: in float32, truncated."""
    return cx.cast(formula(cx.cast(x, np.float32)), x.dtype)


# --- one tensor ------------------------------------------------------------------------------------------------------


def _native(op_type: str) -> Unary:
    return lambda cx, x: typed(cx, op_type, x)


def _scaled(op_type: str, factor: float) -> Unary:
    return lambda cx, x: pair(cx, "Mul", typed(cx, op_type, x), like(cx, factor, x))


def _times(factor: float) -> Unary:
    return lambda cx, x: pair(cx, "Mul", x, like(cx, factor, x))


def _expm1(cx: Context, x: Value) -> Value:
    """exp(x) - 1 = tanh(x / 2) * (exp(x) + 1), which does not cancel near 0."""
    half = typed(cx, "Tanh", pair(cx, "Mul", x, like(cx, 0.5, x)))
    return pair(cx, "Mul", half, pair(cx, "Add", typed(cx, "Exp", x), like(cx, 1, x)))


def _log1p(cx: Context, x: Value) -> Value:
    """log(u) * x / (u - 1) with u = 1 + x (Kahan; Goldberg 1991, theorem 4), and x where u is 1."""
    one, largest = like(cx, 1, x), like(cx, float(np.finfo(x.dtype).max), x)
    u = pair(cx, "Add", x, one)
    d = pair(cx, "Sub", u, one)
    ratio = pair(cx, "Div", pair(cx, "Min", x, largest), pair(cx, "Min", d, largest))
    return select(cx, compare(cx, "Equal", u, one), x, pair(cx, "Mul", typed(cx, "Log", u), ratio))


def _cbrt(cx: Context, x: Value) -> Value:
    """sign(x) |x|^(1/3), with one step of Newton's method: 1/3 is not exact in float32."""
    size = typed(cx, "Abs", x)
    y = pair(cx, "Pow", size, like(cx, 1 / 3, x))
    square = pair(cx, "Mul", y, y)
    quotient = pair(cx, "Div", size, pair(cx, "Max", square, like(cx, float(np.finfo(x.dtype).tiny), x)))
    third = pair(cx, "Mul", pair(cx, "Sub", y, quotient), like(cx, 1 / 3, x))  # y cubed would leave 16 bits
    refined = pair(cx, "Sub", y, third)
    # Infinity less infinity; asked of x itself, an engine that keeps x in float32 would not find it infinite in 16 bits.
    refined = select(cx, isnan(cx, refined), size, refined)
    return pair(cx, "Mul", typed(cx, "Sign", x), refined)


def _rcbrt(cx: Context, x: Value) -> Value:
    return typed(cx, "Reciprocal", _cbrt(cx, x))


def _rsqrt(cx: Context, x: Value) -> Value:
    return typed(cx, "Reciprocal", typed(cx, "Sqrt", x))


def _square(cx: Context, x: Value) -> Value:
    return pair(cx, "Mul", x, x)


def _sign(cx: Context, x: Value) -> Value:
    """-1, 0 or 1; NaN gives 0."""
    sign = typed(cx, "Sign", x)
    return where_constant(cx, isnan(cx, x), 0, sign) if is_float(x) else sign


def _relu(cx: Context, x: Value) -> Value:
    return typed(cx, "Relu", x) if is_float(x) else pair(cx, "Max", x, like(cx, 0, x))


def _next_if(cx: Context, op_type: str, size: Value) -> Value:
    """floor(x), one more where the fraction is Greater(OrEqual) than a half."""
    floor = typed(cx, "Floor", size)
    fraction = pair(cx, "Sub", size, floor)
    up = compare(cx, op_type, fraction, like(cx, 0.5, size))
    return select(cx, up, pair(cx, "Add", floor, like(cx, 1, size)), floor)


def _round(cx: Context, x: Value) -> Value:
    """To the nearest integer, halves away from zero (ONNX rounds them to even)."""
    return pair(cx, "Mul", typed(cx, "Sign", x), _next_if(cx, "GreaterOrEqual", typed(cx, "Abs", x)))


def _rint(cx: Context, x: Value) -> Value:
    """To the nearest integer, halves down."""
    return _next_if(cx, "Greater", x)


def _trunc(cx: Context, x: Value) -> Value:
    below = compare(cx, "Less", x, like(cx, 0, x))
    return select(cx, below, typed(cx, "Ceil", x), typed(cx, "Floor", x))


def _same(cx: Context, x: Value) -> Value:
    return x


def _negative(cx: Context, x: Value) -> Value:
    return typed(cx, "Neg", x)


def _logical_not(cx: Context, x: Value) -> Value:
    return cx.cast(compare(cx, "Equal", x, like(cx, 0, x)), x.dtype)


# MXNet's own constants: it computes degrees and radians in float32 in all types.
_DEGREES = 57.2957763671875
_RADIANS = 0.01745329238474369

# name -> on floats. On integers: float32 and truncation.
_MATH: dict[str, Unary] = {
    "exp": _native("Exp"),
    "log": _native("Log"),
    "sqrt": _native("Sqrt"),
    "rsqrt": _rsqrt,
    "reciprocal": _native("Reciprocal"),
    "expm1": _expm1,
    "log1p": _log1p,
    "sin": _native("Sin"),
    "cos": _native("Cos"),
    "tan": _native("Tan"),
    "arcsin": _native("Asin"),
    "arccos": _native("Acos"),
    "arctan": _native("Atan"),
    "sinh": _native("Sinh"),
    "cosh": _native("Cosh"),
    "arcsinh": _native("Asinh"),
    "arccosh": _native("Acosh"),
    "arctanh": _native("Atanh"),
    "degrees": _times(_DEGREES),
    "radians": _times(_RADIANS),
}

# The same, where the truncated answer on integers would depend on the last bit of the float32 one.
_MATH_ON_FLOATS: dict[str, Unary] = {
    "log2": _scaled("Log", 1 / math.log(2)),
    "log10": _scaled("Log", 1 / math.log(10)),
    "cbrt": _cbrt,
    "rcbrt": _rcbrt,
    "erf": _native("Erf"),
    "sigmoid": _native("Sigmoid"),
    "tanh": _native("Tanh"),
    "softsign": _native("Softsign"),
}

# name -> on floats, on integers (in int32 or int64).
_EXACT: dict[str, tuple[Unary, Unary]] = {
    "abs": (_native("Abs"), _native("Abs")),
    "absolute": (_native("Abs"), _native("Abs")),
    "ceil": (_native("Ceil"), _same),
    "floor": (_native("Floor"), _same),
    "trunc": (_trunc, _same),
    "fix": (_trunc, _same),
    "rint": (_rint, _same),
    "round": (_round, _same),
    "_contrib_round_ste": (_round, _same),
    "sign": (_sign, _sign),
    "_contrib_sign_ste": (_sign, _sign),
    "negative": (_negative, _negative),
    "square": (_square, _square),
    "relu": (_relu, _relu),
    "logical_not": (_logical_not, _logical_not),
}


def spellings(name: str) -> list[str]:
    """An operator and its NumPy forms, as far as MXNet has them."""
    return [full for full in (name, f"_npi_{name}", f"_npx_{name}") if full in schemas()]


def _no_bool(x: Value) -> None:
    if x.dtype == BOOL:
        raise Unsupported("MXNet has no kernel for bool here; cast the input to int32")


def _register_math(name: str, formula: Unary, integers: bool) -> None:
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        _no_bool(data)
        if is_float(data):
            return formula(cx, data)
        if not integers:
            raise Unsupported(
                f"{name} of {data.dtype} truncates a value that may lie next to an integer: its rounding would decide; "
                f"cast the input to float32"
            )
        return through_float(cx, data, lambda x: formula(cx, x))

    lower.__doc__ = f"{name} of each element; integers are computed in float32 and truncated."
    operator(*spellings(name))(lower)


def _register_exact(name: str, floats: Unary, integers: Unary) -> None:
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        if is_float(data):
            return floats(cx, data)
        _no_bool(data)
        return cx.cast(integers(cx, wide(cx, data)), data.dtype)

    lower.__doc__ = f"{name} of each element, exact on integers (which wrap around)."
    operator(*(n for n in spellings(name) if n != "_npi_logical_not"))(lower)


for _name, _formula in _MATH.items():
    _register_math(_name, _formula, True)
for _name, _formula in _MATH_ON_FLOATS.items():
    _register_math(_name, _formula, False)
for _name, (_on_floats, _on_integers) in _EXACT.items():
    _register_exact(_name, _on_floats, _on_integers)


@operator("_npi_logical_not")
def np_logical_not(cx: Context, a: Attributes, x: Value) -> Value:
    """Whether each element is 0, as bool."""
    return negated(cx, truth(cx, x))


@operator("_npi_bitwise_not")
def bitwise_not(cx: Context, a: Attributes, x: Value) -> Value:
    """All bits flipped: -1 - x in two's complement."""
    if x.dtype == BOOL:
        return negated(cx, x)
    if is_float(x):
        raise Unsupported(f"bits of {x.dtype}; MXNet takes integers and bool only")
    y = wide(cx, x)
    return cx.cast(pair(cx, "Sub", like(cx, -1, y), y), x.dtype)


@operator("_npi_around")
def around(cx: Context, a: Attributes, x: Value) -> Value:
    """Rounded to ``decimals``, halves to even."""
    if not is_float(x):
        _no_bool(x)
        if a.decimals < 0:
            raise Unsupported(f"decimals={a.decimals} of {x.dtype}; cast the input to float32")
        return x
    if a.decimals == 0:
        return typed(cx, "Round", x)
    if abs(a.decimals) > 30:
        raise Unsupported(f"decimals={a.decimals} is beyond the range of {x.dtype}")
    scale = like(cx, 10.0 ** abs(a.decimals), x)
    first, second = ("Mul", "Div") if a.decimals > 0 else ("Div", "Mul")
    return pair(cx, second, typed(cx, "Round", pair(cx, first, x, scale)), scale)


_CLASSES: dict[str, tuple[bool, Unary]] = {  # what integers give, and the test of floats
    "_npi_isnan": (False, isnan),
    "_npi_isinf": (False, isinf),
    "_npi_isposinf": (False, lambda cx, x: isinf(cx, x, negative=False)),
    "_npi_isneginf": (False, lambda cx, x: isinf(cx, x, positive=False)),
    "_npi_isfinite": (True, lambda cx, x: finite(cx, x)),
}


def finite(cx: Context, x: Value) -> Value:
    """Whether elements are neither infinite nor NaN."""
    return negated(cx, pair(cx, "Or", isnan(cx, x), isinf(cx, x)))


def _register_class(name: str, on_integers: bool, test: Unary) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, x: Value) -> Value:
        """Whether each element is of this class of numbers, as bool."""
        if is_float(x):
            return test(cx, x)
        return cx.expand(cx.const(np.full((1,) * x.rank, on_integers)), x.shape, x)


for _name, (_value, _test) in _CLASSES.items():
    _register_class(_name, _value, _test)


@operator("_npi_nan_to_num", ignore=("copy",))
def nan_to_num(cx: Context, a: Attributes, data: Value) -> Value:
    """NaN and infinities replaced; by default by 0 and the type's limits."""
    if not is_float(data):
        a.ignore("nan", "posinf", "neginf")
        return data
    limits = np.finfo(data.dtype)
    high = float(limits.max) if a.posinf is None else a.posinf
    low = float(limits.min) if a.neginf is None else a.neginf
    x = where_constant(cx, isnan(cx, data), a.nan, data)
    x = select(cx, isinf(cx, data, negative=False), like(cx, high, x), x)
    return select(cx, isinf(cx, data, positive=False), like(cx, low, x), x)


@operator("hard_sigmoid")
def hard_sigmoid(cx: Context, a: Attributes, data: Value) -> Value:
    """alpha * x + beta limited to [0, 1]."""
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; MXNet takes floats only")
    return cx.op("HardSigmoid", data, type=data.type, alpha=a.alpha, beta=a.beta)


@operator("smooth_l1")
def smooth_l1(cx: Context, a: Attributes, data: Value) -> Value:
    """With s = scalar: (s x)^2 / 2 where |x| < 1 / s^2, else |x| - 0.5 / s^2."""
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; cast them to float32")
    squared = float(np.square(np.array(a.scalar, data.dtype)))
    if squared == 0:
        raise Unsupported("scalar=0 divides by 0")
    size = typed(cx, "Abs", data)
    bend = like(cx, 1 / squared, data)
    inner = pair(cx, "Mul", pair(cx, "Mul", data, data), like(cx, 0.5 * squared, data))
    outer = pair(cx, "Sub", size, like(cx, 0.5 / squared, data))
    return select(cx, compare(cx, "Greater", size, bend), outer, inner)


@operator("_contrib_quadratic")
def quadratic(cx: Context, a: Attributes, data: Value) -> Value:
    """a x^2 + b x + c."""
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; cast them to float32")
    inner = pair(cx, "Add", pair(cx, "Mul", data, like(cx, a.a, data)), like(cx, a.b, data))
    return pair(cx, "Add", pair(cx, "Mul", inner, data), like(cx, a.c, data))


@operator("_contrib_div_sqrt_dim")
def div_sqrt_dim(cx: Context, a: Attributes, data: Value) -> Value:
    """Data divided by the square root of the size of their last axis."""
    if not is_float(data):
        raise Unsupported(f"data of {data.dtype}; cast them to float32")
    size = data.shape[-1]
    if isinstance(size, int):
        return pair(cx, "Div", data, like(cx, math.sqrt(size), data))
    root = cx.op("Sqrt", cx.cast(cx.size(size, data), data.dtype))
    return cx.op("Div", data, root, type=data.type)


@operator(
    "BlockGrad",
    "make_loss",
    "MakeLoss",
    "_copy",
    "_np_copy",
    "_contrib_gradientmultiplier",
    ignore=("grad_scale", "valid_thresh", "normalization", "scalar", "is_int"),
)
def identity(cx: Context, a: Attributes, data: Value) -> Value:
    """The data; these operators only change gradients or memory."""
    return data


@operator("amp_cast")
def amp_cast(cx: Context, a: Attributes, data: Value) -> Value:
    """Floats as another float type; other types stay."""
    if not is_float(data):
        a.ignore("dtype")
        return data
    return cast(cx, a, data)


@operator("Cast")
def cast(cx: Context, a: Attributes, data: Value) -> Value:
    """Data as another type: floats truncate, integers wrap around, NaN is true."""
    target = np.dtype(a.dtype) if a.dtype != "bfloat16" else None
    if target is None:
        raise Unsupported("dtype=bfloat16; compile with precision='bf16' instead")
    if target == BOOL:
        return truth(cx, data)
    if is_float(data) and target in _SMALL:
        return cx.cast(cx.cast(data, np.int32), target)  # C's conversion by way of int wraps around
    return cx.cast(data, target)


@operator("amp_multicast")
def amp_multicast(cx: Context, a: Attributes, *data: Value) -> list[Value]:
    """All inputs in the widest of their types, or with ``cast_narrow`` the narrowest."""
    if not all(x.dtype in _FLOATS for x in data):
        raise Unsupported("its inputs are not all float16, float32 or float64")
    a.ignore("num_outputs")
    order = sorted((x.dtype for x in data), key=_FLOATS.index)
    return [cx.cast(x, order[0] if a.cast_narrow else order[-1]) for x in data]


@operator("clip")
def clip(cx: Context, a: Attributes, data: Value) -> Value:
    """Values limited to [a_min, a_max]; NaN stays."""
    low, high = a.a_min, a.a_max
    if not low <= high:
        raise Unsupported(f"a_min={low} is above a_max={high}")
    if is_float(data):
        with np.errstate(over="ignore"):  # a limit beyond the type is infinite
            ends = [like(cx, bound, data) for bound in (low, high)]
        # TensorRT refuses an infinite limit; one that limits nothing is left out.
        bounds = [None if x.const == none else x for x, none in zip(ends, (-np.inf, np.inf))]
        return cx.op("Clip", data, *bounds, type=data.type)
    if data.dtype == BOOL:
        raise Unsupported("MXNet has no clip of bool")
    limits = np.iinfo(data.dtype)
    if high < limits.min or low > limits.max:
        raise Unsupported(f"the range [{low}, {high}] is outside of {data.dtype}")
    x = wide(cx, data)
    whole = [int(min(max(bound, limits.min), limits.max)) for bound in (low, high)]
    y = cx.op("Clip", x, like(cx, whole[0], x), like(cx, whole[1], x), type=x.type)
    return cx.cast(y, data.dtype)


@operator("all_finite")
def all_finite(cx: Context, a: Attributes, data: Value) -> Value:
    """Shape (1,): 1 if every element is finite, else 0. Float32."""
    return multi_all_finite(cx, a, data)


@operator("multi_all_finite")
def multi_all_finite(cx: Context, a: Attributes, *data: Value) -> Value:
    """Shape (1,): 1 if every element of all arrays is finite, else 0. Float32."""
    if not a.init_output:
        raise Unsupported("init_output=False reads what the output held before")
    a.ignore("num_arrays")
    result: Value | None = None
    for x in data:
        if not is_float(x):
            raise Unsupported(f"data of {x.dtype}; MXNet takes floats only")
        good = cx.cast(finite(cx, x), np.float32)
        one = cx.op("ReduceMin", good, type=TensorType(np.dtype(np.float32), ()), keepdims=0)
        result = one if result is None else pair(cx, "Min", result, one)
    assert result is not None
    return cx.reshape(result, (1,))


@operator("_contrib_allclose")
def allclose(cx: Context, a: Attributes, x: Value, y: Value) -> Value:
    """1 without axes if |x - y| <= atol + rtol |y| everywhere (true of any x and an infinite y), else 0. uint8."""
    if not is_float(x) or x.dtype != y.dtype:
        raise Unsupported(f"inputs of {x.dtype} and {y.dtype}; cast both to float32")
    gap = typed(cx, "Abs", pair(cx, "Sub", x, y))
    limit = pair(cx, "Add", like(cx, a.atol, y), pair(cx, "Mul", typed(cx, "Abs", y), like(cx, a.rtol, y)))
    close = pair(cx, "Or", compare(cx, "Equal", x, y), compare(cx, "LessOrEqual", gap, limit))
    if a.equal_nan:
        close = pair(cx, "Or", close, pair(cx, "And", isnan(cx, x), isnan(cx, y)))
    kind = TensorType(np.dtype(np.float32), ())
    return cx.cast(cx.op("ReduceMin", cx.cast(close, np.float32), type=kind, keepdims=0), np.uint8)


# --- two tensors -----------------------------------------------------------------------------------------------------


def mod(cx: Context, x: Value, y: Value) -> Value:
    """The remainder with the divisor's sign; x mod 0 is 0."""
    zero = compare(cx, "Equal", y, like(cx, 0, y))
    divisor = select(cx, zero, like(cx, 1, y), y)
    if not is_float(x):
        return select(cx, zero, like(cx, 0, x), pair(cx, "Mod", x, divisor))
    quotient = pair(cx, "Div", x, divisor)
    rest = pair(cx, "Sub", x, pair(cx, "Mul", typed(cx, "Floor", quotient), divisor))
    if y.const is None or not np.isfinite(y.const).all():
        rest = _of_infinite_divisor(cx, x, y, rest)
    return select(cx, zero, like(cx, 0, x), rest)


def _of_infinite_divisor(cx: Context, x: Value, y: Value, rest: Value) -> Value:
    """``rest``, or for an infinite y: x itself, and y where x has the other sign; NaN if x is infinite too."""
    infinite = compare(cx, "Equal", typed(cx, "Abs", y), like(cx, np.inf, y))
    other_sign = compare(cx, "Less", pair(cx, "Mul", x, y), like(cx, 0, x))
    nothing = pair(cx, "Sub", x, x)  # 0, or NaN
    return select(cx, infinite, pair(cx, "Add", select(cx, other_sign, y, x), nothing), rest)


def power(cx: Context, x: Value, y: Value) -> Value:
    """x to the y; on integers MXNet's truncated float32 answer (the exact one is an integer, or below 1)."""
    if is_float(x):
        return pair(cx, "Pow", x, y)
    found = pair(cx, "Pow", cx.cast(x, np.float32), cx.cast(y, np.float32))
    return cx.cast(typed(cx, "Round", found), x.dtype)


def divide(cx: Context, x: Value, y: Value) -> Value:
    """x / y; integers are truncated towards 0 (by 0 MXNet's process ends; here it gives 0)."""
    if is_float(x):
        return pair(cx, "Div", x, y)
    zero = compare(cx, "Equal", y, like(cx, 0, y))
    found = pair(cx, "Div", x, select(cx, zero, like(cx, 1, y), y))
    return select(cx, zero, like(cx, 0, x), found)


def hypot(cx: Context, x: Value, y: Value) -> Value:
    """sqrt(x^2 + y^2), scaled so that it overflows only where the answer does."""
    if not is_float(x):
        a, b = cx.cast(x, np.float32), cx.cast(y, np.float32)
        squares = pair(cx, "Add", pair(cx, "Mul", a, a), pair(cx, "Mul", b, b))
        return cx.cast(typed(cx, "Sqrt", squares), x.dtype)
    a, b = typed(cx, "Abs", x), typed(cx, "Abs", y)
    large, small = pair(cx, "Max", a, b), pair(cx, "Min", a, b)
    ratio = select(cx, compare(cx, "Equal", small, large), like(cx, 1, x), pair(cx, "Div", small, large))
    root = typed(cx, "Sqrt", pair(cx, "Add", pair(cx, "Mul", ratio, ratio), like(cx, 1, x)))
    return pair(cx, "Mul", large, root)


def arctan2(cx: Context, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), with C's rules for zeros and infinities of either sign."""
    if not is_float(x):
        raise Unsupported(f"the angle of {x.dtype} points; cast them to float32")
    a, b = typed(cx, "Abs", y), typed(cx, "Abs", x)
    equal = compare(cx, "Equal", a, b)
    one = cx.cast(compare(cx, "NotEqual", b, like(cx, 0, x)), x.dtype)  # 1 on the diagonal, 0 at the origin
    angle = typed(cx, "Atan", select(cx, equal, one, pair(cx, "Div", a, b)))
    angle = select(cx, has_sign(cx, x), pair(cx, "Sub", like(cx, math.pi, x), angle), angle)
    return select(cx, has_sign(cx, y), typed(cx, "Neg", angle), angle)


def copysign(cx: Context, x: Value, y: Value) -> Value:
    """x, or -x if the signs differ. -0 is no negative number, and NaN is of neither sign (mshadow_op.h: copysign)."""
    none_x, none_y = like(cx, 0, x), like(cx, 0, y)
    above = pair(cx, "And", compare(cx, "GreaterOrEqual", x, none_x), compare(cx, "GreaterOrEqual", y, none_y))
    below = pair(cx, "And", compare(cx, "Less", x, none_x), compare(cx, "Less", y, none_y))
    return select(cx, pair(cx, "Or", above, below), x, typed(cx, "Neg", x))


def ldexp(cx: Context, x: Value, y: Value) -> Value:
    """x 2^y."""
    if is_float(x):
        return pair(cx, "Mul", x, pair(cx, "Pow", like(cx, 2, x), y))
    a, b = cx.cast(x, np.float32), cx.cast(y, np.float32)
    return cx.cast(pair(cx, "Mul", a, pair(cx, "Pow", like(cx, 2, a), b)), x.dtype)


def _simple(op_type: str) -> Binary:
    return lambda cx, x, y: pair(cx, op_type, x, y)


def _comparison(op_type: str) -> Binary:
    return lambda cx, x, y: compare(cx, op_type, x, y)


def _logical(op_type: str) -> Binary:
    return lambda cx, x, y: pair(cx, op_type, truth(cx, x), truth(cx, y))


# On tensors of one type, int8 and uint8 as int32.
ARITHMETIC: dict[str, Binary] = {
    "add": _simple("Add"),
    "sub": _simple("Sub"),
    "mul": _simple("Mul"),
    "div": divide,
    "mod": mod,
    "power": power,
    "maximum": _simple("Max"),
    "minimum": _simple("Min"),
    "hypot": hypot,
    "arctan2": arctan2,
    "copysign": copysign,
    "ldexp": ldexp,
}
COMPARISONS: dict[str, Binary] = {
    "equal": _comparison("Equal"),
    "not_equal": _comparison("NotEqual"),
    "greater": _comparison("Greater"),
    "greater_equal": _comparison("GreaterOrEqual"),
    "lesser": _comparison("Less"),
    "lesser_equal": _comparison("LessOrEqual"),
    "logical_and": _logical("And"),
    "logical_or": _logical("Or"),
    "logical_xor": _logical("Xor"),
}


def apply(cx: Context, formula: Binary, x: Value, y: Value) -> Value:
    """A formula on two tensors of one type, answered in that type."""
    return cx.cast(formula(cx, wide(cx, x), wide(cx, y)), x.dtype)


def _check_equal_types(x: Value, y: Value) -> None:
    if x.dtype != y.dtype:
        raise Unsupported(f"its inputs are {x.type} and {y.type}; MXNet wants one type: cast one of them")


def _check_equal_shapes(x: Value, y: Value) -> None:
    sizes = zip(x.shape, y.shape)
    if x.rank != y.rank or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes):
        raise Unsupported(f"its inputs are {x.type} and {y.type}; their shapes must be equal")


def _register_binary(names: list[str], formula: Binary, equal_shapes: bool) -> None:
    def lower(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
        _check_equal_types(lhs, rhs)
        _no_bool(lhs)
        if equal_shapes:
            _check_equal_shapes(lhs, rhs)
        return apply(cx, formula, lhs, rhs)

    lower.__doc__ = (
        f"{names[0]}: two tensors of one type{' and shape' if equal_shapes else ', broadcast'}; so is the answer."
    )
    operator(*names)(lower)


_EQUAL_SHAPES = {
    "add": ["elemwise_add", "_grad_add"],
    "div": ["elemwise_div", "_scatter_elemwise_div"],
}
for _name, _binary in (ARITHMETIC | COMPARISONS).items():
    _names = _EQUAL_SHAPES.get(_name, [f"elemwise_{_name}", f"_{_name}"])
    _known = [n for n in _names if n in schemas()]
    if _known:
        _register_binary(_known, _binary, True)
    if f"broadcast_{_name}" in schemas():
        _register_binary([f"broadcast_{_name}"], _binary, False)


# --- two tensors, NumPy's way ----------------------------------------------------------------------------------------


def promoted(cx: Context, x: Value, y: Value) -> tuple[Value, Value]:
    """Both in MXNet's common type: a float wins over integers, the wider over the narrower, anything over bool."""
    if x.dtype == y.dtype:
        return x, y
    if is_float(x) != is_float(y):
        target = x.dtype if is_float(x) else y.dtype
    elif BOOL in (x.dtype, y.dtype):
        target = y.dtype if x.dtype == BOOL else x.dtype
    elif x.dtype.itemsize == y.dtype.itemsize:
        raise Unsupported(f"its inputs are {x.dtype} and {y.dtype}; MXNet has no common type: cast one of them")
    else:
        target = x.dtype if x.dtype.itemsize > y.dtype.itemsize else y.dtype
    return cx.cast(x, target), cx.cast(y, target)


_NP_BOOL: dict[str, Binary] = {
    "_npi_add": _simple("Or"),
    "_npi_multiply": _simple("And"),
    "_npi_power": lambda cx, x, y: pair(cx, "Or", x, negated(cx, y)),
}
_NP_PROMOTED = {
    "_npi_add": "add",
    "_npi_subtract": "sub",
    "_npi_multiply": "mul",
    "_npi_mod": "mod",
    "_npi_power": "power",
}


def _register_promoted(name: str, formula: Binary) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
        """Two tensors, broadcast, in their common type; on bool the logical counterpart."""
        if lhs.dtype == rhs.dtype == BOOL:
            if name not in _NP_BOOL:
                raise Unsupported("MXNet has no kernel for bool here; cast the inputs to int32")
            return _NP_BOOL[name](cx, lhs, rhs)
        if name in ("_npi_subtract", "_npi_mod") and lhs.dtype != rhs.dtype and not (is_float(lhs) or is_float(rhs)):
            raise Unsupported(f"its inputs are {lhs.dtype} and {rhs.dtype}; MXNet wants one type: cast one of them")
        return apply(cx, formula, *promoted(cx, lhs, rhs))


for _name, _base in _NP_PROMOTED.items():
    _register_promoted(_name, ARITHMETIC[_base])


@operator("_npi_true_divide")
def true_divide(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
    """x / y, broadcast; integers and bool as float32."""
    if is_float(lhs) == is_float(rhs):
        _check_equal_types(lhs, rhs)
    if not is_float(lhs) and not is_float(rhs):
        return pair(cx, "Div", cx.cast(lhs, np.float32), cx.cast(rhs, np.float32))
    return pair(cx, "Div", *promoted(cx, lhs, rhs))


def _register_np(name: str, formula: Binary, floats_only: bool) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
        """Two tensors of one type, broadcast; so is the answer."""
        _check_equal_types(lhs, rhs)
        if floats_only and not is_float(lhs):
            raise Unsupported(f"inputs of {lhs.dtype}; MXNet takes floats only")
        _no_bool(lhs)
        return apply(cx, formula, lhs, rhs)


for _name, _floats_only in {"hypot": True, "arctan2": True, "copysign": False, "ldexp": False}.items():
    _register_np(f"_npi_{_name}", ARITHMETIC[_name], _floats_only)


def _register_np_comparison(name: str, formula: Binary) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
        """A comparison of two tensors of one type, broadcast, as bool."""
        _check_equal_types(lhs, rhs)
        return formula(cx, lhs, rhs)


for _name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    _register_np_comparison(f"_npi_{_name}", COMPARISONS[_name.replace("less", "lesser")])


def bitwise(cx: Context, name: str, x: Value, y: Value) -> Value:
    """And, Or or Xor of the bits; of bool the logical operation."""
    if is_float(x):
        raise Unsupported(f"bits of {x.dtype}; MXNet takes integers and bool only")
    return pair(cx, name if x.dtype == BOOL else f"Bitwise{name}", x, y)


def _register_bitwise(name: str) -> None:
    @operator(f"_npi_bitwise_{name}")
    def lower(cx: Context, a: Attributes, lhs: Value, rhs: Value) -> Value:
        """The bits of two integers or bools, broadcast."""
        _check_equal_types(lhs, rhs)
        return bitwise(cx, name.capitalize(), lhs, rhs)


for _name in ("and", "or", "xor"):
    _register_bitwise(_name)


# --- many tensors, and choices ---------------------------------------------------------------------------------------


@operator("add_n")
def add_n(cx: Context, a: Attributes, *args: Value) -> Value:
    """The sum of tensors of equal type and shape."""
    for other in args[1:]:
        _check_equal_types(args[0], other)
        _check_equal_shapes(args[0], other)
    _no_bool(args[0])
    total = wide(cx, args[0])
    for other in args[1:]:
        total = typed(cx, "Add", total, wide(cx, other))
    return cx.cast(total, args[0].dtype)


@operator("where")
def where(cx: Context, a: Attributes, condition: Value, x: Value, y: Value) -> Value:
    """``x`` where the condition is not 0, else ``y``; a 1-D condition chooses whole rows."""
    _check_equal_types(x, y)
    _check_equal_shapes(x, y)
    if condition.rank == 1 and x.rank > 1:
        condition = cx.reshape(condition, (condition.shape[0], *(1,) * (x.rank - 1)))
    else:
        _check_equal_shapes(condition, x)
    return select(cx, truth(cx, condition), x, y)


@operator("_npi_where")
def np_where(cx: Context, a: Attributes, condition: Value, x: Value, y: Value) -> Value:
    """``x`` where the condition is not 0, else ``y``; all broadcast."""
    _check_equal_types(x, y)
    return select(cx, truth(cx, condition), x, y)


def scalar_of(cx: Context, number: float, dtype: np.dtype[Any]) -> Value:
    """A scalar as C casts it: truncated, and wrapped around where integers are narrower than C's int."""
    if dtype.kind in "iu":
        if not math.isfinite(number) or abs(number) >= (2**63 if dtype.itemsize == 8 else 2**31):
            raise Unsupported(f"the scalar {number} is not a number of {dtype}")
        return cx.const(np.array(int(number), np.int64).astype(dtype))
    return cx.const(np.array(number).astype(dtype))


@operator("_npi_where_lscalar")
def where_lscalar(cx: Context, a: Attributes, condition: Value, x: Value) -> Value:
    """The scalar where the condition is not 0, else ``x``."""
    return select(cx, truth(cx, condition), scalar_of(cx, a.scalar, x.dtype), x)


@operator("_npi_where_rscalar")
def where_rscalar(cx: Context, a: Attributes, condition: Value, y: Value) -> Value:
    """``y`` where the condition is not 0, else the scalar."""
    return select(cx, truth(cx, condition), y, scalar_of(cx, a.scalar, y.dtype))


@operator("_npi_where_scalar2")
def where_scalar2(cx: Context, a: Attributes, condition: Value) -> Value:
    """The scalar x where the condition is not 0, else the scalar y, as float32."""
    x, y = (scalar_of(cx, number, np.dtype(np.float32)) for number in (a.x, a.y))
    return select(cx, truth(cx, condition), x, y)
