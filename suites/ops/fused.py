"""What MXNet's oneDNN backend fuses: how its nodes and the graphs inside them are drawn.

As in ``quantized``, steps are powers of two but for one odd factor, so that nothing lies near the middle between two
integers. A channel's steps are 127.5 over its largest weight, which is therefore 127.5 times a power of two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.engines.mxnet import graph_json
from harness.graph import Entry, Graph, Node

from .case import DEFAULT, SUBGRAPHS, Attributes, Draw, Inputs, Spec, Tensor, text
from .quantized import ODD, bounds, calibrate, integers

EPS = 2.0**-10  # of a variance whose root is a power of two with it
ACTIVATIONS: dict[str, tuple[str, Attributes]] = {
    **{kind: ("Activation", {"act_type": kind}) for kind in ("relu", "sigmoid", "tanh", "softrelu")},
    "leaky": ("LeakyReLU", {"act_type": "leaky", "slope": 0.25}),
    "leaky0": ("LeakyReLU", {"act_type": "leaky", "slope": 0.0}),
    "elu": ("LeakyReLU", {"act_type": "elu", "slope": 0.5}),
    "gelu": ("LeakyReLU", {"act_type": "gelu"}),
    "clip": ("clip", {"a_min": 0.0, "a_max": 1.5}),
    **{name: (name, {}) for name in ("square", "exp", "abs", "sqrt")},
}
CONV_UNSIGNED = ("relu", "leaky0", "sigmoid", "softrelu", "clip")
DENSE_SIGNED = (None, "tanh", "elu", "gelu")


class Inside:
    """A subgraph under construction: a chain of operators, each with variables of its own."""

    def __init__(self, variable: str) -> None:
        self.nodes = [Node(variable, "null")]
        self.last = 0

    def add(self, operator: str, attributes: Attributes, variables: Sequence[str] = ()) -> None:
        sources = [Entry(self.last)]
        for name in variables:
            sources.append(Entry(len(self.nodes)))
            self.nodes.append(Node(name, "null"))
        settings = {name: text(value) for name, value in attributes.items()}
        self.last = len(self.nodes)
        self.nodes.append(Node(f"{operator}{self.last}", operator, tuple(sources), settings))

    def activate(self, kind: str | None) -> None:
        if kind is not None:
            self.add(*ACTIVATIONS[kind])

    def json(self) -> str:
        return json.dumps(graph_json(Graph(tuple(self.nodes), (Entry(self.last),), ())))


def taken(a: Attributes, *names: str) -> Attributes:
    """These attributes, which are not the node's own, out of ``a``."""
    return {name: a.pop(name) for name in names if name in a}


