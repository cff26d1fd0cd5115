"""Grids, bilinear sampling, correlation, deformable convolution: how they are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor
from .limitations import Limitation


def grid_generator(d: Draw, a: Attributes) -> Inputs:
    batch = d.integer(1, 3)
    if a["transform_type"] == "affine":
        return {"data": Tensor((batch, 6), dynamic=(0,))}
    return {"data": Tensor((batch, 2, *d.sizes(2, 2, 5)), dynamic=(0,))}


def bilinear_sampler(d: Draw, a: Attributes) -> Inputs:
    batch, dtype = d.integer(1, 3), d.pick(["float32", "float32", "float64"])
    data = (batch, d.integer(1, 3), *d.sizes(2, 1, 6))
    reach = d.pick([0.9, 1.5, 5])
    return {
        "data": Tensor(data, dtype, dynamic=(0, 2, 3)),
        "grid": Tensor((batch, 2, *d.sizes(2, 1, 4)), dtype, low=-reach, high=reach, dynamic=(0, 2, 3)),
    }


def spatial_transformer(d: Draw, a: Attributes) -> Inputs:
    batch = d.integer(1, 3)
    return {
        "data": Tensor((batch, d.integer(1, 3), *d.sizes(2, 2, 6)), dynamic=(0, 2, 3)),
        "loc": Tensor((batch, 6), low=-1, high=1, dynamic=(0,)),
    }


def correlation(d: Draw, a: Attributes) -> Inputs:
    border = a.get("max_displacement", 1) + a.get("kernel_size", 1) // 2
    least = max(2 * border + 1 - 2 * a.get("pad_size", 0), 1)
    shape = (d.integer(1, 2), d.integer(1, 3), *d.sizes(2, least, least + 4))
    dtype = d.pick(["float32", "float64"]) if a.get("kernel_size", 1) == 1 else "float32"
    return {"data1": Tensor(shape, dtype, dynamic=(0,)), "data2": Tensor(shape, dtype, dynamic=(0,))}


def deformable(d: Draw, a: Attributes) -> Inputs:
    group, parts = a.get("num_group", 1), a.get("num_deformable_group", 1)
    kernel = a["kernel"]
    stride, dilate, pad = (a.get(name, (v, v)) for name, v in (("stride", 1), ("dilate", 1), ("pad", 0)))
    channels, filters = group * parts * d.integer(1, 2), group * d.integer(1, 2)
    filters *= parts if "masked" in a else 1  # MXNet asks for it
    a["num_filter"] = filters
    sizes = tuple((k - 1) * s + d.integer(1, 4) for k, s in zip(kernel, dilate))
    out = tuple((s + 2 * p - e * (k - 1) - 1) // t + 1 for s, p, e, k, t in zip(sizes, pad, dilate, kernel, stride))
    batch, taps = d.integer(1, 3), int(np.prod(kernel))
    reach = d.pick([0.4, 3, 0])  # of 0, every tap lies on a pixel, the outermost ones too
    inputs = {
        "data": Tensor((batch, channels, *sizes), dynamic=(0,)),
        "offset": Tensor(
            (batch, 2 * parts * taps, *out), low=-reach, high=reach, avoid=tuple(range(-3, 4)), dynamic=(0,)
        )
        if reach
        else Tensor((batch, 2 * parts * taps, *out), values=[0.0], dynamic=(0,)),
    }
    if a.pop("masked", False):
        inputs["mask"] = Tensor((batch, parts * taps, *out), low=0, high=1, dynamic=(0,))
    inputs["weight"] = Tensor((filters, channels // group, *kernel), const=d.boolean())
    if not a.get("no_bias"):
        inputs["bias"] = Tensor((filters,), const=d.boolean())
    return inputs


def modulated(d: Draw, a: Attributes) -> Inputs:
    a["masked"] = True
    return deformable(d, a)


def _products(a: Attributes, inputs: Inputs) -> int:
    return 4 * int(np.prod(inputs["weight"].shape))


_DEFORMABLE = {
    "kernel": [(1, 1), (3, 2)],
    "stride": [DEFAULT, (2, 1)],
    "dilate": [DEFAULT, (1, 2)],
    "pad": [DEFAULT, (1, 2)],
    "num_group": [DEFAULT, 2],
    "num_deformable_group": [DEFAULT, 2],
    "no_bias": [DEFAULT, True],
    "layout": [DEFAULT, "NCHW"],
}

SPECS = [
    Spec(
        "GridGenerator",
        {"transform_type": ["affine", "warp"], "target_shape": [DEFAULT, (3, 4), (2, 2)]},
        grid_generator,
        legal=lambda a: (a["transform_type"] == "affine") == ("target_shape" in a),
        terms=lambda a, i: 3,
        reference_dtype="float32",
    ),
    Spec("BilinearSampler", {"cudnn_off": [DEFAULT, True]}, bilinear_sampler, terms=lambda a, i: 4),
    Spec(
        "SpatialTransformer",
        {
            "target_shape": [(3, 4), (2, 5)],
            "transform_type": ["affine"],
            "sampler_type": ["bilinear"],
            "cudnn_off": [DEFAULT, True],
        },
        spatial_transformer,
        terms=lambda a, i: 12,
    ),
    Spec(
        "Correlation",
        {
            "kernel_size": [DEFAULT, 3],
            "max_displacement": [DEFAULT, 2, 3],
            "stride1": [DEFAULT, 2],
            "stride2": [DEFAULT, 2],
            "pad_size": [DEFAULT, 2, 4],
            "is_multiply": [DEFAULT, False],
        },
        correlation,
        terms=lambda a, i: 27,
    ),
    Spec("_contrib_DeformableConvolution", _DEFORMABLE, deformable, terms=_products),
    Spec(
        "_contrib_ModulatedDeformableConvolution",
        {**_DEFORMABLE, "im2col_step": [DEFAULT, 1]},
        modulated,
        terms=_products,
    ),
]

LIMITATIONS = [
    Limitation(
        ("_contrib_DeformableConvolution", "_contrib_ModulatedDeformableConvolution"),
        "ONNX Runtime before 1.25, the last for Python 3.10 among them, has no kernel for them",
        "UNSUPPORTED",
        lambda case: True,
        Case(
            "_contrib_DeformableConvolution",
            {"kernel": "(1, 1)", "num_filter": "1", "no_bias": "True"},
            {"data": Tensor((1, 1, 2, 2)), "offset": Tensor((1, 2, 2, 2)), "weight": Tensor((1, 1, 1, 1))},
        ),
        engines=("onnxruntime",),
        before=(1, 25),
    ),
]
