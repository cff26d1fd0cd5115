"""MXNet's INT8 operators: how they are drawn.

Rounding jumps, so what is rounded is drawn away from the jumps: the steps of all ranges are powers of two, but for
one odd factor of the result's, so that every exact number is a multiple of one over an odd number and lies well away
from the middle between two integers. Averages need no such care: their ties are exact.
"""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor
from .limitations import Limitation
from .onednn import ANSWER

STEPS = {"int8": 127.5, "uint8": 255.5}
ODD = (21, 33, 57)


def bounds(d: Draw, dtype: str, steps: float, prefix: str = "") -> Inputs:
    """The two tensors of a range in which ``steps`` integers stand for 1; parameters or inputs."""
    top, const = STEPS[dtype] / steps, d.boolean()
    low, high = d.pick([(-top, 0.4 * top), (-0.25 * top, top)]) if dtype == "int8" else (0.0, top)
    return {
        f"{prefix}{name}": Tensor((1,), values=np.array([value]), const=const)
        for name, value in (("low", low), ("high", high))
    }


def calibrate(a: Attributes, dtype: str, steps: float) -> None:
    """Set the calibrated range of a result of which ``steps`` integers stand for 1."""
    top = STEPS[dtype] / steps
    a["min_calib_range"], a["max_calib_range"] = (0.0, top) if dtype == "uint8" else (-top, 0.5 * top)


def integers(d: Draw, dtype: str, shape: tuple[int, ...], **more: object) -> Tensor:
    """Small integers, mostly near 0, and the extremes."""
    info = np.iinfo(dtype)
    values = [*range(max(-20, info.min), 21), info.min, info.max, info.max - 1]
    return Tensor(shape, dtype, values=values, **more)


def floats(d: Draw, a: Attributes) -> Inputs:
    top = max(abs(a.get("min_calib_range", 2)), abs(a.get("max_calib_range", 2)))
    unsigned = a.get("out_type") == "uint8" or (a.get("out_type") == "auto" and a.get("min_calib_range", -1) >= 0)
    step = top / 255.5 if unsigned and "max_calib_range" in a else top / 127.5
    rng = np.random.default_rng(d.integer(0, 999))
    whole = rng.integers(-140, 300, d.shape((1, 3))) + rng.uniform(-0.4, 0.4)
    return {"data": Tensor(whole.shape, values=whole * step, dynamic=(0,))}


def small_floats(d: Draw, a: Attributes) -> Inputs:
    """Integers, which quantize_v2 passes on."""
    return {"data": integers(d, d.pick(["int8", "uint8"]), d.shape((1, 3)), dynamic=(0,))}


def sequences(d: Draw, a: Attributes) -> Inputs:
    return {"data": Tensor(d.shape(3), dynamic=(0,))}


def with_range(d: Draw, a: Attributes) -> Inputs:
    steps = {"int8": 127, "uint8": 255}[a.get("out_type", "uint8")]
    rng = np.random.default_rng(d.integer(0, 999))
    values = (rng.integers(-140, 300, d.shape((1, 3))) + 0.2) * 1.5 / steps
    return {
        "data": Tensor(values.shape, values=values, dynamic=(0,)),
        "low": Tensor((1,), values=np.array([-1.5])),
        "high": Tensor((1,), values=np.array([1.0]), const=d.boolean()),
    }


def wide(d: Draw, a: Attributes) -> Inputs:
    high = d.pick([300, 2**30])
    data = Tensor(d.shape((1, 3)), "int32", low=-high, high=high, dynamic=(0,))
    return {"data": data, **bounds(d, "int8", 2.0 ** d.integer(5, 8))}


def bytes_(d: Draw, a: Attributes) -> Inputs:
    dtype = d.pick(["int8", "uint8"])
    return {"data": integers(d, dtype, d.shape((1, 3)), dynamic=(0,)), **bounds(d, dtype, 40)}