def large(dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Small integers of one sign, of which many make a sum that float32 does not hold."""
    return Tensor(shape, dtype, low=119, high=np.iinfo(dtype).max)


def peaked(rng: np.random.Generator, shape: tuple[int, ...], exponents: Sequence[int], low: int = -20) -> np.ndarray:
    """Weights of some steps of 2^-exponent, and 127.5 steps once in each channel."""
    whole = rng.integers(low, 128 if low > 0 else 21, shape).astype(np.float64).reshape(shape[0], -1)
    whole[:, rng.integers(whole.shape[1])] = rng.choice([-127.5, 127.5] if low < 0 else [127.5], shape[0])
    return (whole * np.exp2(-np.asarray(exponents, float))[:, None]).reshape(shape)


def fixed(values: np.ndarray, const: bool = True) -> Tensor:
    return Tensor(values.shape, values=values, const=const)


# --- convolutions -----------------------------------------------------------------------------------------------------


def convolution(d: Draw, a: Attributes) -> Inputs:
    mode, act, after, norm, group = (a.pop(n, None) for n in ("mode", "act", "after", "norm", "num_group"))
    conv = {**taken(a, "kernel", "stride", "pad", "dilate", "no_bias"), "num_group": group or 1}
    conv["num_filter"] = 4
    channels = 64 if a.get("many") else 4
    kernel = conv["kernel"]
    shape = (d.integer(1, 2), channels, *d.sizes(len(kernel), 5 if "dilate" in conv else 3, 6))
    inside = Inside("data")
    names = ["weight"] if conv.get("no_bias") else ["weight", "bias"]
    inside.add("Convolution", conv, names)
    if norm is not None:
        inside.add("BatchNorm", {"eps": EPS, **norm}, ("gamma", "beta", "mean", "variance"))
        a["with_bn"] = True
    inside.activate(act)
    if act is not None:
        a["with_relu" if a.pop("old", False) else "with_act"] = True
    if a.get("with_sum"):
        inside.add("elemwise_add", {}, ("summand",))
        inside.activate(after)
        if after is not None:
            a["with_postsum_relu" if d.boolean() else "with_postsum_act"] = True
    a.pop("old", None)
    a[SUBGRAPHS] = (inside.json(),)
    weights = (4, channels // conv["num_group"], *kernel)
    if mode == "float":
        return _float_inputs(d, a, shape, weights, conv, norm)
    return _small_inputs(d, a, shape, weights, conv, (mode == "calibrated", act, after, norm))


def _out_shape(shape: tuple[int, ...], conv: Attributes) -> tuple[int, ...]:
    dims = len(conv["kernel"])
    pads, strides, steps = (conv.get(n, (d,) * dims) for n, d in (("pad", 0), ("stride", 1), ("dilate", 1)))
    sizes = zip(shape[2:], conv["kernel"], pads, strides, steps)
    return (shape[0], 4, *((s + 2 * p - e * (k - 1) - 1) // t + 1 for s, k, p, t, e in sizes))


def _float_inputs(
    d: Draw, a: Attributes, shape: tuple[int, ...], weights: tuple[int, ...], conv: Attributes, norm: Attributes | None
) -> Inputs:
    found = {"data": Tensor(shape, dynamic=(0,)), "weight": Tensor(weights, const=d.boolean())}
    if not conv.get("no_bias"):
        found["bias"] = Tensor(weights[:1])
    if norm is not None:
        found |= {name: Tensor(weights[:1]) for name in ("gamma", "beta", "mean")}
        found["variance"] = Tensor(weights[:1], low=0.5, high=2)
    if a.get("with_sum"):
        found["summand"] = Tensor(_out_shape(shape, conv), dynamic=(0,))
    return found


def _small_inputs(
    d: Draw, a: Attributes, shape: tuple[int, ...], weights: tuple[int, ...], conv: Attributes, what: tuple[Any, ...]
) -> Inputs:
    """What an INT8 convolution takes; its result has ``2^(j + k) / odd`` steps."""
    is_calibrated, act, after, norm = what
    a["quantized"], many = True, a.pop("many", False)
    j, k = d.integer(3, 6), d.integer(4, 7)
    rng = np.random.default_rng(d.integer(0, 999))
    dtype, own = d.pick(["int8", "uint8"]), d.pick(["int8", "uint8"])
    exponents = k - rng.integers(0, 2, weights[0]) if is_calibrated else np.full(weights[0], k)

    def shifts() -> Tensor:
        whole = rng.integers(-900, 900, weights[:1]) + rng.choice([0, 0.3])  # the last ones are no steps of the product
        return fixed(whole * 2.0 ** -(j + k))

    found = {
        "data": large(dtype, shape) if many else integers(d, dtype, shape, dynamic=(0,)),
        "weight": fixed(peaked(rng, weights, exponents, low=119 if many else -20)),
        **({} if conv.get("no_bias") else {"bias": shifts()}),
    }
    if norm is not None:
        root = rng.choice([1.0, 0.5], weights[0])
        gamma = root * rng.choice([1.0, 2.0], weights[0])
        found |= {"gamma": fixed(gamma), "beta": shifts(), "mean": shifts()}
        found["variance"] = fixed(root**2 - EPS)
    ranges = bounds(d, dtype, 2.0**j)
    if a.get("with_sum"):
        found["summand"] = integers(d, own, _out_shape(shape, conv), dynamic=(0,))
        ranges |= bounds(d, own, 2.0 ** d.integer(3, 5), "summand_")
    if is_calibrated:
        unsigned = (after if a.get("with_sum") else act) in CONV_UNSIGNED
        calibrate(a, "uint8" if unsigned else "int8", 2.0 ** (j + k) / d.pick(ODD))
    return {**found, **ranges}


def outputs(a: Attributes) -> int:
    return 3 if a.get("quantized") and not a.get("enable_float_output") else 1


def terms(a: Attributes, inputs: Inputs) -> int:
    return int(np.prod(inputs["weight"].shape[1:])) if "weight" in inputs else max(inputs["data"].shape)


SIMPLE = {"kernel": [(2, 2), (3, 1)], "no_bias": [DEFAULT, True]}
GEOMETRY = {
    "kernel": [(2, 2), (3, 3)],
    "stride": [DEFAULT, (2, 1)],
    "pad": [DEFAULT, (1, 1)],
    "dilate": [DEFAULT, (1, 2)],
    "num_group": [DEFAULT, 2, 4],
}
NORMS = [DEFAULT, {"fix_gamma": False}, {"fix_gamma": True}]
EXACT_ACTS = [DEFAULT, "relu", "clip", "leaky"]
ALL_ACTS = [DEFAULT, "relu", "leaky", "leaky0", "sigmoid", "tanh", "softrelu", "elu", "gelu", "clip"]

# --- dense layers -----------------------------------------------------------------------------------------------------


def dense(d: Draw, a: Attributes) -> Inputs:
    mode, act = a.pop("mode"), a.pop("act", None)
    layer = taken(a, "no_bias", "flatten")
    layer["num_hidden"] = d.integer(1, 4)
    many = a.pop("many", False)
    shape = (2, 1200) if many else d.shape((2, 4))
    width = int(np.prod(shape[1:])) if layer.get("flatten", True) else shape[-1]
    inside = Inside("data")
    inside.add("FullyConnected", layer, ["weight"] if layer.get("no_bias") else ["weight", "bias"])
    inside.activate(act)
    if act is not None:
        a["with_relu" if d.boolean() else "with_eltwise"] = True
    a[SUBGRAPHS] = (inside.json(),)
    weights, has_bias = (layer["num_hidden"], width), not layer.get("no_bias")
    if mode == "float":
        top, part = (1.0, 1.0 / width) if act == "gelu" else (2.0, 2.0)  # far below 0 it loses digits, in MXNet too
        plain = {
            "data": Tensor(shape, low=-top, high=top, dynamic=(0,)),
            "weight": Tensor(weights, low=-part, high=part, const=d.boolean()),
        }
        return {**plain, **({"bias": Tensor(weights[:1], low=-top, high=top)} if has_bias else {})}
    a["quantized"] = True
    j, k, dtype = d.integer(3, 6), d.integer(4, 7), d.pick(["int8", "uint8"])
    if mode == "calibrated":
        calibrate(a, "int8" if act in DENSE_SIGNED else "uint8", 2.0 ** (j + k) / d.pick(ODD))
    found = {"data": large(dtype, shape) if many else integers(d, dtype, shape, dynamic=(0,))}
    if "channel_wise_quantize" in a:  # False counts as True in MXNet
        rng = np.random.default_rng(d.integer(0, 999))
        found["weight"] = fixed(peaked(rng, weights, k - rng.integers(0, 2, weights[0])))
        if has_bias:
            found["bias"] = fixed(rng.integers(-900, 900, weights[:1]) * 2.0 ** -(j + k))
        return {**found, **bounds(d, dtype, 2.0**j)}
    found["weight"] = (
        replace(large("int8", weights), const=True) if many else integers(d, "int8", weights, const=d.boolean())
    )
    ranges = {**bounds(d, dtype, 2.0**j), **bounds(d, "int8", 2.0**k, "w_")}
    if has_bias:
        found["bias"] = Tensor(weights[:1], "int8", low=-120, high=120, const=d.boolean())
        of_bias = d.pick([2.0**3, 2.0**6, 3 * 2.0 ** (j + k - 2)])  # the last one's are no whole steps of the product
        ranges |= bounds(d, "int8", of_bias, "b_")
    return {**found, **ranges}


# --- self-attention ---------------------------------------------------------------------------------------------------


def attention(d: Draw, a: Attributes) -> Inputs:
    heads, depth, length, batch = a["heads"], d.pick([1, 4]), *d.sizes(2, 1, 4)
    values, mode = a.pop("values"), a.pop("mode")
    inside = Inside("data")
    name = f"_contrib_interleaved_matmul_selfatt_{'valatt' if values else 'qk'}"
    inside.add(name, {"heads": heads}, ["attention"] if values else [])
    a[SUBGRAPHS] = (inside.json(),)
    shape, scores = (length, batch, heads * 3 * depth), (batch * heads, length, length)
    if mode == "plain":
        found = {"data": Tensor(shape)}
        return {**found, "attention": Tensor(scores)} if values else found
    a["quantized"] = True
    if mode in ("float", "scaled"):
        a["enable_float_output"] = True
    found = {"data": integers(d, "int8", shape)}
    ranges = bounds(d, "int8", 2.0**4)
    if values:
        found["attention"] = integers(d, "uint8", scores)
        ranges |= bounds(d, "uint8", 2.0**8, "attention_")
    if mode in ("calibrated", "scaled"):  # a depth of 4 halves the scores: a quarter instead of a half leaves no ties
        calibrate(a, "int8", 2.0 ** (13 if values else 9) / d.pick(ODD))
    return {**found, **ranges}


_F = {"reference_dtype": "float32", "outputs": outputs, "terms": terms}
_CONV, _DENSE = "_sg_mkldnn_conv", "_sg_mkldnn_fully_connected"
SPECS = [
    Spec(
        _CONV,
        {**SIMPLE, "mode": ["calibrated"], "act": ALL_ACTS, "norm": NORMS, "old": [False, True]},
        convolution,
        **_F,
    ),
    Spec(_CONV, {**GEOMETRY, "mode": ["calibrated", "exact"], "act": [DEFAULT, "relu"]}, convolution, **_F),
    Spec(
        _CONV,
        {"kernel": [(3,), (2, 2, 2), (1, 3, 2)], "mode": ["calibrated", "exact"], "act": [DEFAULT, "relu"]},
        convolution,
        **_F,
    ),
    Spec(_CONV, {"kernel": [(3, 3)], "mode": ["exact"], "many": [True]}, convolution, **{**_F, "examples": 2}),
    Spec(_DENSE, {"mode": ["exact"], "many": [True], "no_bias": [True]}, dense, **{**_F, "examples": 2}),
    Spec(_CONV, {**SIMPLE, "mode": ["exact"], "act": EXACT_ACTS, "norm": NORMS}, convolution, **_F),
    Spec(
        _CONV,
        {
            **SIMPLE,
            "mode": ["calibrated", "exact"],
            "norm": NORMS,
            "with_sum": [True],
            "act": [DEFAULT, "relu"],
            "after": [DEFAULT, "relu"],
        },
        convolution,
        **_F,
    ),
    Spec(
        _CONV,
        {
            **SIMPLE,
            **GEOMETRY,
            "mode": ["float"],
            "norm": NORMS,
            "with_sum": [DEFAULT, True],
            "act": [DEFAULT, "relu", "leaky", "sigmoid", "tanh", "softrelu", "clip"],
            "after": [DEFAULT, "relu"],
        },
        convolution,
        **_F,
    ),
    Spec(
        _DENSE,
        {
            "mode": ["calibrated"],
            "no_bias": [DEFAULT, True],
            "flatten": [DEFAULT, False],
            "channel_wise_quantize": [DEFAULT, True, False],
            "enable_float_output": [DEFAULT, True],
            "act": [
                DEFAULT,
                "relu",
                "leaky",
                "sigmoid",
                "tanh",
                "softrelu",
                "elu",
                "gelu",
                "clip",
                "square",
                "exp",
                "abs",
            ],
        },
        dense,
        **_F,
    ),
    Spec(
        _DENSE,
        {
            "mode": ["exact"],
            "no_bias": [DEFAULT, True],
            "flatten": [DEFAULT, False],
            "channel_wise_quantize": [DEFAULT, True],
            "enable_float_output": [DEFAULT, True],
            "act": [DEFAULT, "relu", "abs", "clip"],
        },
        dense,
        legal=lambda a: "channel_wise_quantize" not in a or a.get("enable_float_output", False),
        **_F,
    ),
    Spec(
        _DENSE,
        {
            "mode": ["float"],
            "no_bias": [DEFAULT, True],
            "flatten": [DEFAULT, False],
            "act": [DEFAULT, "relu", "gelu", "square"],
        },
        dense,
        **_F,
    ),
    Spec(
        "_sg_mkldnn_selfatt_qk",
        {"heads": [1, 2], "values": [False], "mode": ["plain", "calibrated", "float"]},
        attention,
        **_F,
    ),
    Spec(
        "_sg_mkldnn_selfatt_valatt",
        {"heads": [1, 2], "values": [True], "mode": ["plain", "calibrated", "float", "exact", "scaled"]},
        attention,
        **_F,
    ),
]
