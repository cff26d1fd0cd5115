"""Elementwise operators of one tensor, of two, and of many: how their inputs are drawn."""

from __future__ import annotations

import numpy as np

from harness.operators.schema import schemas

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor

FLOATS = ("float32", "float32", "float16")
INTEGERS = ("int32", "int64", "int8", "uint8")
NUMBERS = (*FLOATS, *INTEGERS)
NAN, INF = float("nan"), float("inf")
EDGES = (NAN, INF, -INF, -0.0, 0.0, 1.0, -2.5)
HALVES = tuple(np.arange(-3.5, 4, 0.5).tolist() + [0.49999997, -0.49999997, 8388609.0, 1e10, INF, -INF, NAN])
ALL_AXES = tuple(range(8))


def spellings(name: str) -> list[str]:
    return [full for full in (name, f"_npi_{name}", f"_npx_{name}") if full in schemas()]


def inputs_of(operator: str) -> tuple[str, ...]:
    return schemas()[operator].inputs


def axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(shape)))


def unary(name: str, dtypes=FLOATS, low=-2.0, high=2.0, avoid=(), values=None, whole=None, np_shape=False) -> Build:
    """Draws in the domain of the function, ``whole`` for integers; sometimes the ``values`` on purpose, and all of them
    where ``edges`` is drawn.
    """

    def build(d: Draw, a: Attributes) -> Inputs:
        if a.pop("edges", False):
            dtype = d.pick([kind for kind in dtypes if np.dtype(kind).kind == "f"])
            special = in_range(values, dtype)
            return {name: Tensor((2, len(special)), dtype, values=special, dynamic=(0, 1))}
        dtype = "bool" if a.pop("bits", False) else d.pick(dtypes)
        if whole is not None and dtype in INTEGERS:
            return {name: Tensor(d.shape((1, 5)), dtype, *whole)}
        shape = d.shape((0, 4), low=0) if np_shape else d.shape((1, 5))
        special = values if values is not None and np.dtype(dtype).kind == "f" and d.boolean() else None
        special = in_range(special, dtype)
        tensor = Tensor(shape, dtype, low, high, avoid=avoid, values=special, dynamic=axes(shape))
        return {name: tensor}

    return build


def in_range(values, dtype: str):
    """The values that a type holds."""
    if values is None or dtype != "float16":
        return values
    return [value for value in values if not np.isfinite(value) or abs(value) < 100]


EDGY = {"edges": [DEFAULT, True]}  # all special values at once


