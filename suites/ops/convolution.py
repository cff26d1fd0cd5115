"""Convolution, Deconvolution and Pooling: how their attributes and shapes are drawn."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor
from .limitations import Limitation
from .onednn import ANSWER

LAST = {"NWC": "NCW", "NHWC": "NCHW", "NDHWC": "NCDHW"}
FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def convolution(d: Draw, a: Attributes) -> Inputs:
    dims = len(a["kernel"])
    group = int(a.get("num_group", 1))
    channels, filters = group * d.integer(1, 3), group * d.integer(1, 3)
    a["num_filter"] = filters
    stretch = a.get("dilate", (1,) * dims)
    spatial = tuple((k - 1) * s + d.integer(1, 4) for k, s in zip(a["kernel"], stretch))
    data, weight = (d.integer(1, 3), channels, *spatial), (filters, channels // group, *a["kernel"])
    moving = (0, *range(2, 2 + dims))
    if a.get("layout") in LAST:
        data, weight, moving = channels_to_last(data), channels_to_last(weight), tuple(range(1 + dims))
    inputs = {"data": Tensor(data, dynamic=moving), "weight": Tensor(weight, const=d.boolean())}
    if not a.get("no_bias", False):
        inputs["bias"] = Tensor((filters,), const=d.boolean())
    return inputs


def deconvolution(d: Draw, a: Attributes) -> Inputs:
    dims = len(a["kernel"])
    group = int(a.get("num_group", 1))
    channels, filters = group * d.integer(1, 3), group * d.integer(1, 2)
    a["num_filter"] = filters
    ones = (1,) * dims
    stride, stretch = a.get("stride", ones), a.get("dilate", ones)
    spatial = tuple(3 + d.integer(0, 2) for _ in range(dims))
    if a.pop("targeted", False):
        full = [(n - 1) * s + e * (k - 1) + 1 for n, s, k, e in zip(spatial, stride, a["kernel"], stretch)]
        a["target_shape"] = tuple(size - d.pick([0, 1, 2] if s > 1 else [0, 2]) for size, s in zip(full, stride))
    data, weight = (d.integer(1, 2), channels, *spatial), (channels, filters // group, *a["kernel"])
    moving = () if "target_shape" in a else (0, 2)
    if a.get("layout") in LAST:
        data, weight, moving = channels_to_last(data), channels_to_last(weight), moving[:1]
    inputs = {"data": Tensor(data, dynamic=moving), "weight": Tensor(weight, const=d.boolean())}
    if a.get("no_bias", True) is False:
        inputs["bias"] = Tensor((filters,), const=d.boolean())
    return inputs


def channels_to_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1])


def channels_last_reference(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """MXNet's CPU has no channels-last convolution: transpose, run channels first, transpose back."""
    from .reference import Reference

    layout = case.attributes["layout"]
    turned = {name: np.moveaxis(a, -1, 1) if name in ("data", "weight") else a for name, a in arrays.items()}
    inner = replace(
        case, attributes={**case.attributes, "layout": LAST[layout]},
        reference=ANSWER if (case.operator, layout) == ("Deconvolution", "NDHWC") else "",
        inputs={name: replace(tensor, shape=turned[name].shape) for name, tensor in case.inputs.items()},
    )  # fmt: skip
    (y,) = Reference(inner)(turned, str(arrays["data"].dtype))
    return [np.moveaxis(y, 1, -1)]


def fits_kernel(a: Attributes) -> bool:
    dims = len(a["kernel"])
    per_axis = ("stride", "dilate", "pad", "adj")
    if any(len(a[name]) != dims for name in per_axis if name in a):
        return False
    layout = a.get("layout")
    return layout is None or layout == "None" or LAST.get(layout, layout) == FIRST[dims]


def fits_deconvolution(a: Attributes) -> bool:
    stride = a.get("stride", (1, 1, 1))
    targeted = a.get("targeted", False)
    if not fits_kernel(a) or (targeted and ("pad" in a or "adj" in a)):
        return False
    return all(extra < step for extra, step in zip(a.get("adj", ()), stride))


def products(a: Attributes, inputs: Inputs) -> int:
    return int(np.prod(inputs["weight"].shape))


def pooling(d: Draw, a: Attributes) -> Inputs:
    layout = a.get("layout", "None")
    dims = (
        1
        if layout in ("NCW", "NWC")
        else 3
        if layout in ("NCDHW", "NDHWC")
        else 2
        if layout != "None"
        else d.integer(1, 3)
    )
    full = a.get("pooling_convention") == "full"
    a["kernel"] = d.sizes(dims, 1, 3)
    for name, low, high in (("stride", 1, 4 if full else 3), ("pad", 0, 2)):
        if d.boolean():
            a[name] = d.sizes(dims, low, high)
    if "pad" in a and d.boolean():
        a["pad"] = tuple(min(p, k - 1) for p, k in zip(a["pad"], a["kernel"]))
    if a.get("pool_type") == "lp" and "p_value" not in a:
        a["p_value"] = d.pick([1, 2, 3])
    high = 5 if dims < 3 else 4
    shape = (d.integer(1, 2), d.integer(1, 3), *(k + d.integer(0, high - k) for k in a["kernel"]))
    moving = (0, *range(2, 2 + dims))
    if layout in LAST:
        shape, moving = channels_to_last(shape), tuple(range(1 + dims))
    low = 0.5 if a.get("p_value") in (1, 3) else -2.0  # a sum near 0 under a cube root is ill-posed
    return {"data": Tensor(shape, d.pick(["float32", "float32", "float16"]), low, distinct=True, dynamic=moving)}


