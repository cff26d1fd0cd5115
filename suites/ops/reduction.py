"""Reductions, positions of extremes, cumulative sums and differences: how their inputs are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Build, Draw, Inputs, Spec, Tensor

FLOATS = ("float32", "float32", "float16")
INTEGERS = ("int32", "int64", "int8", "uint8")
NAN, INF = float("nan"), float("inf")
AXES = [DEFAULT, None, (), 0, -1, (1,), (0, 2), (-1, 0), (2, 0, 1)]


def rank_for(d: Draw, axis, low: int = 1, high: int = 4) -> int:
    """A rank in which the axis or axes exist."""
    axes = axis if isinstance(axis, tuple) else () if axis in (DEFAULT, None) else (axis,)
    least = max([low, *(a + 1 if a >= 0 else -a for a in axes)])
    if len({a % 3 for a in axes}) == 3 or (0 in axes and -1 in axes):
        least = max(least, 2, len(axes))
    return d.integer(least, max(least, high))


def tensor(
    dtypes=FLOATS, low=-2.0, high=2.0, values=None, distinct=False, name="data", rank=(1, 4), sizes=(1, 5), key="axis"
) -> Build:
    def build(d: Draw, a: Attributes) -> Inputs:
        dtype = d.pick(dtypes)
        shape = d.sizes(rank_for(d, a.get(key), *rank), *sizes)
        special = values if values is not None and dtype == "float32" and d.boolean() else None
        return {
            name: Tensor(
                shape,
                dtype,
                low,
                high,
                values=special,
                distinct=distinct and special is None,
                dynamic=(0,) if shape else (),
            )
        }

    return build


def elements(a: Attributes, inputs: Inputs) -> int:
    return max(int(np.prod(next(iter(inputs.values())).shape)), 1)


LEGACY = {"axis": AXES, "keepdims": [DEFAULT, False, True], "exclude": [DEFAULT, False, True]}
NP = {"axis": [DEFAULT, None, (0,), (-1,), (0, 2), ()], "keepdims": [DEFAULT, False, True]}
LAST = {"axis": [DEFAULT, None, 0, 1, -1], "keepdims": [DEFAULT, False, True]}


def typed_reduction(d: Draw, a: Attributes) -> Inputs:
    """Floats stay floats; integers and bool become what is asked for (bool no small integers: MXNet refuses)."""
    wanted = a.get("dtype")
    whole = INTEGERS if wanted in ("int8", "uint8") else (*INTEGERS, "bool")
    dtype = d.pick(FLOATS if wanted in ("float16", "float32", "float64") else whole)
    if wanted in (None, "None"):
        dtype = d.pick((*FLOATS, *INTEGERS, "bool"))
    shape = d.sizes(rank_for(d, a.get("axis"), 0), 1, 4)
    return {"a": Tensor(shape, dtype, -3, 3, dynamic=(0,) if shape else ())}


def beyond_int32(d: Draw, a: Attributes) -> Inputs:
    return {"a": Tensor((3, 2), "int32", values=[2**30, 2**30 - 1])}


def of_type(attribute: str, name: str, sizes: tuple[int, int] = (1, 5)) -> Build:
    """Data of the type that an attribute asks for."""
    return lambda d, a: {name: Tensor(d.sizes(rank_for(d, a.get("axis")), *sizes), a[attribute], dynamic=(0,))}


def averaged(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis")
    shape = d.sizes(rank_for(d, axis), 1, 4)
    inputs = {"a": Tensor(shape, dynamic=(0,))}
    if a.get("weighted", True):
        flat = a.pop("flat", False) or (isinstance(axis, tuple) and len(axis) == 1 and d.boolean())
        inputs["weights"] = Tensor((shape[axis[0]],) if flat else shape, low=0.5, high=2.0)
    return inputs


def crossed(d: Draw, a: Attributes) -> Inputs:
    rows, classes = d.sizes(2)
    return {
        "data": Tensor((rows, classes), dynamic=(0,)),
        "label": Tensor((rows,), values=np.arange(rows) % classes),
    }


def listed(d: Draw, a: Attributes) -> Inputs:
    number, dtype = d.integer(1, 4), d.pick(("float32", "float16"))
    a["num_arrays"] = number
    return {f"data_{i}": Tensor(d.shape((1, 3)), dtype) for i in range(number)}


def differenced(d: Draw, a: Attributes) -> Inputs:
    n, axis = a.get("n", 1), a.get("axis", -1)
    rank = d.integer(2, 3)
    shape = list(d.sizes(rank, 1, 4))
    shape[axis] = n + d.integer(1, 3)
    return {"a": Tensor(tuple(shape), d.pick((*FLOATS, *INTEGERS)), -9, 9)}


def ends(d: Draw, a: Attributes) -> Inputs:
    dtype = d.pick(("float32", "float32", "int32"))
    inputs = {"input1": Tensor(d.shape((1, 3), low=2), dtype, -9, 9)}
    for key, name in (("to_begin_arr_given", "input2"), ("to_end_arr_given", "input3")):
        if a.get(key):
            inputs[name] = Tensor(d.shape((1, 2)), dtype, -9, 9)
    return inputs


def one_end(a: Attributes) -> bool:
    return not any(a.get(f"to_{end}_arr_given") and a.get(f"to_{end}_scalar") is not None for end in ("begin", "end"))


def polynomial(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((0, 3))
    return {"p": Tensor(d.sizes(1, 1, 5), const=d.boolean()), "x": Tensor(shape, dynamic=(0,) if shape else ())}


def ranked(d: Draw, a: Attributes) -> Inputs:
    shape = d.sizes(rank_for(d, a.get("axis")), 1, 4)
    inputs = {"a": Tensor(shape, d.pick(("float32", "int32")), -9, 9)}
    if "q_scalar" not in a:
        inputs["q"] = Tensor(d.shape((1, 1), high=3), low=0, high=100, const=True, values=(0.0, 20.0, 37.5, 50.0, 99.0))
    return inputs


def sampled(*names: str) -> Build:
    """Samples in rows, one parameter each."""

    def build(d: Draw, a: Attributes) -> Inputs:
        shape = d.shape((2, 3))
        low = {"low": (-2.0, 0.0), "mu": (-1.0, 1.0)}
        parameters = {name: Tensor(shape[:1], "float32", *low.get(name, (0.5, 2.0))) for name in names}
        return {"sample": Tensor(shape, low=0, high=3), **parameters}

    return build


IS_LOG = {"is_log": [DEFAULT, False, True]}
SPECS = [
    Spec("_random_pdf_normal", IS_LOG, sampled("mu", "sigma")),
    Spec("_random_pdf_uniform", IS_LOG, sampled("low", "high")),
    Spec("_random_pdf_exponential", IS_LOG, sampled("lam")),
    Spec("sum", LEGACY, tensor((*FLOATS, *INTEGERS), -9, 9), terms=elements, also=("nansum",), examples=8),
    Spec("nansum", {"axis": [DEFAULT, 0]}, tensor(("float32",), values=(NAN, 1.5, -2.0, 4.0)), terms=elements, also=("nanprod",)),
    Spec("mean", LEGACY, tensor((*FLOATS, "int32", "int64"), -9, 9), terms=elements, examples=8),
    Spec("mean", {"axis": [DEFAULT, 0, (0, 1)]}, lambda d, a: {"data": Tensor(d.shape((2, 3), high=4), d.pick(("int8", "uint8")), -9, 9)}, examples=3),
    Spec("prod", LEGACY, tensor((*FLOATS, "int32", "int64", "int8"), -2, 2, sizes=(1, 3)), terms=elements, also=("nanprod",), examples=8),
    Spec("max", LEGACY, tensor((*FLOATS, *INTEGERS), -9, 9, values=(INF, -INF, 0.0, -0.0), distinct=True), also=("min",), examples=8),
    Spec("norm", {"ord": [DEFAULT, 1, 2], "axis": [DEFAULT, None, 0, -1, (1,), (0, 2)], "keepdims": [DEFAULT, False, True], "out_dtype": [DEFAULT, None]}, tensor(("float32",)), terms=elements, reference_dtype="float32"),
    Spec("norm", {"ord": [DEFAULT, 1, 2], "axis": [DEFAULT, 0, (0, 2)], "out_dtype": ["float16", "float32", "float64"]}, of_type("out_dtype", "data"), terms=elements, reference_dtype="float32"),
    Spec("moments", {"axes": [(0,), (1,), (0, 2), (-1,)], "keepdims": [DEFAULT, False, True]}, tensor(("float32",), rank=(1, 4), key="axes"), terms=elements, outputs=2),
    Spec("_np_sum", {**NP, "dtype": [DEFAULT, None, "float16", "float32", "float64", "int32", "int64", "int8"], "initial": [DEFAULT, None]}, typed_reduction, terms=elements, np_shape=True, reference_dtype="float32", examples=10),
    Spec("_np_prod", {**NP, "dtype": [DEFAULT, None, "float16", "float32", "float64", "int32", "int64", "int8"], "initial": [DEFAULT, None]}, typed_reduction, terms=elements, np_shape=True, reference_dtype="float32", examples=10),
    Spec("_np_max", {**NP, "initial": [DEFAULT, None]}, tensor((*FLOATS, *INTEGERS), -9, 9, values=(INF, -INF, 0.0), distinct=True, name="a", rank=(0, 4)), np_shape=True, also=("_np_min",)),
    Spec("_npi_mean", {**NP, "dtype": [DEFAULT, None, "float16", "float32", "float64"], "initial": [DEFAULT, None]}, typed_reduction, terms=elements, np_shape=True, reference_dtype="float32", examples=10),
    Spec("_np_any", NP, tensor((*FLOATS, *INTEGERS, "bool"), 0, 1, values=(0.0, NAN, -0.0)), np_shape=True, also=("_np_all",)),
    Spec("_npi_var", {**NP, "dtype": [DEFAULT, None, "float32"], "ddof": [DEFAULT, 0, 1]}, tensor(("float32",), name="a", sizes=(2, 4)), legal=lambda a: a.get("axis") != (), terms=elements, np_shape=True, also=("_npi_std",)),
    Spec("_npi_var", {"axis": [DEFAULT, (0,), (0, 2)], "dtype": ["float16", "float64"], "ddof": [DEFAULT, 1]}, of_type("dtype", "a", (2, 4)), terms=elements, np_shape=True, reference_dtype="float32", also=("_npi_std",)),
    Spec("_npi_var", {"axis": [DEFAULT, (0,)], "dtype": ["float16"], "ddof": [DEFAULT, 1]}, tensor(("float32",), name="a", sizes=(2, 4)), terms=elements, np_shape=True, reference_dtype="float32", also=("_npi_std",)),
    Spec("_npi_average", {"axis": [DEFAULT, None, (0,), (-1,), (0, 2)], "returned": [DEFAULT, False, True], "weighted": [DEFAULT, True, False]}, averaged, terms=elements, outputs=2, np_shape=True),
    Spec("_npi_average", {"axis": [(0,), (-1,), (1,)], "flat": [True], "returned": [False, True]}, averaged, terms=elements, outputs=2, np_shape=True, examples=3),
    Spec("argmax", LAST, tensor((*FLOATS, "int32"), -9, 9, distinct=True, rank=(2, 4)), also=("argmin",), reference_dtype="float32"),
    Spec("_npi_argmax", LAST, tensor((*FLOATS, "int32"), -9, 9, distinct=True, rank=(2, 4)), np_shape=True, also=("_npi_argmin",)),
    Spec("argmax_channel", {}, tensor(("float32",), distinct=True, rank=(2, 2)), reference_dtype="float32"),
    Spec("multi_sum_sq", {}, listed, terms=elements, reference_dtype="float32"),
    Spec("softmax_cross_entropy", {}, crossed, terms=elements),
    Spec("_np_cumsum", {"axis": [DEFAULT, None, 0, 1], "dtype": [DEFAULT, None, "float32", "float16", "float64", "int32", "int64", "int8"]}, typed_reduction, terms=elements, reference_dtype="float32", np_shape=True, examples=8),
    Spec("_np_cumsum", {"axis": [0], "dtype": ["int64"]}, beyond_int32, np_shape=True, examples=1),
    Spec("_npi_diff", {"n": [DEFAULT, 0, 1, 2, 3], "axis": [DEFAULT, -1, 0, 1]}, differenced, np_shape=True, terms=lambda a, i: 8),
    Spec("_npi_ediff1d", {"to_begin_arr_given": [DEFAULT, False, True], "to_end_arr_given": [DEFAULT, False, True], "to_begin_scalar": [DEFAULT, None, 1.5], "to_end_scalar": [DEFAULT, None, -2.0]}, ends, legal=one_end, np_shape=True),
    Spec("_npi_polyval", {}, polynomial, np_shape=True, terms=lambda a, i: 5),
    Spec("_npi_polyval", {}, lambda d, a: {"p": Tensor((3,)), "x": Tensor(())}, np_shape=True, terms=lambda a, i: 5, examples=1),
    Spec("_npi_percentile", {"axis": [DEFAULT, None, (0,), (-1,), (0, 2)], "interpolation": [DEFAULT, "linear", "lower", "higher", "nearest", "midpoint"], "keepdims": [DEFAULT, False, True], "q_scalar": [DEFAULT, 30.0, 75.0]}, ranked, np_shape=True, reference_dtype="float32", examples=8),
]  # fmt: skip
