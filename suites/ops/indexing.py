"""Slices, takes, gathers, scatters, masks: how their attributes and shapes are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor
from .reshaping import NUMBERS, moved

KEYS = ("int32", "int64", "float32")  # types of indices


def keys(
    d: Draw, shape: tuple[int, ...], low: int, high: int, dtypes: tuple[str, ...] = KEYS, **more: object
) -> Tensor:
    """Indices from low to high. Floats have a fraction, so that a rounding of the input is not another index."""
    dtype = d.pick(dtypes)
    if dtype == "float32":
        return Tensor(shape, dtype, values=[i + 0.375 for i in range(max(low, 0), high + 1)], **more)  # type: ignore[arg-type]
    return Tensor(shape, dtype, low=low, high=high, **more)  # type: ignore[arg-type]


def cube(d: Draw, a: Attributes) -> Inputs:
    return {"data": moved(d, d.shape(3, 4, 6))}


SLICES = {
    (0,): (2,), (1, 0): (3, 2), (None, 1): (None, None), (-3,): (-1,), (None, None): (-3, 2), (0, 0, 1): (9, 9, 9),
}  # fmt: skip


def sliced(d: Draw, a: Attributes) -> Inputs:
    a["end"] = {**SLICES, (-1, 3): (None, 0)}[a["begin"]]
    return {"data": moved(d, d.shape(3, 4, 6))}


STEPS = {(0,): (1,), (1, 0): (2, 1), (None, 1): (None, 3), (-1, 3): (-1, -2), (None, None): (1, 1)}


def stepped(d: Draw, a: Attributes) -> Inputs:
    a["step"] = STEPS[a["begin"]]
    return sliced(d, a)


OPEN = {
    (None, 1): (None, None), (1, None): (None, None), (0,): (-1,), (1,): (-1,), (None,): (None,), (-3,): (None,), (-4,): (3,),
    (2,): (None,), (-1,): (None,),
}  # fmt: skip
OPEN_STEPS = {(None,): (2, -1, -2, 1), (1, None): (2,), (2,): (2, -1), (-1,): (-1, -3), (-3,): (1, 2)}


def open_sliced(d: Draw, a: Attributes) -> Inputs:
    """A sliced axis whose size may vary."""
    a["end"] = OPEN[a["begin"]]
    if a["begin"] in OPEN_STEPS and d.boolean():
        a["step"] = (d.pick(OPEN_STEPS[a["begin"]]), *(None,) * (len(a["begin"]) - 1))
    return {"data": moved(d, (d.pick((4, 5)), 5, 6), dynamic=(0,))}


def shape_like(d: Draw, a: Attributes) -> Inputs:
    data = d.shape(3, 3, 5)
    other = tuple(d.integer(1, size) for size in data)
    moving = tuple(range(3))
    return {"data": moved(d, data, dynamic=moving), "shape_like": Tensor(other, d.pick(NUMBERS), dynamic=moving)}


def assigned(d: Draw, a: Attributes) -> Inputs:
    shape, dtype = (4, 5, 6), d.pick(NUMBERS)
    if "step" not in a and a["begin"] in STEPS and d.boolean():
        a["step"] = STEPS[a["begin"]]
    a["end"] = SLICES[a["begin"]]
    slices = [slice(*bound) for bound in zip(a["begin"], a["end"], a.get("step", (None,) * 3))]
    part = np.empty(shape)[tuple(slices)].shape
    return {"lhs": Tensor(shape, dtype), "rhs": Tensor(part, dtype)}


def strided(d: Draw, a: Attributes) -> Inputs:
    a["begin"], a["end"], a["step"] = (0, 1), (5, 6), (2, 2)
    dtype = d.pick(NUMBERS)
    inputs = {"lhs": Tensor((5, 6, 2), dtype), "rhs": Tensor((3, 3, 2), dtype)}
    return {"data": inputs["lhs"]} if "scalar" in a else inputs


def assigned_scalar(d: Draw, a: Attributes) -> Inputs:
    return {"data": assigned(d, a)["lhs"]}


def taken(d: Draw, a: Attributes) -> Inputs:
    data = d.shape(3, 2, 5)
    size = data[a.get("axis", 0)]
    outside = 0 if a.get("mode") == "raise" else 3
    low = 0 if outside == 0 else -4
    types = ("int32", "int64") if a.get("mode") == "raise" else KEYS
    return {
        "a": moved(d, data, dynamic=() if a.get("mode") == "raise" else (0, 1, 2)),
        "indices": keys(d, d.shape((1, 2)), low, size - 1 + outside, types, dynamic=(0,), const=d.boolean()),
    }


def taken_once(d: Draw, a: Attributes) -> Inputs:
    """One slice, by an index without axes."""
    shape = d.shape((1, 3), 2)
    where = keys(d, (), -3, shape[0] + 2)
    if "keepdims" in a:  # pick has it, and takes one element of a vector
        return {"data": moved(d, shape[:1], dynamic=(0,)), "index": where}
    return {"a": moved(d, shape, dynamic=(0,)), "indices": where}


def embedded(d: Draw, a: Attributes) -> Inputs:
    dtype = a.get("dtype", "float32")
    rows = keys(d, d.shape((1, 3)), -2, a["input_dim"] + 2, ("int32", "int64", "float32", "uint8"), dynamic=(0,))
    return {"data": rows, "weight": Tensor((a["input_dim"], a["output_dim"]), dtype, const=d.boolean())}


def gathered(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape(3, 3, 5)
    count = d.integer(1, 3)
    return {
        "data": moved(d, shape),
        "indices": Tensor((count, *d.shape((1, 2))), d.pick(("int32", "int64")), low=-3, high=2),
    }


def gathered_by_constants(d: Draw, a: Attributes) -> Inputs:
    inputs = gathered(d, a)
    indices = inputs["indices"]
    return {**inputs, "indices": replace(indices, const=True, low=d.pick((-3, 0)))}


def places(rng_seed: int, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Coordinates without repetition, as (axes, count)."""
    found = np.random.default_rng(rng_seed).permutation(int(np.prod(shape)))[:count]
    return np.array(np.unravel_index(found, shape))


