"""Activation and LeakyReLU: how their attributes and shapes are drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.frontend.compat import mxnet

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor

EDGES = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 100.0, -2.5]
FLOATS = ["float32", "float32", "float16"]


def data(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1, 5))
    values = d.pick([None, None, EDGES])
    return {"data": Tensor(shape, d.pick(FLOATS), -4, 4, values, avoid=(0.0,), dynamic=tuple(range(len(shape))))}


def leaky(d: Draw, a: Attributes) -> Inputs:
    inputs = data(d, a)
    if a.get("act_type") == "prelu":
        shape = inputs["data"].shape[:1] if a.pop("line", False) else inputs["data"].shape
        if a.pop("square", False):  # of as many channels as rows and columns, the slope belongs to the channels
            shape = (2, 3, 3, 3)
        choices = [shape[:2]] if a.pop("grid", False) else [(1,), shape[: 1 if len(shape) == 1 else 2][-1:]]
        if len(shape) > 1:
            choices += [shape[:2]]
        inputs["gamma"] = Tensor(d.pick(choices), inputs["data"].dtype, 0.05, 0.5, const=d.boolean())
        fixed = tuple(range(2, len(shape)))
        inputs["data"] = Tensor(shape, inputs["data"].dtype, -4, 4, avoid=(0.0,), dynamic=fixed)
    return inputs


def gelu(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """x (1 + erf(x / sqrt(2))) / 2 by MXNet's erf: its own kernel computes in float32 whatever the type is."""
    mx = mxnet()
    x = mx.nd.array(arrays["data"], dtype=arrays["data"].dtype)
    return [(x * 0.5 * (1 + mx.nd.erf(x * 0.5**0.5))).asnumpy()]


SPECS = [
    Spec("Activation", {"act_type": ["relu", "sigmoid", "tanh", "softrelu", "softsign"]}, data),
    Spec(
        "LeakyReLU",
        {
            "act_type": [DEFAULT, "leaky", "elu", "selu", "prelu", "rrelu"],
            "slope": [DEFAULT, 0.1, 0.4],
            "lower_bound": [DEFAULT, 0.05, 0.2],
            "upper_bound": [DEFAULT, 0.3, 0.5],
        },
        leaky,
        examples=8,
    ),
    Spec("LeakyReLU", {"act_type": ["prelu"], "grid": [True]}, leaky, examples=3),
    Spec("LeakyReLU", {"act_type": ["prelu"], "line": [True]}, leaky, examples=3),
    Spec("LeakyReLU", {"act_type": ["prelu"], "square": [True]}, leaky, examples=3),
    Spec("LeakyReLU", {"act_type": ["gelu"]}, data, reference=f"{__name__}:gelu"),
]
