"""Pad, np.pad, Crop, im2col and col2im: how their attributes and shapes are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor
from .reshaping import moved

FLOATS = ("float32", "float64", "float16")


def padded(d: Draw, a: Attributes) -> Inputs:
    rank = len(a["pad_width"]) // 2
    return {"data": moved(d, (*d.sizes(2, 1, 3), *d.sizes(rank - 2, 4, 5)), FLOATS, (0,))}


def np_padded(d: Draw, a: Attributes) -> Inputs:
    rank = len(a["pad_width"])
    dtypes = ("float32", "float64", "int32", "int64", "bool")
    return {"data": Tensor(d.shape(rank, 4, 5), d.pick(dtypes), low=-100, high=100)}


def cropped(d: Draw, a: Attributes) -> Inputs:
    a["num_args"] = 1
    return {"data": Tensor((*d.sizes(2, 1, 3), *d.sizes(2, 5, 7)), dynamic=(0,))}


def cropped_like(d: Draw, a: Attributes) -> Inputs:
    a["num_args"] = 2
    data = (*d.sizes(2, 1, 3), *d.sizes(2, 6, 8))
    return {"data": Tensor(data, dynamic=(0, 2, 3)), "like": Tensor((1, 1, *d.sizes(2, 1, 4)), dynamic=(2, 3))}


def cropped_half(d: Draw, a: Attributes) -> Inputs:
    """The sizes of one of the two inputs vary."""
    inputs, kept = cropped_like(d, a), a.pop("kept")
    return {name: replace(tensor, dynamic=()) if name == kept else tensor for name, tensor in inputs.items()}


def windows(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor((*d.sizes(2, 1, 3), *d.sizes(2, 5, 6)), dynamic=(0,))}


def columns(d: Draw, a: Attributes) -> Inputs:
    sizes = a["output_size"]
    places = 1
    for i, size in enumerate(sizes):
        k, s, t, p = (a.get(name, default)[i] for name, default in
                      (("kernel", None), ("stride", (1, 1)), ("dilate", (1, 1)), ("pad", (0, 0))))  # fmt: skip
        places *= (size + 2 * p - t * (k - 1) - 1) // s + 1
    return {"data": Tensor((d.integer(1, 3), d.integer(1, 2) * int(np.prod(a["kernel"])), places), dynamic=(0,))}


GEOMETRY = {
    "kernel": [(1, 1), (2, 2), (3, 2)],
    "stride": [DEFAULT, (1, 1), (2, 1), (3, 2)],
    "dilate": [DEFAULT, (1, 1), (2, 1), (1, 2)],
    "pad": [DEFAULT, (0, 0), (1, 0), (1, 2)],
}

F32 = {"reference_dtype": "float32"}
SPECS = [
    Spec("Pad", {"mode": ["constant", "edge", "reflect"], "constant_value": [DEFAULT, 1.5, -2.0],
                 "pad_width": [(0, 0, 0, 0, 1, 2, 3, 0), (0, 0, 0, 0, 0, 0, 2, 2), (0, 0, 0, 0, 1, 0, 2, 3, 0, 1), (0,) * 8]}, padded,
         legal=lambda a: a["mode"] == "constant" or "constant_value" not in a),
    Spec("Pad", {"mode": ["edge"], "constant_value": [1.5], "pad_width": [(0, 0, 0, 0, 1, 2, 3, 0)]}, padded, examples=1),
    Spec("_npi_pad", {"mode": [DEFAULT, "constant", "edge", "reflect", "symmetric", "maximum", "minimum"],
                      "constant_value": [DEFAULT, 1.0, -2.0], "reflect_type": [DEFAULT, "even"],
                      "pad_width": [((1, 2), (0, 3)), ((0, 0), (2, 1)), ((1, 0), (0, 0), (2, 2))]}, np_padded, np_shape=True),
    Spec("_npi_pad", {"mode": ["constant", "edge", "maximum"], "reflect_type": ["odd"], "pad_width": [((1, 2), (0, 3))]},
         np_padded, np_shape=True, examples=2),
    Spec("Crop", {"h_w": [(2, 3), (4, 1)], "offset": [DEFAULT, (1, 0), (0, 2)], "center_crop": [DEFAULT, False]}, cropped, **F32),
    Spec("Crop", {"h_w": [(2, 3), (4, 1)], "center_crop": [True]}, cropped, **F32),
    Spec("Crop", {"offset": [DEFAULT, (1, 0), (0, 2)], "center_crop": [DEFAULT, False]}, cropped_like, **F32),
    Spec("Crop", {"center_crop": [True]}, cropped_like, **F32),
    Spec("Crop", {"kept": ["data", "like"], "center_crop": [False, True]}, cropped_half, examples=1, **F32),
    Spec("im2col", GEOMETRY, windows),
    Spec("col2im", {**GEOMETRY, "output_size": [(5, 6), (6, 5)]}, columns, terms=lambda a, i: 6),
]  # fmt: skip
