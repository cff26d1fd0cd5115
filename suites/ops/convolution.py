"""Convolution, Deconvolution and Pooling: how their attributes and shapes are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


def convolution(d: Draw, a: Attributes) -> Inputs:
    dims = len(a["kernel"])
    group = int(a.get("num_group", 1))
    channels, filters = group * d.integer(1, 3), group * d.integer(1, 3)
    a["num_filter"] = filters
    stretch = a.get("dilate", (1,) * dims)
    spatial = tuple((k - 1) * s + d.integer(1, 4) for k, s in zip(a["kernel"], stretch))
    weight_shape = (filters, channels // group, *a["kernel"])
    inputs = {
        "data": Tensor((d.integer(1, 3), channels, *spatial), dynamic=(0, *range(2, 2 + dims))),
        "weight": Tensor(weight_shape, const=d.boolean()),
    }
    if not a.get("no_bias", False):
        inputs["bias"] = Tensor((filters,), const=d.boolean())
    return inputs


def fits_kernel(a: Attributes) -> bool:
    dims = len(a["kernel"])
    per_axis = ("stride", "dilate", "pad", "adj", "target_shape")
    if any(len(a[name]) != dims for name in per_axis if name in a):
        return False
    return a.get("layout") in (DEFAULT, None, {1: "NCW", 2: "NCHW", 3: "NCDHW"}[dims])


def products(a: Attributes, inputs: Inputs) -> int:
    return int(np.prod(inputs["weight"].shape))


SPECS = [
    Spec(
        "Convolution",
        {
            "kernel": [(3,), (1, 1), (3, 2), (2, 1, 3)],
            "stride": [DEFAULT, (2,), (2, 1), (1, 2, 1)],
            "dilate": [DEFAULT, (3,), (1, 2), (2, 1, 1)],
            "pad": [DEFAULT, (1,), (1, 0), (1, 2), (0, 1, 1)],
            "num_group": [DEFAULT, 2, 3],
            "no_bias": [DEFAULT, True],
            "layout": [DEFAULT, "NCW", "NCHW", "NCDHW"],
        },
        convolution,
        legal=fits_kernel,
        terms=products,
    ),
]
