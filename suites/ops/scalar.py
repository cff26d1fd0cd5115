"""Elementwise operators of a tensor and a scalar: how their inputs are drawn."""

from __future__ import annotations

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor
from .elementwise import EDGES, INF, NAN, axes

FLOATS = ("float32", "float32", "float16")
INTEGERS = ("int32", "int64", "int8", "uint8", "bool")


def tensor(dtypes=(*FLOATS, *INTEGERS), low=-9.0, high=9.0, values=None, avoid=()) -> Build:
    """``is_int=False`` asks for float64 of integers, which is drawn too."""

    def build(d: Draw, a: Attributes) -> Inputs:
        dtype = d.pick(dtypes)
        shape = d.shape((1, 4))
        special = values if values is not None and dtype == "float32" and d.boolean() else None
        return {"data": Tensor(shape, dtype, low, high, values=special, avoid=avoid, dynamic=axes(shape))}

    return build


IS_INT = [DEFAULT, True, False]
# operators -> the scalars, and how the tensor is drawn
TABLE: list[tuple[tuple[str, ...], list, dict]] = [
    (("_plus_scalar", "_scatter_plus_scalar", "_npi_add_scalar"), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_minus_scalar", "_scatter_minus_scalar", "_npi_subtract_scalar"), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_rminus_scalar", "_npi_rsubtract_scalar"), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_mul_scalar", "_npi_multiply_scalar"), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_div_scalar",), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_rdiv_scalar",), [DEFAULT, 2.5, -3.0], dict(avoid=(0,), values=(INF, NAN, 2.0), dtypes=("float32", "float16", "int32", "int64", "int8", "uint8"))),
    (("_mod_scalar", "_npi_mod_scalar"), [DEFAULT, 2.5, -3.0, 0.0], dict(dtypes=("float32", *INTEGERS), values=(0.0, 1.0, 7.0, -7.0, NAN))),
    (("_rmod_scalar", "_npi_rmod_scalar"), [DEFAULT, 2.5, -3.0], dict(dtypes=("float32", *INTEGERS), values=(0.0, 1.5, 7.0, -7.0, NAN, INF, -INF))),
    (("_power_scalar", "_npi_power_scalar"), [DEFAULT, 2.0, 0.5, 3.0], dict(low=0.5, high=5)),
    (("_rpower_scalar", "_npi_rpower_scalar"), [DEFAULT, 2.0, 0.5, 3.0], dict(low=0, high=4)),
    (("_maximum_scalar", "_minimum_scalar"), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_hypot_scalar",), [DEFAULT, 2.5, -3.0], dict(values=(3e20, 0.0, INF))),
    (("_npi_ldexp_scalar",), [DEFAULT, 2.5, -3.0], dict()),
    (("_npi_rldexp_scalar",), [DEFAULT, 2.5, -3.0], dict(low=-3, high=4)),
    (("_npi_arctan2_scalar", "_npi_rarctan2_scalar"), [DEFAULT, 2.5, -3.0, 0.0], dict(dtypes=FLOATS, values=(0.0, -0.0, 1.0, -1.0, INF, -INF))),
    (("_npi_true_divide_scalar",), [DEFAULT, 2.5, -3.0], dict(values=EDGES)),
    (("_npi_rtrue_divide_scalar",), [DEFAULT, 2.5, -3.0], dict(low=1)),
    (("_npi_bitwise_and_scalar", "_npi_bitwise_or_scalar", "_npi_bitwise_xor_scalar"), [DEFAULT, 5.0, -3.0, 0.0], dict(dtypes=INTEGERS, low=-90, high=90)),
    (
        tuple(f"{prefix}_{name}_scalar" for prefix in ("", "_npi") for name in ("equal", "not_equal", "greater", "greater_equal"))
        + ("_lesser_scalar", "_lesser_equal_scalar", "_npi_less_scalar", "_npi_less_equal_scalar"),
        [DEFAULT, 2.5, -3.0, 0.0],
        dict(values=(*EDGES, 2.5, -3.0), avoid=(1.0, 2.5, -3.0, 0.0)),
    ),
    (("_logical_and_scalar", "_logical_or_scalar", "_logical_xor_scalar"), [DEFAULT, 2.5, 0.0], dict(values=EDGES)),
]  # fmt: skip

SPECS = [
    Spec(names[0], {"scalar": scalars, "is_int": IS_INT}, tensor(**draws), also=names[1:], examples=10)
    for names, scalars, draws in TABLE
]
SPECS += [  # a whole number that float32 does not hold
    Spec(name, {"scalar": [16777217.0]}, tensor(("int32", "int64")), examples=2)
    for name in ("_plus_scalar", "_npi_add_scalar", "_minus_scalar", "_npi_subtract_scalar", "_maximum_scalar")
]
SPECS += [  # a number beside integers that is none of them, or none of their type
    Spec(
        f"_npi_{name}_scalar",
        {"scalar": [2.5, -3.0, 300.0, 3e9, -2.5e9], "is_int": [False]},
        tensor(INTEGERS[:-1]),
        examples=2,
    )
    for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
]