def padded_beyond(d: Draw, a: Attributes) -> Inputs:
    """Padding on both sides, and a last window that reaches behind it; 0 would be the largest."""
    a["kernel"], a["stride"], a["pad"] = (3, 3), (2, 2), (1, 1)
    return {"data": Tensor((2, 2, d.pick([4, 6]), 4), low=-2, high=-1, distinct=True, dynamic=(0, 2, 3))}


def beyond_the_data(d: Draw, a: Attributes) -> Inputs:
    """The last window of the first axis begins behind data and padding: it holds nothing."""
    a["kernel"], a["stride"], a["pad"] = (2, 1), (3, 1), (1, 0)
    return {"data": Tensor((1, 2, 4, 2), dynamic=(2,))}


def pooling_v1(d: Draw, a: Attributes) -> Inputs:
    a["kernel"] = d.sizes(2, 1, 3)
    full = a.get("pooling_convention") == "full"  # with larger strides a window may hold nothing
    if a.pop("strided", False):  # the last window reaches behind the data
        a["kernel"], a["stride"] = (3, 2), (2, 2)
        shape = (1, 2, 4 + 2 * d.integer(0, 1), 3 + 2 * d.integer(0, 1))
        return {"data": Tensor(shape, distinct=True, dynamic=(0, 2, 3))}
    if d.boolean():
        a["stride"] = tuple(d.integer(1, k if full else 3) for k in a["kernel"])
    if d.boolean():
        a["pad"] = tuple(d.integer(0, k - 1) for k in a["kernel"])
    shape = (d.integer(1, 2), d.integer(1, 3), *(k + d.integer(0, 3) for k in a["kernel"]))
    return {"data": Tensor(shape, distinct=True, dynamic=(0, 2, 3))}


def window(a: Attributes, inputs: Inputs) -> int:
    return int(np.prod(inputs["data"].shape[1:]))


TUNING = {"workspace": [DEFAULT, 256, 1024], "cudnn_tune": [DEFAULT, "off"], "cudnn_off": [DEFAULT, True]}
WINDOW = {
    "kernel": [(3,), (1, 1), (3, 2), (2, 1, 3)],
    "stride": [DEFAULT, (2,), (2, 1), (1, 2, 1)],
    "dilate": [DEFAULT, (3,), (1, 2), (2, 1, 1)],
    "pad": [DEFAULT, (1,), (1, 0), (1, 2), (0, 1, 1)],
    "num_group": [DEFAULT, 2, 3],
    "no_bias": [DEFAULT, False, True],
}
POOL = {
    "pool_type": [DEFAULT, "max", "avg", "sum"],
    "global_pool": [DEFAULT, False, True],
    "pooling_convention": [DEFAULT, "valid", "full"],
}

