"""Softmaxes and loss layers: how their attributes and shapes are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


def wide(a: Attributes, dtype: str) -> bool:
    """MXNet rounds 16-bit softmaxes to 16 bits before it widens them."""
    return dtype != "float16" or a.get("dtype") in (None, "float16")


def along_axis(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis", -1)
    shape = d.shape((axis + 1 if axis >= 0 else -axis, 4))
    dtype = d.pick([kind for kind in ("float32", "float32", "float64", "float16") if wide(a, kind)])
    inputs = {"data": Tensor(shape, dtype, -5, 5, dynamic=tuple(range(axis % len(shape) == 0, len(shape))))}
    if a.get("use_length"):
        rows = shape[: axis % len(shape)] + shape[axis % len(shape) + 1 :]
        inputs["data"] = Tensor(shape, dtype, -5, 5, dynamic=(axis % len(shape),))
        inputs["length"] = Tensor(rows, d.pick(["int32", "int64"]), 0, shape[axis])
    return inputs


def with_label(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((2, 4))
    label = shape[:1] + shape[2:] if a.get("multi_output") else shape[:-1]
    dtype = d.pick(["float32", "float32", "float16"])
    return {
        "data": Tensor(shape, dtype, -4, 4, dynamic=tuple(range(len(shape)))),
        "label": Tensor(label, dtype, values=[0.0], dynamic=tuple(range(len(label)))),
    }


def with_targets(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1, 4))
    return {"data": Tensor(shape, dynamic=(0,)), "label": Tensor(shape, dynamic=(0,))}


def with_classes(d: Draw, a: Attributes) -> Inputs:
    rows, classes = d.sizes(2)
    return {"data": Tensor((rows, classes), dynamic=(0,)), "label": Tensor((rows,), values=[0.0], dynamic=(0,))}


def with_average(d: Draw, a: Attributes) -> Inputs:
    rows, columns = d.sizes(2)
    return {"data": Tensor((rows, columns), low=0.1, high=0.9), "moving_avg": Tensor((columns,), low=0.1, high=0.9)}


AXIS = {"axis": [DEFAULT, 0, 1, 2, -1, -2, -3], "temperature": [DEFAULT, "None", 1.0, 0.5, 3.0]}
DTYPE = {"dtype": [DEFAULT, "None", "float16", "float32", "float64"]}


def length(a: Attributes, inputs: Inputs) -> int:
    return int(np.max(inputs["data"].shape))


SPECS = [
    Spec("softmax", {**AXIS, **DTYPE, "use_length": [DEFAULT, False, True]}, along_axis, terms=length, varying=5,
         legal=lambda a: not a.get("use_length") or a.get("axis", -1) >= -1),  # MXNet takes other negative axes for rows
    Spec("log_softmax", {**AXIS, **DTYPE}, along_axis, terms=length, also=("softmin",)),
    Spec(
        "SoftmaxActivation",
        {"mode": [DEFAULT, "instance", "channel"]},
        lambda d, a: {"data": Tensor(d.shape((3 if a.get("mode") == "channel" else 2, 4)), dynamic=(0,))},
        terms=length,
        reference_dtype="float32",
    ),
    Spec(
        "SoftmaxOutput",
        {
            "multi_output": [DEFAULT, False, True],
            "preserve_shape": [DEFAULT, False, True],
            "grad_scale": [DEFAULT, 0.5, 2.0],
            "ignore_label": [DEFAULT, 0.0, 1.0],
            "use_ignore": [DEFAULT, False, True],
            "normalization": [DEFAULT, "null", "batch", "valid"],
            "out_grad": [DEFAULT, False, True],
            "smooth_alpha": [DEFAULT, 0.1, 0.3],
        },
        with_label,
        terms=lambda a, i: int(np.prod(i["data"].shape)),
    ),
    Spec(
        "LinearRegressionOutput",
        {"grad_scale": [DEFAULT, 0.5, 2.0]},
        with_targets,
        also=("MAERegressionOutput", "LogisticRegressionOutput"),
    ),
    Spec(
        "SVMOutput",
        {"margin": [DEFAULT, 0.5, 2.0], "regularization_coefficient": [DEFAULT, 0.5, 2.0],
         "use_linear": [DEFAULT, False, True]},
        with_classes,
    ),
    Spec(
        "IdentityAttachKLSparseReg",
        {"sparseness_target": [DEFAULT, 0.2, 0.3], "penalty": [DEFAULT, 0.01, 0.1], "momentum": [DEFAULT, 0.5, 0.8]},
        with_average,
        reference_dtype="float32",
    ),
]  # fmt: skip
