"""MXNet's INT8 operators: how they are drawn. Values near the middle of two integers are left out."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor

RANGE = {"low": Tensor((1,), values=np.array([-1.5])), "high": Tensor((1,), values=np.array([1.0]))}


def floats(d: Draw, a: Attributes) -> Inputs:
    top = max(abs(a.get("min_calib_range", 2)), abs(a.get("max_calib_range", 2)))
    unsigned = a.get("out_type") == "uint8" or (a.get("out_type") == "auto" and a.get("min_calib_range", -1) >= 0)
    step = top / 255.5 if unsigned and "max_calib_range" in a else top / 127.5
    rng = np.random.default_rng(d.integer(0, 999))
    whole = rng.integers(-140, 300, d.shape((1, 3))) + rng.uniform(-0.4, 0.4)
    return {"data": Tensor(whole.shape, values=whole * step, dynamic=(0,))}


def with_range(d: Draw, a: Attributes) -> Inputs:
    rng = np.random.default_rng(d.integer(0, 999))
    values = (rng.integers(-140, 140, d.shape((1, 3))) + 0.2) * 1.5 / 127
    return {"data": Tensor(values.shape, values=values, dynamic=(0,)), **RANGE}


def wide(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor(d.shape((1, 3)), "int32", low=-(2**30), high=2**30, dynamic=(0,)), **RANGE}


def bytes_(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor(d.shape((1, 3)), d.pick(["int8", "uint8"]), low=-128, high=127, dynamic=(0,)), **RANGE}


def small(d: Draw, a: Attributes) -> Inputs:
    shape = (d.integer(1, 3), d.integer(1, 3), *d.sizes(2, 3, 6))
    return {"data": Tensor(shape, "int8", low=-127, high=127, dynamic=(0,)), **RANGE}


def embedding(d: Draw, a: Attributes) -> Inputs:
    rows, width = d.integer(1, 5), d.integer(1, 4)
    a["input_dim"], a["output_dim"] = rows, width
    index = Tensor(d.shape((1, 2)), values=list(range(rows)), dynamic=(0,))
    return {"data": index, "weight": Tensor((rows, width), "int8", low=-127, high=127, const=d.boolean()), **RANGE}


def calibrated(a: Attributes) -> bool:
    return ("min_calib_range" in a) == ("max_calib_range" in a) and (
        "min_calib_range" in a or a.get("out_type", "int8") == "int8"
    )


_F = {"reference_dtype": "float32"}
SPECS = [
    Spec("_contrib_quantize", {"out_type": ["int8"]}, with_range, outputs=3, **_F),
    Spec(
        "_contrib_quantize_v2",
        {
            "out_type": [DEFAULT, "int8", "uint8", "auto"],
            "min_calib_range": [-1.5, 0.0, -0.25],
            "max_calib_range": [1.0, 2.5],
        },
        floats,
        legal=calibrated,
        outputs=3,
        **_F,
    ),
    Spec("_contrib_dequantize", {"out_type": [DEFAULT, "float32"]}, bytes_, **_F),
    Spec(
        "_contrib_requantize",
        {
            "out_type": [DEFAULT, "int8", "uint8", "auto"],
            "min_calib_range": [-0.5, 0.0],
            "max_calib_range": [0.6, 1.2],
        },
        wide,
        outputs=3,
        **_F,
    ),
    Spec("_contrib_quantized_act", {"act_type": ["relu"]}, small, outputs=3, **_F),
    Spec("_contrib_quantized_flatten", {}, small, outputs=3, **_F),
    Spec("_contrib_quantized_embedding", {}, embedding, outputs=3, **_F),
    Spec(
        "_contrib_quantized_pooling",
        {
            "kernel": [(2, 2), (3, 2)],
            "stride": [DEFAULT, (2, 1)],
            "pad": [DEFAULT, (1, 1)],
            "pool_type": ["max"],
            "global_pool": [DEFAULT, True],
        },
        small,
        outputs=3,
        **_F,
    ),
]