def scattered(d: Draw, a: Attributes) -> Inputs:
    shape = a["shape"]
    depth = d.integer(1, len(shape))
    where = places(d.integer(0, 99), shape[:depth], d.integer(1, 3))
    dtype = d.pick(("float32", "float64", "int32", "int64", "uint8"))
    return {
        "data": Tensor((where.shape[1], *shape[depth:]), dtype),
        "indices": Tensor(where.shape, d.pick(("int32", "int64")), values=where),
    }


def set_nd(d: Draw, a: Attributes) -> Inputs:
    inner = scattered(d, a)
    return {"lhs": Tensor(a["shape"], inner["data"].dtype), "rhs": inner["data"], "indices": inner["indices"]}


def picked(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape(1 if a.pop("line", False) else (2, 4))
    axis = a.get("axis", -1)
    lines = list(shape)
    lines[axis] = 1
    if not a.get("keepdims") and d.boolean():
        lines.pop(axis)
    return {"data": moved(d, shape, dynamic=(axis % len(shape),)), "index": keys(d, tuple(lines), -3, shape[axis] + 2)}


def batch_taken(d: Draw, a: Attributes) -> Inputs:
    rows, columns = d.sizes(2)
    return {
        "a": moved(d, (rows, columns), ("float32", "float64", "int32")),
        "indices": Tensor((rows,), "int32", low=-2, high=columns + 1),
    }


def hot(d: Draw, a: Attributes) -> Inputs:
    return {"indices": keys(d, d.shape((1, 3)), -2, a["depth"] + 1, dynamic=(0,))}


def copied(d: Draw, a: Attributes) -> Inputs:
    old = (5, *d.shape((0, 2)))
    rows = np.random.default_rng(d.integer(0, 99)).permutation(5)[: d.integer(1, 4)]
    return {
        "old": Tensor(old),
        "index": Tensor(rows.shape, d.pick(("int32", "int64")), values=rows),
        "new": Tensor((len(rows), *old[1:])),
    }


def flat_places(d: Draw, a: Attributes) -> Inputs:
    return {"data": keys(d, d.shape(1), 0, 23, dynamic=(0,))}


def coordinates(d: Draw, a: Attributes) -> Inputs:
    return {"data": keys(d, (len(a["shape"]), *d.shape(1)), 0, 3, dynamic=(1,))}


def masked(d: Draw, a: Attributes) -> Inputs:
    shape, start = d.shape(3), a.get("start_axis", 0)
    rank = d.integer(1, 3 - start)
    return {"data": moved(d, shape), "mask": Tensor(shape[start : start + rank], "bool")}


def mask_values(d: Draw, a: Attributes) -> Inputs:
    shape, start = d.shape(3, 1, 4), a.get("start_axis", 0)
    rank = d.integer(1, 3 - start)
    if a.pop("thin", False):  # one row before the masked axis, and not one slice for all
        shape, rank = (1, 4, 3), 1
    sliced = a.pop("slice", False)
    rank = min(rank, 2) if sliced else rank
    mask = np.random.default_rng(d.integer(0, 99)).integers(0, 2, shape[start : start + rank]).astype(bool)
    mask.flat[0] = True
    count = int(mask.sum()) if shape == (1, 4, 3) or d.boolean() else 1
    value = shape[start + rank :] if sliced else (*shape[:start], count, *shape[start + rank :])
    return {"data": Tensor(shape), "mask": Tensor(mask.shape, "bool", values=mask), "value": Tensor(value)}


def deleted(d: Draw, a: Attributes) -> Inputs:
    """Positions to delete as a parameter, of the axis or of the flattened data."""
    shape = d.shape(3, 4, 6)
    size = int(np.prod(shape)) if a.get("axis") is None else shape[a["axis"]]
    where = np.random.default_rng(d.integer(0, 99)).permutation(size)[: d.integer(2, 3)]
    return {"data": moved(d, shape), "obj": Tensor(where.shape, "int64", values=where, const=True)}


def legal_delete(a: Attributes) -> bool:
    return ("int_ind" in a) != ("stop" in a) and (("start" in a) == ("stop" in a) == ("step" in a))


AXIS = [0, 1, 2, -1]

SPECS = [
    Spec("slice", {"begin": list(SLICES)}, sliced),
    Spec("slice", {"begin": list(STEPS)}, stepped),
    Spec("slice", {"begin": [(None,)], "end": [(None,)], "step": [(2,), (-1,)]}, cube, examples=2),
    Spec("slice", {"begin": list(OPEN)}, open_sliced, varying=10),
    Spec("slice", {"begin": [(None,)], "end": [(None,)], "step": [(2,), (-2,), (-3,)]},
         lambda d, a: {"data": moved(d, (d.pick((5, 4)), 2), dynamic=(0,))}, examples=1, varying=6),
    Spec("slice_axis", {"axis": AXIS, "begin": [0, 1, -3], "end": [None, 3, -1]}, cube,
         legal=lambda a: (a["begin"], a["end"]) != (-3, 3)),
    Spec("slice_axis", {"axis": [0], "begin": [0, 1, -3], "end": [None, 3, -1]},
         lambda d, a: {"data": moved(d, (5, 2), dynamic=(0,))},
         legal=lambda a: (a["begin"], a["end"]) != (-3, 3), examples=1, varying=9),
    Spec("slice_axis", {"axis": [0, 1], "begin": [1, -2], "end": [2, -1]}, lambda d, a: {"data": moved(d, (3, 3))}, examples=3),
    Spec("slice_like", {"axes": [DEFAULT, (), (0,), (1, 2), (-1,)]}, shape_like, varying=8),
    Spec("_slice_assign", {"begin": list(SLICES)}, assigned),
    Spec("_slice_assign_scalar", {"begin": list(SLICES), "scalar": [DEFAULT, 2.7, -1.0]}, assigned_scalar,
         legal=lambda a: True),
    Spec("_slice_assign", {}, strided, examples=2),
    Spec("_slice_assign_scalar", {"scalar": [1.5]}, strided, examples=2),
    Spec("take", {"axis": [DEFAULT, 0, 1, -1], "mode": [DEFAULT, "clip", "wrap", "raise"]}, taken),
    Spec("take", {"axis": [0], "mode": ["clip", "wrap"]}, taken_once, np_shape=True, examples=2, varying=3),
    Spec("pick", {"keepdims": [True, False], "mode": ["clip", "wrap"]}, taken_once, np_shape=True, examples=2, varying=3),
    Spec("Embedding", {"input_dim": [1, 6], "output_dim": [1, 4], "sparse_grad": [DEFAULT, False],
                       "dtype": [DEFAULT, "float32", "float16", "float64", "int32", "int64", "int8", "uint8"]}, embedded),
    Spec("_contrib_SparseEmbedding", {"input_dim": [2, 6], "output_dim": [1, 4],
                                      "dtype": [DEFAULT, "float16", "float32", "float64", "int32", "uint8"]}, embedded),
    Spec("gather_nd", {}, gathered),
    Spec("gather_nd", {}, gathered_by_constants, examples=6),
    Spec("scatter_nd", {"shape": [(5,), (3, 4), (2, 3, 2)]}, scattered),
    Spec("_scatter_set_nd", {"shape": [(5,), (3, 4), (2, 3, 2)]}, set_nd),
    Spec("pick", {"axis": [DEFAULT, 0, 1, -1, -2], "keepdims": [DEFAULT, True, False], "mode": [DEFAULT, "clip", "wrap"]}, picked),
    Spec("pick", {"line": [True], "keepdims": [True, False]}, picked),
    Spec("batch_take", {}, batch_taken),
    Spec("one_hot", {"depth": [1, 4], "on_value": [DEFAULT, 2.5, -1.0], "off_value": [DEFAULT, 0.5, -2.0],
                     "dtype": [DEFAULT, "float32", "float16", "float64", "int32", "int64", "int8", "uint8"]}, hot),
    Spec("one_hot", {"depth": [3], "off_value": [0.5, -2.0]}, hot, examples=2),
    Spec("_contrib_index_copy", {}, copied),
    Spec("_contrib_index_array", {"axes": [DEFAULT, None, (0,), (2,), (1, 0), (-1,)]},
         lambda d, a: {"data": moved(d, d.shape(3), dynamic=(0, 2))}),
    Spec("_npi_boolean_mask_assign_scalar", {"value": [2.5, -1.0], "start_axis": [DEFAULT, 0, 1]}, masked),
    Spec("_npi_boolean_mask_assign_tensor", {"start_axis": [DEFAULT, 0, 1]}, mask_values, examples=15),
    Spec("_npi_boolean_mask_assign_tensor", {"slice": [True]}, mask_values),
    Spec("_npi_boolean_mask_assign_tensor", {"start_axis": [1], "thin": [True]}, mask_values),
    Spec("_npi_delete", {"int_ind": [DEFAULT, 0, 2, -1], "start": [DEFAULT, 0, 1], "stop": [DEFAULT, 2, 3], "step": [DEFAULT, 1, 2],
                         "axis": [DEFAULT, None, 0, 1, -1]}, cube, legal=legal_delete),
    Spec("_npi_delete", {"axis": [DEFAULT, None, 0, 1, -1]}, deleted),
    Spec("_ravel_multi_index", {"shape": [(5,), (4, 6), (4, 4, 4)]}, coordinates),
    Spec("_unravel_index", {"shape": [(24,), (4, 6), (2, 3, 4), (-1, 3)]}, flat_places),
]  # fmt: skip
