"""Parameters of a shape that an operator does not have are errors: what runs them may read beyond what there is.

ONNX Runtime 1.23 gives an answer with a bias of one number for four channels, MXNet's BatchNorm with a gamma of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import harness
from harness.compiler import compile_graph
from harness.engines.base import get_engine
from harness.graph import Entry, Graph, Node

C = 4
PARAMETERS = {  # operator -> its attributes, and the shapes of its parameters
    "Convolution": ({"kernel": "(1, 1)", "num_filter": "4"}, {"weight": (C, C, 1, 1), "bias": (C,)}),
    "Deconvolution": (
        {"kernel": "(1, 1)", "num_filter": "4", "no_bias": "False"},
        {"weight": (C, C, 1, 1), "bias": (C,)},
    ),
    "FullyConnected": ({"num_hidden": "4"}, {"weight": (C, 9 * C), "bias": (C,)}),
    "_contrib_DeformableConvolution": (
        {"kernel": "(1, 1)", "num_filter": "4"},
        {"offset": (2, 2, 3, 3), "weight": (C, C, 1, 1), "bias": (C,)},
    ),
    "BatchNorm": ({"fix_gamma": "False"}, dict.fromkeys(("gamma", "beta", "moving_mean", "moving_var"), (C,))),
    "LayerNorm": ({"axis": "1"}, {"gamma": (C,), "beta": (C,)}),
    "InstanceNorm": ({}, {"gamma": (C,), "beta": (C,)}),
    "GroupNorm": ({"num_groups": "4"}, {"gamma": (C,), "beta": (C,)}),
}
PAIRS = [(operator, name) for operator, (_, shapes) in PARAMETERS.items() for name in shapes if name != "offset"]


def answer(operator: str, **changed: tuple[int, ...]) -> np.ndarray:
    attributes, shapes = PARAMETERS[operator]
    params = {name: np.ones(shape, np.float32) for name, shape in {**shapes, **changed}.items()}
    entries = tuple(map(Entry, range(1 + len(params))))
    nodes = (Node("data", "null"), *(Node(name, "null") for name in params), Node("op0", operator, entries, attributes))
    shape = (2, C, 3, 3)
    net = Graph(nodes, (Entry(len(nodes) - 1),), ("y",))
    model = compile_graph(net, params, {"data": shape}, "onnxruntime", fallback="error")
    return model(data=np.ones(shape, np.float32))[0]


def others(operator: str, name: str) -> list[tuple[int, ...]]:
    """Of one number, one number less and more, and with axes more and fewer."""
    shape = PARAMETERS[operator][1][name]
    more, fewer = (*shape[:-1], shape[-1] + 1), (*shape[:-1], max(shape[-1] - 1, 0))
    found = [(1,), more, fewer, (*shape, 1), (1, *shape), (int(np.prod(shape)) * 2,), ()]
    return [other for other in found if (operator, name, other) != ("FullyConnected", "bias", (C, 1))]  # MXNet takes it


@pytest.mark.parametrize("operator", PARAMETERS)
def test_the_right_shapes(operator: str) -> None:
    engine: Any = get_engine("onnxruntime")
    if "Deformable" in operator and engine.release < (1, 25):
        pytest.skip(f"onnxruntime {engine.version} has no kernel for it")
    assert np.isfinite(answer(operator)).all()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_another_shape_is_named(pair: tuple[str, str]) -> None:
    operator, name = pair
    for shape in others(operator, name):
        error = harness.UnsupportedOperator if name == "weight" else harness.ParameterError
        with pytest.raises(error, match=r"op0.*has the shape"):
            answer(operator, **{name: shape})
