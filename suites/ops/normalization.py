"""Normalizations: how their attributes and shapes are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor
from .limitations import Limitation


def batch_norm(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis", 1)
    shape = d.shape((axis + 1 if axis >= 0 else max(-axis, 1), 4), high=4)
    plain = "key" in a or a.get("output_mean_var")  # MXNet's 16-bit kernel takes the statistics for 16-bit numbers
    dtype = "float32" if plain else d.pick(["float32", "float32", "float16"])
    channels = (shape[axis],)
    const = d.boolean()
    moving = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    return {
        "data": Tensor(shape, dtype, dynamic=moving),
        "gamma": Tensor(channels, const=const),
        "beta": Tensor(channels, const=const),
        "moving_mean": Tensor(channels, const=const),
        "moving_var": Tensor(channels, low=0.1, high=3, const=const),
    }


def channels_second(d: Draw, a: Attributes) -> Inputs:
    return batch_norm(d, {**a, "axis": 1, "key": ""})


def images(d: Draw, a: Attributes) -> Inputs:
    inputs = channels_second(d, a)
    shape = (*inputs["data"].shape, 2, 3)[:4]
    return {**inputs, "data": Tensor(shape, dynamic=(0, 2, 3))}


def batch_norm_then_relu(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """MXNet has the fused operator in oneDNN only."""
    y, *statistics = batch_norm_of_any_type(replace(case, operator="BatchNorm"), arrays)
    return [np.maximum(y, 0), *statistics]


def batch_norm_of_any_type(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """In float64, if that is asked for, 16-bit data too: the kernel for those rounds on its way."""
    from .reference import Reference

    kind = arrays["gamma"].dtype
    given = {name: array.astype(kind) for name, array in arrays.items()} if kind == np.float64 else arrays
    return Reference(replace(case, reference=""))(given, str(kind))


def layer_norm(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis", -1)
    shape = d.shape((axis + 1 if axis >= 0 else -axis, 4))
    dtype, const = d.pick(["float32", "float32", "float16"]), d.boolean()
    size = (shape[axis],)
    moving = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    return {
        "data": Tensor(shape, dtype, dynamic=moving),
        "gamma": Tensor(size, dtype, const=const),
        "beta": Tensor(size, dtype, const=const),
    }


def instance_norm(d: Draw, a: Attributes) -> Inputs:
    shape, const = d.shape((3, 5), high=4), d.boolean()
    return {
        "data": Tensor(shape, dynamic=(0, *range(2, len(shape)))),
        "gamma": Tensor(shape[1:2], const=const),
        "beta": Tensor(shape[1:2], const=const),
    }


def group_norm(d: Draw, a: Attributes) -> Inputs:
    groups, dtype, const = a.get("num_groups", 1), d.pick(["float32", "float32", "float16"]), d.boolean()
    shape = (d.integer(1, 3), groups * d.integer(1, 3), *d.shape((1, 3), high=4))
    return {
        "data": Tensor(shape, dtype, dynamic=(0, *range(2, len(shape)))),
        "gamma": Tensor((groups,), dtype, const=const),
        "beta": Tensor((groups,), dtype, const=const),
    }


def l2(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1 if a.get("mode", "instance") == "instance" else 3, 5), high=4)
    return {"data": Tensor(shape, d.pick(["float32", "float64"]), dynamic=tuple(range(len(shape))))}


def size(a: Attributes, inputs: Inputs) -> int:
    return int(np.prod(inputs["data"].shape))


def statistics(a: Attributes) -> int:
    return 3 if a.get("output_mean_var") else 1


BATCH_NORM = {
    "eps": [DEFAULT, 1e-5, 2e-5],
    "momentum": [DEFAULT, 0.5, 0.8],
    "fix_gamma": [DEFAULT, False, True],
    "use_global_stats": [DEFAULT, False, True],
}
MORE = {
    "output_mean_var": [DEFAULT, False, True],
    "axis": [DEFAULT, 0, 1, 2, 3, -1, -2],
    "cudnn_off": [DEFAULT, True],
    "min_calib_range": [DEFAULT, 0.0, 1.0],
    "max_calib_range": [DEFAULT, 0.5, 1.5],
}

SPECS = [
    Spec(
        "BatchNorm",
        {**BATCH_NORM, **MORE},
        batch_norm,
        outputs=statistics,
        reference=f"{__name__}:batch_norm_of_any_type",
    ),
    Spec(
        "BatchNorm_v1",
        {**BATCH_NORM, "output_mean_var": [DEFAULT, False, True]},
        images,
        outputs=statistics,
        reference_dtype="float32",
    ),
    Spec(
        "_contrib_BatchNormWithReLU",
        {**BATCH_NORM, **MORE},
        batch_norm,
        outputs=statistics,
        reference=f"{__name__}:batch_norm_then_relu",
    ),
    Spec(
        "_contrib_SyncBatchNorm",
        {**BATCH_NORM, "ndev": [DEFAULT, 1, 2], "key": ["first", "second"]},
        channels_second,
        reference_dtype="float32",
    ),
    Spec(
        "LayerNorm",
        {
            "axis": [DEFAULT, 0, 1, 2, -1, -2, -3],
            "eps": [DEFAULT, 1e-3, 0.1],
            "output_mean_var": [DEFAULT, False, True],
        },
        layer_norm,
        outputs=statistics,
        terms=size,
    ),
    Spec("InstanceNorm", {"eps": [DEFAULT, 1e-5, 0.1]}, instance_norm, terms=size, reference_dtype="float32"),
    Spec(
        "GroupNorm",
        {"num_groups": [DEFAULT, 1, 2, 3], "eps": [DEFAULT, 1e-3, 0.1], "output_mean_var": [DEFAULT, False, True]},
        group_norm,
        outputs=statistics,
        terms=size,
    ),
    Spec(
        "LRN",
        {
            "alpha": [DEFAULT, 0.1, 1.0],
            "beta": [DEFAULT, 0.5, 1.0],
            "knorm": [DEFAULT, 1.0, 3.0],
            "nsize": [1, 3, 5],
        },
        lambda d, a: {"data": Tensor((d.integer(1, 3), a["nsize"] + d.integer(0, 2), *d.sizes(2)), dynamic=(0, 2, 3))},
        terms=lambda a, i: a["nsize"],
        reference_dtype="float32",
    ),
    Spec(
        "L2Normalization",
        {"mode": [DEFAULT, "instance", "channel", "spatial"], "eps": [DEFAULT, 1e-5, 0.1]},
        l2,
        terms=size,
    ),
]


def normalized(case: Case) -> int:
    """How many numbers are normalized together."""
    shape = case.inputs["data"].shape
    if case.operator == "LayerNorm":
        return shape[int(case.attributes.get("axis", "-1"))]
    groups = int(case.attributes.get("num_groups", "1")) if case.operator == "GroupNorm" else shape[1]
    return int(np.prod(shape[1:])) // groups


LIMITATIONS = [
    Limitation(
        ("LayerNorm",),
        "one number normalized: ONNX Runtime before 1.24, the last for Python 3.10 among them, refuses it in the run",
        "UNSUPPORTED",
        lambda case: normalized(case) == 1,
        Case(
            "LayerNorm",
            {},
            {name: Tensor(shape) for name, shape in (("data", (2, 1)), ("gamma", (1,)), ("beta", (1,)))},
        ),
        engines=("onnxruntime",),
        before=(1, 24),
    ),
    Limitation(
        ("LayerNorm", "InstanceNorm", "GroupNorm"),
        "one number normalized is 0, and of two only the order counts: nothing of the answer depends on how the inputs "
        "are rounded, but every way to compute it rounds their mean, by up to u |x| / sqrt(variance + eps)",
        "LOOSE",
        lambda case: normalized(case) < 3,
        Case(
            "InstanceNorm",
            {"eps": "1e-05"},
            {
                "data": Tensor((1, 1, 1), values=np.array([[[1.7]]])),
                "gamma": Tensor((1,), values=np.array([1.3])),
                "beta": Tensor((1,), values=np.array([0.1])),
            },
        ),
    ),
]