# name -> the types MXNet takes (those lowered), and where the function is drawn
MATH = NUMBERS
CLASSES = (*FLOATS, *FLOATS, *NUMBERS, "bool")
DOMAINS: dict[str, dict] = {
    "exp": dict(dtypes=MATH, high=4, values=(*EDGES, 88.0, -90.0)),
    "log": dict(dtypes=MATH, whole=(1, 9), low=0.01, high=5, values=(INF, 0.0, 1.0, NAN, 1e-38)),
    "log2": dict(low=0.01, high=9, values=(INF, 0.0, 1.0, NAN, 8.0, 1.0000001)),
    "log10": dict(low=0.01, high=9, values=(INF, 0.0, 1.0, NAN, 1000.0)),
    "log1p": dict(dtypes=MATH, whole=(0, 9), low=-0.9, high=5, values=(INF, -1.0, 0.0, 1e-8, -1e-8, 1e-4, NAN, 3e38)),
    "expm1": dict(dtypes=MATH, whole=(-2, 4), values=(*EDGES, 1e-8, -1e-8, 1e-3, 88.0, -100.0)),
    "sqrt": dict(dtypes=MATH, low=0, high=9, values=(INF, 0.0, 1.0, NAN, 1e-38, -1.0)),
    "rsqrt": dict(dtypes=MATH, whole=(1, 9), low=0.05, high=9, values=(INF, 1.0, NAN, 0.0)),
    "cbrt": dict(low=-9, high=9, values=(*EDGES, 1e30, -1e-30, 8.0)),
    "rcbrt": dict(low=0.1, high=9, values=(INF, NAN, 1e30, -27.0)),
    "reciprocal": dict(dtypes=MATH, whole=(1, 9), avoid=(0,), values=(INF, -INF, NAN, 2.0)),
    "sin": dict(dtypes=MATH, low=-7, high=7),
    "cos": dict(dtypes=MATH, low=-7, high=7),
    "tan": dict(dtypes=MATH, whole=(-9, 9), low=-1.4, high=1.4),
    "arcsin": dict(dtypes=MATH, whole=(-1, 1), low=-0.99, high=0.99, values=(1.0, -1.0, 0.0, NAN, 1e-6, 2.0)),
    "arccos": dict(dtypes=MATH, whole=(-1, 1), low=-0.99, high=0.99, values=(1.0, -1.0, 0.0, NAN, 1e-6, 2.0)),
    "arctan": dict(dtypes=MATH, values=EDGES),
    "sinh": dict(dtypes=MATH, whole=(-4, 4), values=(*EDGES, 1e-6)),
    "cosh": dict(dtypes=MATH, values=EDGES),
    "tanh": dict(values=(*EDGES, 1e-6)),
    "arcsinh": dict(dtypes=MATH, whole=(-9, 9), low=0.1, values=(1.0, 0.0, NAN, INF, 1e-6)),
    "arccosh": dict(dtypes=MATH, whole=(1, 9), low=1.1, high=9, values=(1.0, NAN, INF, 0.5)),
    "arctanh": dict(dtypes=MATH, whole=(0, 0), low=-0.9, high=0.9, values=(1.0, -1.0, 0.0, NAN, 1e-6)),
    "degrees": dict(dtypes=MATH, low=-8, high=8, values=EDGES),
    "radians": dict(dtypes=MATH, low=-90, high=90, values=EDGES),
    "erf": dict(values=(*EDGES, 1e-6)),
    "sigmoid": dict(values=(*EDGES, 20.0, -20.0)),
    "softsign": dict(values=(*EDGES, 1e6)),
    "abs": dict(dtypes=NUMBERS, values=EDGES),
    "absolute": dict(dtypes=NUMBERS, values=EDGES),
    "ceil": dict(dtypes=NUMBERS, low=-3, high=3, avoid=(-2, -1, 0, 1, 2), values=HALVES),
    "floor": dict(dtypes=NUMBERS, low=-3, high=3, avoid=(-2, -1, 0, 1, 2), values=HALVES),
    "trunc": dict(dtypes=NUMBERS, low=-3, high=3, avoid=(-2, -1, 0, 1, 2), values=HALVES),
    "fix": dict(dtypes=NUMBERS, low=-3, high=3, avoid=(-2, -1, 0, 1, 2), values=HALVES),
    "round": dict(dtypes=NUMBERS, low=-1.4, high=1.4, avoid=(-0.5, 0.5), values=HALVES),
    "rint": dict(dtypes=NUMBERS, low=-1.4, high=1.4, avoid=(-0.5, 0.5), values=HALVES),
    "_contrib_round_ste": dict(dtypes=NUMBERS, low=-1.4, high=1.4, avoid=(-0.5, 0.5), values=HALVES),
    "sign": dict(dtypes=NUMBERS, avoid=(0,), values=EDGES),
    "_contrib_sign_ste": dict(dtypes=NUMBERS, avoid=(0,), values=EDGES),
    "negative": dict(dtypes=NUMBERS, values=EDGES),
    "square": dict(dtypes=NUMBERS, low=-20, high=20, values=EDGES),
    "relu": dict(dtypes=NUMBERS, values=EDGES),
    "logical_not": dict(dtypes=NUMBERS, values=(0.0, -0.0, 1.0, NAN, INF)),
    "bitwise_not": dict(dtypes=(*INTEGERS, "bool"), low=-200, high=200),
    "isnan": dict(dtypes=CLASSES, values=EDGES),
    "isinf": dict(dtypes=CLASSES, values=EDGES),
    "isfinite": dict(dtypes=CLASSES, values=EDGES),
    "isposinf": dict(dtypes=CLASSES, values=EDGES),
    "isneginf": dict(dtypes=CLASSES, values=EDGES),
    "BlockGrad": dict(dtypes=(*NUMBERS, "bool"), values=EDGES),
    "make_loss": dict(dtypes=(*NUMBERS, "bool"), values=EDGES),
    "_copy": dict(dtypes=(*NUMBERS, "bool"), values=EDGES),
    "_np_copy": dict(dtypes=(*NUMBERS, "bool"), values=EDGES),
    "_contrib_div_sqrt_dim": dict(values=EDGES),
}