def _ends_away(size: int, kernel: int, stride: int, pad: int) -> bool:
    """Whether the last window, rounded up, lies behind the data: oneDNN has no average of nothing."""
    return -(-(size + 2 * pad - kernel) // stride) * stride - pad >= size


def images(d: Draw, a: Attributes) -> Inputs:
    dims = len(a["kernel"])
    windows = zip(d.sizes(dims, 3, 6), a["kernel"], a.get("stride", (1,) * dims), a.get("pad", (0,) * dims))
    full = a.get("pooling_convention") == "full"
    sizes = [size + 1 if full and _ends_away(size, *window) else size for size, *window in windows]
    shape = (d.integer(1, 3), d.integer(1, 3), *sizes)
    dtype = d.pick(["int8", "uint8"])
    return {"data": integers(d, dtype, shape, dynamic=(0,)), **bounds(d, dtype, 40)}


def embedding(d: Draw, a: Attributes) -> Inputs:
    rows, width = d.integer(1, 5), d.integer(1, 4)
    a["input_dim"], a["output_dim"] = rows, width
    index = Tensor(d.shape((1, 2)), values=list(range(-1, rows + 1)), dynamic=(0,))
    return {
        "data": index,
        "weight": Tensor((rows, width), "int8", low=-127, high=127, const=d.boolean()),
        **bounds(d, "int8", 40),
    }


def parts(d: Draw, a: Attributes) -> Inputs:
    count, axis = d.integer(1, 3), a.get("dim", 1)
    shape = d.shape((axis + 1, 4))
    a["num_args"] = count
    data, ranges = {}, {}
    for i in range(count):
        dtype = d.pick(["int8", "uint8"])
        own = list(shape)
        own[axis] = d.integer(1, 3)
        data[f"data{i}"] = integers(d, dtype, tuple(own), dynamic=(0,) if axis else ())
        ranges.update(bounds(d, dtype, 2.0 ** d.integer(3, 6) * d.pick([1, 3, 5]), f"{i}_"))
    return {**data, **ranges}


def two(d: Draw, a: Attributes) -> Inputs:
    kinds = d.pick([("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8"), ("uint8", "int8")])
    shape, steps = d.shape((1, 3)), [2.0 ** d.integer(4, 6) for _ in kinds]
    if a.pop("calibrated", False):
        calibrate(a, "uint8" if kinds == ("uint8", "uint8") else "int8", 2**9 / d.pick(ODD))
    tensors = {name: integers(d, k, shape, dynamic=(0,)) for name, k in zip(("lhs", "rhs"), kinds)}
    if a.pop("extreme", False):
        steps = [16.0, 16.0]  # beyond any calibrated range
        tensors = {n: Tensor(shape, t.dtype, values=[np.iinfo(t.dtype).max]) for n, t in tensors.items()}
    ranges = [bounds(d, k, s, f"{name}_") for name, k, s in zip("lr", kinds, steps)]
    return {**tensors, **ranges[0], **ranges[1]}


def two_int8(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1, 3))
    if a.pop("calibrated", False):
        calibrate(a, "int8", d.pick([3.0, 100.0]))
    tensors = {name: integers(d, "int8", shape, dynamic=(0,)) for name in ("lhs", "rhs")}
    return {**tensors, **bounds(d, "int8", 30, "l_"), **bounds(d, "int8", 50, "r_")}


def normalized(d: Draw, a: Attributes) -> Inputs:
    shape, dtype = d.shape(2 if a.get("axis") == -1 else (2, 4)), d.pick(["int8", "uint8"])
    if a.pop("many", False):  # of so many, some lie next to where they are rounded the other way
        shape = (8, 3, 100)
    calibrate(a, "int8", d.pick([15.0, 40.0]))
    channels = (shape[1],)
    return {
        "data": integers(d, dtype, shape, dynamic=(0,)),
        "gamma": Tensor(channels),
        "beta": Tensor(channels),
        "mean": Tensor(channels),
        "variance": Tensor(channels, low=0.5, high=2),
        **bounds(d, dtype, 50),
    }


def convolved(d: Draw, a: Attributes) -> Inputs:
    channels, a["num_filter"] = d.pick([1, 4]), d.pick([2, 4])
    kernel = a["kernel"]
    shape = (d.integer(1, 2), channels, *d.sizes(len(kernel), 3, 5))
    bias = {} if a.get("no_bias") else {"bias": Tensor((a["num_filter"],), "int8", low=-127, high=127)}
    ranges = {**bounds(d, "uint8", 64), **bounds(d, "int8", 32, "w_"), **(bounds(d, "int8", 16, "b_") if bias else {})}
    return {
        "data": integers(d, "uint8", shape, dynamic=(0,)),
        "weight": integers(d, "int8", (a["num_filter"], channels, *kernel), const=d.boolean()),
        **bias,
        **ranges,
    }


