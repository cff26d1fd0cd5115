"""Elementwise arithmetic of a tensor and a scalar attribute.

``is_int`` (true unless the model says otherwise) tells whether the scalar was written as an integer: then a tensor of
integers keeps its type and the scalar is cast to it; else the answer is float64. A tensor of bool becomes int64 or
float64. Floats keep their type always.
"""

from __future__ import annotations

import math

import numpy as np

from .context import Context, Value
from .elementwise import (
    ARITHMETIC,
    BOOL,
    COMPARISONS,
    Binary,
    apply,
    bitwise,
    is_float,
    like,
    pair,
    scalar_of,
    select,
    typed,
    wide,
)
from .registry import Unsupported, operator
from .schema import Attributes


def _flipped(formula: Binary) -> Binary:
    return lambda cx, x, y: formula(cx, y, x)


def _over(cx: Context, x: Value, y: Value) -> Value:
    """y / x; on integers truncated from float32, as MXNet has it."""
    if is_float(x):
        return pair(cx, "Div", y, x)
    found = pair(cx, "Div", cx.cast(y, np.float32), cx.cast(x, np.float32))
    zero = cx.cast(pair(cx, "Equal", x, like(cx, 0, x), bool), BOOL)
    safe = select(cx, zero, like(cx, 0, found), found)
    least = float(np.iinfo(np.int64 if x.dtype == np.int64 else np.int32).min)
    return cx.cast(select(cx, zero, like(cx, least, found), safe), x.dtype)


# name -> the formula, and the operators that it serves
_TABLE: dict[str, tuple[Binary, tuple[str, ...]]] = {
    "plus": (ARITHMETIC["add"], ("_plus_scalar", "_scatter_plus_scalar", "_npi_add_scalar")),
    "minus": (ARITHMETIC["sub"], ("_minus_scalar", "_scatter_minus_scalar", "_npi_subtract_scalar")),
    "rminus": (_flipped(ARITHMETIC["sub"]), ("_rminus_scalar", "_npi_rsubtract_scalar")),
    "mul": (ARITHMETIC["mul"], ("_mul_scalar", "_npi_multiply_scalar")),
    "div": (ARITHMETIC["div"], ("_div_scalar",)),
    "mod": (ARITHMETIC["mod"], ("_mod_scalar", "_npi_mod_scalar")),
    "rmod": (_flipped(ARITHMETIC["mod"]), ("_rmod_scalar", "_npi_rmod_scalar")),
    "power": (ARITHMETIC["power"], ("_power_scalar", "_npi_power_scalar")),
    "rpower": (_flipped(ARITHMETIC["power"]), ("_rpower_scalar", "_npi_rpower_scalar")),
    "maximum": (ARITHMETIC["maximum"], ("_maximum_scalar",)),
    "minimum": (ARITHMETIC["minimum"], ("_minimum_scalar",)),
    "hypot": (ARITHMETIC["hypot"], ("_hypot_scalar",)),
    "ldexp": (ARITHMETIC["ldexp"], ("_npi_ldexp_scalar",)),
    "rldexp": (_flipped(ARITHMETIC["ldexp"]), ("_npi_rldexp_scalar",)),
    "arctan2": (ARITHMETIC["arctan2"], ("_npi_arctan2_scalar",)),
    "rarctan2": (_flipped(ARITHMETIC["arctan2"]), ("_npi_rarctan2_scalar",)),
    "rdiv": (_over, ("_rdiv_scalar",)),
}
_TABLE |= {name: (formula, (f"_{name}_scalar",)) for name, formula in COMPARISONS.items()}


def operands(cx: Context, a: Attributes, data: Value) -> tuple[Value, Value]:
    """The tensor and the scalar in the type that MXNet computes in."""
    if is_float(data):
        a.ignore("is_int")
        return data, scalar_of(cx, a.scalar, data.dtype)
    if not a.is_int:
        return cx.cast(data, np.float64), cx.const(np.array(a.scalar, np.float64))
    x = cx.cast(data, np.int64) if data.dtype == BOOL else data
    return x, scalar_of(cx, a.scalar, x.dtype)


def _register(name: str, formula: Binary, names: tuple[str, ...]) -> None:
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        x, y = operands(cx, a, data)
        if name == "div" and not is_float(x) and y.const is not None and not y.const.any():
            raise Unsupported(f"{data.dtype} divided by 0")
        return apply(cx, formula, x, y)

    lower.__doc__ = f"{name} of each element and a scalar."
    operator(*names)(lower)


for _name, (_formula, _names) in _TABLE.items():
    _register(_name, _formula, _names)


def _np_comparison(cx: Context, a: Attributes, name: str, data: Value) -> Value:
    """The scalar is a number of the tensor's type; with ``is_int`` false, of integers, the real number that it is."""
    formula = COMPARISONS[name]
    if is_float(data) or data.dtype == BOOL:
        a.ignore("is_int")
        y = cx.const(bool(a.scalar)) if data.dtype == BOOL else scalar_of(cx, a.scalar, data.dtype)
        return formula(cx, data, y)
    if a.is_int:
        return formula(cx, data, scalar_of(cx, a.scalar, data.dtype))
    x = wide(cx, data)
    if not np.iinfo(x.dtype).min <= a.scalar <= np.iinfo(x.dtype).max:
        x = cx.cast(data, np.int64)
    if a.scalar == math.floor(a.scalar):
        return formula(cx, x, scalar_of(cx, a.scalar, x.dtype))
    return _beside_integers(cx, name, x, a.scalar)


def _beside_integers(cx: Context, name: str, x: Value, number: float) -> Value:
    """A comparison of integers with a number between two integers, in integers."""
    if name in ("equal", "not_equal"):
        same = pair(cx, "Equal", x, x, bool)
        return same if name == "not_equal" else typed(cx, "Not", same)
    bound = math.floor(number) if name in ("greater", "lesser_equal") else math.ceil(number)
    return COMPARISONS[name](cx, x, scalar_of(cx, bound, x.dtype))


def _register_np_comparison(name: str, legacy: str) -> None:
    @operator(name)
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """A comparison of each element with a scalar, as bool."""
        return _np_comparison(cx, a, legacy, data)


for _name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    _register_np_comparison(f"_npi_{_name}_scalar", _name.replace("less", "lesser"))


@operator("_npi_true_divide_scalar", ignore=("is_int",))
def true_divide_scalar(cx: Context, a: Attributes, data: Value) -> Value:
    """x / scalar; integers and bool as float32."""
    x = data if is_float(data) else cx.cast(data, np.float32)
    return pair(cx, "Div", x, scalar_of(cx, a.scalar, x.dtype))


@operator("_npi_rtrue_divide_scalar", ignore=("is_int",))
def rtrue_divide_scalar(cx: Context, a: Attributes, data: Value) -> Value:
    """scalar / x; integers and bool as float32."""
    x = data if is_float(data) else cx.cast(data, np.float32)
    return pair(cx, "Div", scalar_of(cx, a.scalar, x.dtype), x)


def _register_bitwise(name: str) -> None:
    @operator(f"_npi_bitwise_{name}_scalar", ignore=("is_int",))
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        """The bits of each integer or bool and of a scalar."""
        if is_float(data):
            raise Unsupported(f"bits of {data.dtype}; MXNet takes integers and bool only")
        y = cx.const(bool(a.scalar)) if data.dtype == BOOL else scalar_of(cx, a.scalar, data.dtype)
        return bitwise(cx, name.capitalize(), data, y)


for _name in ("and", "or", "xor"):
    _register_bitwise(_name)