def unary_specs() -> list[Spec]:
    found = []
    for name, domain in DOMAINS.items():
        for full in spellings(name):
            zero_size = full.startswith("_np")
            edges = {
                **(EDGY if domain.get("values") else {}),
                **({"bits": [DEFAULT, True]} if "bool" in domain.get("dtypes", ()) else {}),
            }
            found.append(
                Spec(
                    full, edges, unary(inputs_of(full)[0], **domain, np_shape=zero_size), np_shape=zero_size, examples=6
                )
            )
    return found


# --- two tensors -----------------------------------------------------------------------------------------------------


def binary(
    names,
    dtypes=FLOATS,
    broadcast=True,
    left=(-2.0, 2.0),
    right=(-2.0, 2.0),
    values=None,
    avoid=(),
    whole=None,
    np_shape=False,
) -> Build:
    """Two tensors of one type; ``values`` on purpose at times, and each with each where ``edges`` is drawn. ``whole``: of
    signed integers, the left ones and the range of the right ones.
    """

    def build(d: Draw, a: Attributes) -> Inputs:
        if a.pop("edges", False):
            dtype = d.pick([kind for kind in dtypes if np.dtype(kind).kind == "f"])
            pairs = np.array([(x, y) for x in in_range(values, dtype) for y in in_range(values, dtype)]).T
            return {name: Tensor(side.shape, dtype, values=side, dynamic=(0,)) for name, side in zip(names, pairs)}
        dtype = d.pick(dtypes)
        if broadcast:
            shapes = d.broadcastable((0 if np_shape else 1, 4), low=0 if np_shape else 1)
        else:
            shapes = (d.shape((1, 4)),) * 2
        if dtype == "bool":  # MXNet has no kernel that broadcasts the bits of bool
            shapes = shapes[:1] * 2
        if whole is not None and np.dtype(dtype).kind == "i":
            tensors = (Tensor(shapes[0], dtype, values=whole[0]), Tensor(shapes[1], dtype, *whole[1]))
            return dict(zip(names, tensors))
        special = values if values is not None and np.dtype(dtype).kind == "f" and d.boolean() else None
        tensors = [
            Tensor(
                shape,
                dtype,
                low,
                high,
                values=special,
                avoid=avoid,
                dynamic=(0,) if shape == shapes[0] == shapes[1] and shape else (),
            )
            for shape, (low, high) in zip(shapes, (left, right))
        ]
        return dict(zip(names, tensors))

    return build


FACTS: dict[str, dict] = {
    "add": dict(dtypes=NUMBERS, left=(-90, 90), right=(-90, 90), values=EDGES),
    "sub": dict(dtypes=NUMBERS, left=(-90, 90), right=(-90, 90), values=EDGES),
    "mul": dict(dtypes=NUMBERS, left=(-20, 20), right=(-20, 20), values=EDGES),
    "div": dict(dtypes=NUMBERS, left=(-90, 90), right=(1, 9), values=(NAN, INF, -1.0, 2.0, 0.0, -0.0)),
    "mod": dict(
        dtypes=("float32", *INTEGERS), left=(-9, 9), right=(-4, 4), values=(0.0, 1.0, -2.0, 7.0, -7.0, NAN, INF, -INF)
    ),
    "power": dict(
        dtypes=NUMBERS,
        left=(1, 4),
        right=(0, 3),
        values=(0.0, 1.0, -2.0, 3.0, NAN, INF),
        whole=((-3, -2, -1, 1, 2), (-3, 3)),
    ),
    "maximum": dict(dtypes=NUMBERS, left=(-9, 9), right=(-9, 9), values=EDGES),
    "minimum": dict(dtypes=NUMBERS, left=(-9, 9), right=(-9, 9), values=EDGES),
    "hypot": dict(dtypes=NUMBERS, values=(3e20, 4e20, 1e-25, 0.0, INF, -2.0)),
    "equal": dict(dtypes=NUMBERS, values=EDGES),
    "not_equal": dict(dtypes=NUMBERS, values=EDGES),
    "greater": dict(dtypes=NUMBERS, values=EDGES),
    "greater_equal": dict(dtypes=NUMBERS, values=EDGES),
    "lesser": dict(dtypes=NUMBERS, values=EDGES),
    "lesser_equal": dict(dtypes=NUMBERS, values=EDGES),
    "logical_and": dict(dtypes=NUMBERS, values=EDGES),
    "logical_or": dict(dtypes=NUMBERS, values=EDGES),
    "logical_xor": dict(dtypes=NUMBERS, values=EDGES),
}