def dense(d: Draw, a: Attributes) -> Inputs:
    dtype = d.pick(["int8", "uint8"])
    many = a.pop("many", False)  # so many terms that float32 does not hold their sum
    low = 119 if many == "positive" else -127
    shape = (2, 1200) if many else d.shape((2, 3))
    width = int(np.prod(shape[1:])) if a.get("flatten", True) else shape[-1]
    a["num_hidden"] = 2 if many else d.integer(1, 4)
    bias = {} if a.get("no_bias") else {"bias": Tensor((a["num_hidden"],), "int8", low=-127, high=127)}
    b_range = bounds(d, "int8", d.pick([16, 2**12]), "b_") if bias else {}  # the second has parts to truncate
    return {
        "data": Tensor(shape, dtype, low=119, high=255 if dtype == "uint8" else 127)
        if many == "positive"
        else integers(d, dtype, shape, dynamic=(0,)),
        "weight": Tensor((2, width), "int8", low=low, high=127, const=True)
        if many
        else integers(d, "int8", (a["num_hidden"], width), const=d.boolean()),
        **bias,
        **bounds(d, dtype, 64),
        **bounds(d, "int8", 32, "w_"),
        **b_range,
    }


def both_or_none(a: Attributes) -> bool:
    return ("min_calib_range" in a) == ("max_calib_range" in a)


_F = {"reference_dtype": "float32"}
_THREE = {"outputs": 3, **_F}
SPECS = [
    Spec("_contrib_quantize", {"out_type": [DEFAULT, "int8", "uint8"]}, with_range, **_THREE),
    Spec(
        "_contrib_quantize_v2",
        {
            "out_type": [DEFAULT, "int8", "uint8", "auto"],
            "min_calib_range": [DEFAULT, -1.5, 0.0, -0.25],
            "max_calib_range": [DEFAULT, 1.0, 2.5],
        },
        floats,
        legal=lambda a: both_or_none(a) and ("min_calib_range" in a or a.get("out_type") != "uint8"),
        **_THREE,
    ),
    Spec(
        "_contrib_quantize_v2",
        {
            "out_type": [DEFAULT, "uint8", "auto"],
            "min_calib_range": [DEFAULT, -1.5],
            "max_calib_range": [DEFAULT, 1.0],
        },
        small_floats,
        legal=both_or_none,
        **_THREE,
    ),
    Spec("_contrib_quantize_v2", {"out_type": ["int8"], "min_calib_range": [-1.5]}, floats, examples=2, **_THREE),
    Spec("_contrib_quantize_v2", {"out_type": ["int8"], "max_calib_range": [1.5]}, floats, examples=2, **_THREE),
    Spec(
        "_contrib_quantize_asym",
        {"min_calib_range": [DEFAULT, -1.5, -1.25], "max_calib_range": [DEFAULT, 1.0, 2.0]},
        sequences,
        legal=both_or_none,
        **_THREE,
    ),
    Spec("_contrib_dequantize", {"out_type": [DEFAULT, "float32"]}, bytes_, **_F),
    Spec(
        "_contrib_requantize",
        {
            "out_type": [DEFAULT, "int8", "uint8", "auto"],
            "min_calib_range": [DEFAULT, -0.9, 0.0],
            "max_calib_range": [DEFAULT, 0.6, 1.2],
        },
        wide,
        legal=both_or_none,
        **_THREE,
    ),
    Spec("_contrib_quantized_act", {"act_type": ["relu"]}, bytes_, **_THREE),
    Spec("_contrib_quantized_flatten", {}, bytes_, **_THREE),
    Spec("_contrib_quantized_embedding", {}, embedding, **_THREE),
    Spec(
        "_contrib_quantized_pooling",
        {
            "kernel": [(2, 2), (3, 2)],
            "stride": [DEFAULT, (2, 1), (3, 2)],
            "pad": [DEFAULT, (1, 1)],
            "pool_type": ["max", "avg"],
            "global_pool": [DEFAULT, True],
            "pooling_convention": ["valid", "full"],
            "count_include_pad": [DEFAULT, True, False],
            "layout": [DEFAULT, "NCHW"],
        },
        images,
        **_THREE,
    ),
    Spec(
        "_contrib_quantized_pooling",
        {"kernel": [(2, 2, 2), (1, 3, 2)], "pool_type": ["max", "avg"], "layout": [DEFAULT, "NCDHW"]},
        images,
        **_THREE,
    ),
    Spec("_contrib_quantized_concat", {"dim": [DEFAULT, 0, 1, 2]}, parts, reference=ANSWER, **_THREE),
    Spec("_contrib_quantized_elemwise_add", {"calibrated": [False, True]}, two, reference=ANSWER, **_THREE),
    Spec(
        "_contrib_quantized_elemwise_add",
        {"calibrated": [False, True], "extreme": [True]},
        two,
        reference=ANSWER,
        **_THREE,
    ),
    Spec("_contrib_quantized_elemwise_mul", {"calibrated": [False, True]}, two_int8, **_THREE),
    Spec(
        "_contrib_quantized_elemwise_mul",
        {"calibrated": [False, True], "enable_float_output": [True]},
        two_int8,
        **_F,
    ),
    Spec(
        "_contrib_quantized_batch_norm",
        {
            "eps": [DEFAULT, 0.1],
            "fix_gamma": [DEFAULT, False],
            "axis": [DEFAULT, 1, -1],
            "output_mean_var": [DEFAULT, True],
        },
        normalized,
        reference=ANSWER,
        **_THREE,
    ),
    Spec("_contrib_quantized_batch_norm", {"many": [True]}, normalized, reference=ANSWER, examples=3, **_THREE),
    Spec(
        "_contrib_quantized_conv",
        {
            "kernel": [(2, 2), (3, 1)],
            "stride": [DEFAULT, (2, 1)],
            "dilate": [DEFAULT, (1, 1), (1, 2)],
            "pad": [DEFAULT, (1, 1)],
            "no_bias": [DEFAULT, True],
            "layout": [DEFAULT, "NCHW"],
        },
        convolved,
        **_THREE,
    ),
    Spec(
        "_contrib_quantized_conv",
        {"kernel": [(2, 2, 2), (1, 3, 2)], "no_bias": [DEFAULT, True], "layout": [DEFAULT, "NCDHW"]},
        convolved,
        **_THREE,
    ),
    Spec(
        "_contrib_quantized_fully_connected",
        {"no_bias": [DEFAULT, True], "flatten": [DEFAULT, False]},
        dense,
        reference=ANSWER,
        **_THREE,
    ),
    Spec(
        "_contrib_quantized_fully_connected",
        {"no_bias": [True], "many": [True, "positive"]},
        dense,
        reference=ANSWER,
        examples=3,
        **_THREE,
    ),
]

