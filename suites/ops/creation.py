"""Zeros, ones, ranges, windows, shapes as data: how their attributes and shapes are drawn."""

from __future__ import annotations

from .case import DEFAULT, Spec, Tensor
from .reshaping import NUMBERS, any_data, moved

TYPES = [DEFAULT, "float16", "float32", "float64", "int32", "int64", "int8", "uint8"]


def nothing(d, a):
    return {}


SHAPES = [(1,), (3,), (2, 3), (1, 2, 1, 3)]
SPECS = [
    Spec("_zeros", {"shape": SHAPES, "dtype": [*TYPES, "bool"]}, nothing, also=("_npi_zeros", "_ones", "_npi_ones")),
    Spec("_npi_zeros", {"shape": [DEFAULT, (), (0,), (2, 0)], "dtype": [DEFAULT]}, nothing, np_shape=True, also=("_npi_ones",)),
    Spec("_full", {"shape": SHAPES, "value": [0.0, 2.5, -3.0], "dtype": [*TYPES[:-1], "bool"]}, nothing),
    Spec("_full", {"shape": SHAPES, "value": [0.0, 2.5, 3.0], "dtype": ["uint8"]}, nothing),
    Spec("_zeros_without_dtype", {"shape": SHAPES, "dtype": [0, 1, 4, 6]}, nothing),
    Spec("_npi_identity", {"shape": [(1, 1), (3, 3)], "dtype": [*TYPES, "bool"]}, nothing),
    Spec("_eye", {"N": [1, 3], "M": [DEFAULT, 0, 2, 5], "k": [DEFAULT, 0, 1, -1, 7], "dtype": TYPES}, nothing),
    Spec("_npi_eye", {"N": [1, 3], "M": [DEFAULT, None, 2, 5], "k": [DEFAULT, 0, 1, -1, 7], "dtype": TYPES}, nothing),
    Spec("_npi_indices", {"dimensions": [(2,), (2, 3), (1, 3, 2)], "dtype": TYPES}, nothing),
    Spec("_arange", {"start": [0, 0.5, -2], "stop": [3, 7.5], "step": [DEFAULT, 1, 0.3, 2], "repeat": [DEFAULT, 1, 3],
                     "infer_range": [DEFAULT, False], "dtype": TYPES}, nothing,
         legal=lambda a: a.get("step") != 0.3 or a.get("dtype") in (None, "float32", "float64")),
    Spec("_npi_arange", {"start": [0, 0.5, -2], "stop": [3, 7.5], "step": [DEFAULT, 1, 2], "dtype": TYPES}, nothing),
    Spec("_arange", {"start": [5, 7], "stop": [0, -2.5], "step": [-2, -1]}, nothing),
    Spec("_arange", {"start": [1, 4.5], "stop": [DEFAULT, None]}, nothing),
    Spec("_contrib_arange_like", {"start": [DEFAULT, 0, 1.5], "step": [DEFAULT, 1, 0.3, -2], "repeat": [DEFAULT, 1, 2],
                                  "axis": [DEFAULT, None, 0, -1]},
         lambda d, a: {"data": Tensor(d.shape(3), d.pick(("float32", "float64", "float16", "int32")), dynamic=(0, 2))}, examples=10, varying=10),
    Spec("_linspace", {"start": [0, -1.5], "stop": [2, 0.5], "num": [1, 5], "endpoint": [DEFAULT, True, False], "dtype": TYPES}, nothing),
    Spec("_npi_logspace", {"start": [0, -1.5], "stop": [2, 0.5], "num": [1, 5], "endpoint": [DEFAULT, True, False],
                           "base": [DEFAULT, 2.0, 10.0], "dtype": TYPES}, nothing),
    *[Spec(f"_npi_{name}", {"M": [1, 2, 7], "dtype": [kind for kind in TYPES if kind != "float64"]}, nothing)
      for name in ("hanning", "hamming", "blackman")],
    Spec("zeros_like", {}, any_data((1, 4)), also=("ones_like",)),
    Spec("zeros_like", {}, any_data((0, 2), low=0, dynamic=False), np_shape=True, also=("ones_like",)),
    Spec("_npi_full_like", {"fill_value": [0.0, 2.5, 3.0], "dtype": [DEFAULT, None, *TYPES[1:], "bool"]},
         lambda d, a: {"a": Tensor(d.shape((1, 3)), d.pick(NUMBERS), dynamic=(0,))}),
    Spec("shape_array", {}, any_data((1, 4)), also=("size_array",)),
    Spec("shape_array", {}, any_data((0, 3), low=0, dynamic=False), np_shape=True, also=("size_array",)),
    Spec("_npi_diag_indices_from", {}, lambda d, a: {"data": moved(d, (d.integer(1, 4),) * 2)}),
]  # fmt: skip