def binary_specs() -> list[Spec]:
    found = []
    for name, draws in FACTS.items():
        for full, spread in ((f"elemwise_{name}", False), (f"_{name}", False), (f"broadcast_{name}", True)):
            if full in schemas():
                edges = EDGY if draws.get("values") else {}
                found.append(Spec(full, edges, binary(("lhs", "rhs"), **draws, broadcast=spread), examples=6))
    same = {"_grad_add": "add", "_scatter_elemwise_div": "div"}
    found += [Spec(full, {}, binary(("lhs", "rhs"), **FACTS[name], broadcast=False)) for full, name in same.items()]
    return found


ANGLES = (0.0, -0.0, 1.0, -1.0, INF, -INF, NAN)
WHOLE = ("int32", "int64", "int8", "uint8")
NP_BINARY: dict[str, dict] = {
    "hypot": dict(values=FACTS["hypot"]["values"], dtypes=("float32",)),
    "arctan2": dict(values=ANGLES),
    "copysign": dict(dtypes=NUMBERS, values=ANGLES),
    "ldexp": dict(dtypes=("float32", "int32", "int64"), left=(-9, 9), right=(-3, 3)),
    "bitwise_and": dict(dtypes=(*WHOLE, "bool"), left=(-99, 99), right=(-99, 99)),
    "bitwise_or": dict(dtypes=(*WHOLE, "bool"), left=(-99, 99), right=(-99, 99)),
    "bitwise_xor": dict(dtypes=(*WHOLE, "bool"), left=(-99, 99), right=(-99, 99)),
    **{
        name: dict(dtypes=(*NUMBERS, "bool"), values=EDGES)
        for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    },
}
MIXED = [
    ("float32", "float32"), ("float16", "float32"), ("float32", "int32"), ("int64", "float32"), ("float32", "bool"),
    ("bool", "float16"), ("int8", "float32"), ("float16", "int64"),
]  # fmt: skip
MIXED_INTEGERS = [
    ("int8", "int32"),
    ("int64", "int32"),
    ("uint8", "int32"),
    ("bool", "int32"),
    ("int8", "bool"),
    ("bool", "bool"),
]


def promoted(kinds, left=(-9, 9), right=(-9, 9), low=0) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        types = d.pick(kinds)
        shapes = d.broadcastable((0, 4), low=low)
        return {
            name: Tensor(shape, dtype, *between)
            for name, shape, dtype, between in zip(("lhs", "rhs"), shapes, types, (left, right))
        }

    return build


def np_binary_specs() -> list[Spec]:
    found = [
        Spec(
            f"_npi_{name}",
            EDGY if draws.get("values") else {},
            binary(inputs_of(f"_npi_{name}"), **draws, np_shape=True),
            np_shape=True,
        )
        for name, draws in NP_BINARY.items()
    ]
    same = [(kind, kind) for kind in INTEGERS]
    everything = MIXED + MIXED_INTEGERS + same
    for name, kinds, draws in (
        ("add", everything, {}),
        ("subtract", MIXED + same, {}),
        ("multiply", everything, {}),
        ("true_divide", [k for k in MIXED + same if k != ("float16", "float32")], dict(right=(1, 5))),
        ("mod", [("float32", "float32"), ("float32", "int32"), *same], dict(right=(1, 5))),
        ("power", everything, dict(left=(1, 3), right=(0, 3))),
    ):
        found.append(Spec(f"_npi_{name}", {}, promoted(kinds, **draws), np_shape=True, examples=10))
        if ("bool", "bool") in kinds:
            found.append(Spec(f"_npi_{name}", {}, promoted([("bool", "bool")], low=3), np_shape=True, examples=3))
    return found


# --- attributes ------------------------------------------------------------------------------------------------------


