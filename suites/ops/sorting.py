"""topk, sort, argsort, histograms: how their attributes and shapes are drawn. No ties: MXNet breaks them at random."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor

FLOATS = ("float32", "float64")
KEYS = ["float16", "float32", "float64", "int32", "int64", "uint8"]


def distinct(d: Draw, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> Tensor:
    """Different numbers of any type."""
    dtype = d.pick(dtypes)
    if np.dtype(dtype).kind == "f":
        return Tensor(shape, dtype, low=-100, high=100, distinct=True, dynamic=(0,))
    values = np.random.default_rng(d.integer(0, 999)).permutation(np.arange(int(np.prod(shape)))).reshape(shape)
    return Tensor(shape, dtype, values=values, dynamic=(0,))


def ranked(*dtypes: str):
    def build(d: Draw, a: Attributes) -> Inputs:
        return {"data": distinct(d, d.shape(3, 3, 4), dtypes)}

    return build


def binned(d: Draw, a: Attributes) -> Inputs:
    return {
        "data": Tensor(
            d.shape((1, 3)), d.pick(("float32", "float64")), low=-1, high=2.5, avoid=(0, 0.25, 0.5, 1, 2), dynamic=(0,)
        )
    }


def edges(d: Draw, a: Attributes) -> Inputs:
    dtype, count = d.pick(("int32", "int64", "int8", "uint8")), d.integer(2, 5)
    return {
        "data": Tensor(d.shape((1, 3)), dtype, low=-2, high=8),
        "bins": Tensor((count,), dtype, values=np.array([1, 2, 3, 5, 7][:count]), const=d.boolean()),
    }


SPECS = [
    Spec("topk", {"axis": [DEFAULT, 0, 1, -1, None], "k": [DEFAULT, 0, 2, 3], "is_ascend": [DEFAULT, True, False],
                  "ret_typ": [DEFAULT, "indices", "value", "mask"], "dtype": [DEFAULT, *KEYS]},
         ranked("float32", "float64", "float16", "int32", "int64", "int8", "uint8")),
    Spec("topk", {"axis": [DEFAULT, 0, None], "k": [0, 2], "is_ascend": [True, False], "ret_typ": ["both"], "dtype": [DEFAULT, "int64"]},
         ranked("float32", "float64", "int32"), outputs=2),
    Spec("sort", {"axis": [DEFAULT, 0, 1, -1, None], "is_ascend": [DEFAULT, True, False]},
         ranked("float32", "float64", "int32", "int64", "int8", "uint8")),
    Spec("argsort", {"axis": [DEFAULT, 0, 1, -1, None], "is_ascend": [DEFAULT, True, False], "dtype": [DEFAULT, *KEYS]},
         ranked("float32", "float64", "int32", "int64", "int8", "uint8")),
    Spec("_histogram", {"bin_cnt": [1, 4], "range": [(0, 1), (-0.5, 2.0)]}, binned, outputs=2),
    Spec("_histogram", {}, edges, outputs=2),
]  # fmt: skip