LIMITATIONS = [
    Limitation(
        (
            *sorted({spec.operator for spec in SPECS}), "_sg_mkldnn_conv", "_sg_mkldnn_fully_connected",
            "_sg_mkldnn_selfatt_qk", "_sg_mkldnn_selfatt_valatt",
        ),
        "MXNet's INT8 graphs in 16 bits: a value that rounds before it is quantized may become the next integer",
        "LOOSE",
        lambda case: True,
        Case(
            "_contrib_quantize_asym",
            {"min_calib_range": "-1.25", "max_calib_range": "1.0"},
            {"data": Tensor((2, 8, 64))},
            reference_dtype="float32",
            outputs=3,
        ),
        precisions=("bf16", "fp16"),
    ),
    Limitation(
        ("_contrib_quantized_elemwise_add",),
        "int32 is the result of float32 arithmetic in MXNet; TensorRT multiplies and adds in one rounding, and so may "
        "differ in the last of 24 bits",
        "LOOSE",
        lambda case: "min_calib_range" not in case.attributes,
        Case(
            "_contrib_quantized_elemwise_add",
            {},
            {
                **{name: Tensor((64, 64), "int8", low=-127, high=127) for name in ("lhs", "rhs")},
                **{
                    name: Tensor((1,), values=np.array([value], np.float32))
                    for name, value in (("l_low", -1.3), ("l_high", 1.3), ("r_low", -0.7), ("r_high", 0.7))
                },
            },
            reference_dtype="float32",
            reference=ANSWER,
            outputs=3,
        ),
        engines=("tensorrt",),
    ),
    Limitation(
        ("_contrib_quantized_conv", "_sg_mkldnn_conv"),
        "the sums of 8-bit products are made in float32, exactly; TensorRT may choose a convolution that rounds in "
        "between (Winograd's), and from some million on be 1 off (8728234 for 8728235, TensorRT 10.6)",
        "LOOSE",
        lambda case: np.prod(case.inputs["weight"].shape[1:]) >= 128,
        Case(
            "_contrib_quantized_conv",
            {"kernel": "(3, 3)", "num_filter": "4", "no_bias": "True"},
            {
                "data": Tensor((2, 64, 6, 6), "uint8", low=119, high=255),
                "weight": Tensor((4, 64, 3, 3), "int8", low=0, high=127, const=True),
                **{
                    name: Tensor((1,), values=np.array([value], np.float32))
                    for name, value in (("low", 0), ("high", 4), ("w_low", -4), ("w_high", 4))
                },
            },
            reference_dtype="float32",
            outputs=3,
        ),
        engines=("tensorrt",),
        stable=False,  # the builder chooses
    ),
]  # fmt: skip