def clipped(d: Draw, a: Attributes) -> Inputs:
    dtype = d.pick(NUMBERS)
    shape = d.shape((1, 4))
    if dtype == "uint8" and a["a_max"] < 0:
        dtype = "int8"
    special = EDGES if np.dtype(dtype).kind == "f" and d.boolean() else None
    return {"data": Tensor(shape, dtype, -5, 5, values=special, dynamic=axes(shape))}


def casted(d: Draw, a: Attributes) -> Inputs:
    dtype = d.pick(NUMBERS if a.pop("numbers", False) else (*NUMBERS, "bool"))
    low = 0 if a["dtype"] == "uint8" and np.dtype(dtype).kind == "f" else -100
    shape = d.shape((1, 4))
    return {"data": Tensor(shape, dtype, low, 100, avoid=(0,) if a["dtype"] == "bool" else (), dynamic=axes(shape))}


def listed(prefix: str, count_name: str, dtypes=("float32",), same=True, low=1, high=3) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        number = d.integer(low, high)
        a[count_name] = number
        shape = d.shape((1, 4))
        dtype = d.pick(dtypes)
        return {
            f"{prefix}{i}": Tensor(shape if same else d.shape((1, 3)), dtype, dynamic=(0,) if same else ())
            for i in range(number)
        }

    return build


def multicast(d: Draw, a: Attributes) -> Inputs:
    number = int(a["num_outputs"])
    return {f"data_{i}": Tensor(d.shape((1, 3)), d.pick(("float32", "float16"))) for i in range(number)}


def chosen(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1, 4))
    dtype = d.pick(NUMBERS)
    flat = d.boolean()
    return {
        "condition": Tensor(
            shape[:1] if flat else shape, d.pick(("float32", "int32", "uint8")), values=(0, 0, 1, 2), dynamic=(0,)
        ),
        "x": Tensor(shape, dtype, dynamic=(0,)),
        "y": Tensor(shape, dtype, dynamic=(0,)),
    }


def np_chosen(*names: str, dtypes=NUMBERS) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        dtype = d.pick(dtypes)
        shapes = d.broadcastable((0, 3), low=0 if len(names) == 1 else 1)  # of nothing, MXNet's process ends
        condition = Tensor(shapes[0], d.pick(("float32", "int32", "bool")), values=(0, 1))
        return {"condition": condition, **{name: Tensor(shapes[1], dtype) for name in names}}

    return build


def compared(d: Draw, a: Attributes) -> Inputs:
    if a.pop("same", False):  # whether they are close hangs on NaN alone
        return {name: Tensor((3,), values=np.array((1.0, NAN, INF))) for name in ("a", "b")}
    if a.pop("tiny", False):  # a gap of 0.9 or 1.1 times what is allowed by default, from 0
        return {
            "a": Tensor((2,), values=np.zeros(2)),
            "b": Tensor((2,), values=np.array((0.0, d.pick((0.9e-8, 1.1e-8))))),
        }
    shape = d.shape((1, 3))
    values = (1.0, 1.0, 1.0, NAN, INF) if d.boolean() else (1.0,)
    near = (1.0, 1.0, 1.05, NAN, INF) if d.boolean() else (1.0, 1.0000001)
    scale = d.pick([1.0, 64.0])  # of 1, both tolerances mean the same
    values, near = (tuple(scale * number for number in numbers) for numbers in (values, near))
    if d.boolean():
        values, near = near, values
    return {"a": Tensor(shape, values=values), "b": Tensor(shape, values=near)}


def finite_list(d: Draw, a: Attributes) -> Inputs:
    number = d.integer(1, 3)
    a["num_arrays"] = number
    return {
        f"data_{i}": Tensor(d.shape((1, 3)), values=d.pick([(1.0, 2.0), (1.0, NAN), (INF, 2.0)])) for i in range(number)
    }


def signs(d: Draw, a: Attributes) -> Inputs:
    """1 and -1 to whole powers, some of which float32 does not hold."""
    exponents = np.array((0, 3, 16777217, 16777219))
    dtype = d.pick(("int32", "int64"))
    bases = [Tensor((4,), dtype, values=np.full(4, base)) for base in (1, -1)]
    return {"lhs": d.pick(bases), "rhs": Tensor((4,), dtype, values=exponents)}