SPECS = [
    Spec(
        "Convolution", {**WINDOW, "layout": [DEFAULT, "None", "NCW", "NCHW", "NCDHW"]}, convolution,
        legal=fits_kernel, terms=products,
    ),
    Spec(  # MXNet runs the old operator over images alone
        "Convolution_v1",
        {name: [v for v in values if not isinstance(v, tuple) or len(v) == 2] for name, values in WINDOW.items()},
        convolution, legal=fits_kernel, terms=products, reference_dtype="float32",
    ),
    Spec(
        "Convolution", {**WINDOW, "layout": ["NHWC", "NDHWC"]}, convolution,
        legal=fits_kernel, terms=products, reference=f"{__name__}:channels_last_reference",
    ),
    Spec(
        "Deconvolution",
        {
            "kernel": [(3,), (1, 1), (3, 2)],
            "stride": [DEFAULT, (2,), (2, 3)],
            "dilate": [DEFAULT, (2,), (1, 2)],
            "pad": [DEFAULT, (1,), (1, 0)],
            "adj": [DEFAULT, (1,), (1, 2)],
            "num_group": [DEFAULT, 2],
            "no_bias": [DEFAULT, False, True],
            "layout": [DEFAULT, "None", "NCW", "NCHW"],
            "targeted": [DEFAULT, True],
        },
        deconvolution,
        legal=fits_deconvolution,
        terms=products,
        examples=12,
    ),
    Spec(
        "Deconvolution",
        {
            "kernel": [(2, 1, 3), (2, 2, 2)],
            "stride": [DEFAULT, (1, 2, 1)],
            "pad": [DEFAULT, (0, 0, 1)],
            "adj": [DEFAULT, (0, 1, 0)],
            "num_group": [DEFAULT, 2],
            "layout": [DEFAULT, "NCDHW"],
        },
        deconvolution,
        legal=fits_deconvolution,
        terms=products,
        reference=ANSWER,
        reference_dtype="float32",
    ),
    Spec(
        "Deconvolution",
        {
            "kernel": [(3, 2), (2, 1, 3)],
            "stride": [DEFAULT, (2, 1), (1, 2, 1)],
            "no_bias": [DEFAULT, False],
            "targeted": [DEFAULT, True],
            "layout": ["NHWC", "NDHWC"],
        },
        deconvolution,
        legal=lambda a: fits_deconvolution(a) and not (a["layout"] == "NDHWC" and "targeted" in a),
        terms=products,
        reference=f"{__name__}:channels_last_reference",
    ),
    Spec(
        "Pooling",
        {
            **POOL, "pool_type": [DEFAULT, "max", "avg", "sum", "lp"],
            "count_include_pad": [DEFAULT, "None", False, True],
            "layout": [DEFAULT, "None", "NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC"],
        },
        pooling,
        terms=window,
        examples=30,
        varying=10,
    ),
    Spec(  # the divisors of sizes that vary
        "Pooling",
        {
            "pool_type": ["avg"],
            "pooling_convention": ["full"],
            "count_include_pad": [False, True],
            "layout": ["NCW", "NCHW", "NCDHW"],
        },
        pooling,
        terms=window,
        examples=2,
        varying=12,
    ),
    Spec("Pooling", {"pool_type": ["max"], "pooling_convention": ["full"]}, padded_beyond, terms=window, examples=2),
    Spec("Pooling", {"pool_type": ["avg"], "pooling_convention": ["full"], "count_include_pad": [False, True]}, beyond_the_data, terms=window, examples=2),
    Spec("Pooling", {"pool_type": ["lp"], "p_value": [1, 2, 3], "global_pool": [False, True], "layout": [DEFAULT, "NHWC"]}, pooling,
         terms=window),
    Spec(
        "Pooling_v1",
        {"pool_type": ["max"], "pooling_convention": ["full"], "strided": [True]},
        pooling_v1,
        reference_dtype="float32",
    ),
    Spec("Pooling_v1", POOL, pooling_v1, terms=window, reference_dtype="float32", examples=12),
]  # fmt: skip


def _may_miss(case: Case) -> bool:
    attributes = case.attributes
    kernel, stride = (ast.literal_eval(attributes.get(name, "()")) for name in ("kernel", "stride"))
    full = attributes.get("pooling_convention") == "full" and attributes.get("pool_type", "max") == "max"
    return full and attributes.get("global_pool") != "True" and any(s > k for s, k in zip(stride, kernel))


def _strided_and_dilated(case: Case) -> bool:
    stride, dilate = (ast.literal_eval(case.attributes.get(name, "()")) for name in ("stride", "dilate"))
    return any(s > 1 and e > 1 for s, e in zip(stride, dilate))


def _counts_unequal_padding(case: Case) -> bool:
    """Whether a mean counts padding that differs between the axes, or between the two ends of one."""
    pad = ast.literal_eval(case.attributes.get("pad", "()"))
    mean = case.attributes.get("pool_type") in ("avg", "sum")
    counts = mean and case.attributes.get("count_include_pad") != "False"
    full = case.attributes.get("pooling_convention") == "full"
    return counts and bool(pad) and (full or len(set(pad)) > 1)


LIMITATIONS = [
    Limitation(
        ("Pooling",),
        "means that count a padding that differs between the axes (or, with pooling_convention=full, between the ends of "
        "one): ONNX Runtime before 1.25, the last for Python 3.10 among them, divides by a wrong number",
        "UNSUPPORTED",
        _counts_unequal_padding,
        Case(
            "Pooling",
            {"kernel": "(3, 2)", "pad": "(1, 0)", "pool_type": "avg", "count_include_pad": "True"},
            {"data": Tensor((1, 1, 4, 4))},
        ),
        engines=("onnxruntime",),
        before=(1, 25),
    ),
    Limitation(
        ("Pooling_v1",),
        "pooling_convention=full with a stride above the kernel's size: the last window may hold no data, and its maximum "
        "is -inf in MXNet",
        "UNSUPPORTED",
        lambda case: _may_miss(case),
        Case(
            "Pooling_v1",
            {"kernel": "(1, 1)", "stride": "(3, 1)", "pooling_convention": "full"},
            {"data": Tensor((1, 1, 3, 3))},
        ),
    ),
    Limitation(
        ("Deconvolution",),
        "MXNet's CPU kernel is wrong where one axis has both stride and dilation above 1; the compiled model follows "
        "the definition",
        "DIFFERENT",
        _strided_and_dilated,
        Case(
            "Deconvolution",
            {"kernel": "(3,)", "stride": "(2,)", "dilate": "(2,)", "num_filter": "1"},
            {"data": Tensor((1, 2, 4)), "weight": Tensor((2, 1, 3))},
        ),
    ),
]