SPECS = [
    *unary_specs(),
    Spec("broadcast_power", {}, signs, examples=4),
    *binary_specs(),
    *np_binary_specs(),
    Spec("MakeLoss", {"grad_scale": [DEFAULT, 0.5], "valid_thresh": [DEFAULT, 0.1], "normalization": [DEFAULT, "null", "batch", "valid"]}, unary("data")),
    Spec("_contrib_gradientmultiplier", {"scalar": [0.5, 2.0], "is_int": [DEFAULT, True, False]}, unary("data")),
    Spec("_npi_around", {"decimals": [DEFAULT, 0, 1, 2, -1]}, unary("x", ("float32",), -9, 9, avoid=(0.0,)), reference_dtype="float32", np_shape=True),
    Spec(
        "_npi_nan_to_num",
        {**EDGY, "copy": [DEFAULT, True, False], "nan": [DEFAULT, 0.0, 3.5], "posinf": [DEFAULT, None, 7.0], "neginf": [DEFAULT, None, -7.0]},
        unary("data", (*FLOATS, *NUMBERS), values=EDGES),
        reference_dtype="float32",
        np_shape=True,
    ),
    Spec("hard_sigmoid", {**EDGY, "alpha": [DEFAULT, 0.2, 0.5], "beta": [DEFAULT, 0.5, 0.1]}, unary("data", low=-5, high=5, values=EDGES)),
    Spec("smooth_l1", {**EDGY, "scalar": [DEFAULT, 1.0, 2.0, 0.5]}, unary("data", values=EDGES)),
    Spec("_contrib_quadratic", {"a": [DEFAULT, 1.5, -2.0], "b": [DEFAULT, 0.5, 3.0], "c": [DEFAULT, 1.0, -1.0]}, unary("data")),
    Spec("clip", {"a_min": [-3.0, -1.5], "a_max": [2.0, 3.5, -1.0]}, clipped, examples=10),
    Spec("clip", {"a_min": [-3e9, -3.0], "a_max": [200.0, 3e9]}, clipped),
    Spec("Cast", {"dtype": ["bool", "float16", "float32", "float64", "int32", "int64", "int8", "uint8"]}, casted, reference_dtype="float32", examples=15),
    Spec("amp_cast", {"numbers": [True], "dtype": ["float16", "float32", "float64", "int32", "int64", "int8", "uint8"]}, casted, reference_dtype="float32"),
    Spec("amp_multicast", {"num_outputs": [1, 3], "cast_narrow": [DEFAULT, False, True]}, multicast, outputs=lambda a: int(a["num_outputs"]), reference_dtype="float32"),
    Spec("add_n", {}, listed("args_", "num_args", NUMBERS, high=4), terms=lambda a, i: len(i)),
    Spec("where", {}, chosen, examples=10),
    Spec("_npi_where", {}, np_chosen("x", "y"), np_shape=True, examples=8),
    Spec("_npi_where_lscalar", {"scalar": [DEFAULT, 2.5, -1.0]}, np_chosen("x"), np_shape=True),
    Spec("_npi_where_rscalar", {"scalar": [DEFAULT, 2.5, -1.0]}, np_chosen("y"), np_shape=True),
    Spec("_npi_where_scalar2", {"x": [DEFAULT, 2.5, -1.0], "y": [DEFAULT, 0.5, 3.0]}, np_chosen(), np_shape=True),
    Spec("_contrib_allclose", {"rtol": [DEFAULT, 0.1, 1e-3], "atol": [DEFAULT, 0.01, 1e-6], "equal_nan": [DEFAULT, False, True]}, compared, examples=10),
    Spec("_contrib_allclose", {"tiny": [True]}, compared, examples=2),
    Spec("_contrib_allclose", {"same": [True], "equal_nan": [DEFAULT, False, True]}, compared, examples=2),
    Spec("all_finite", {"init_output": [DEFAULT, True]}, lambda d, a: {"data": Tensor(d.shape((1, 3)), values=d.pick([(1.0, 2.0), (1.0, NAN), (INF, 2.0)]))}),
    Spec("multi_all_finite", {"init_output": [DEFAULT, True]}, finite_list),
]  # fmt: skip
