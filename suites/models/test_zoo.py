"""Gluon's model zoo: each network is one segment, without fallback, and agrees with MXNet in float64.

The bound is the error model's for whole networks (docs/error-model.md). All 34: ``python -m scripts.check_zoo``.
"""

from __future__ import annotations

import numpy as np
import pytest

from harness.compiler import compile_graph

from .gluon_zoo import NAMES, examine, held_to_mxnet, images, network

QUICK = {"resnet18_v1", "resnet18_v2", "vgg11_bn", "alexnet", "densenet121", "squeezenet1.1",
         "mobilenet0.25", "mobilenetv2_0.25"}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES])
def test_network(name: str) -> None:
    row = examine(name, quick=True)
    assert row.segments == ("onnxruntime",)
    assert not row.fallbacks
    assert not row.problem, row.problem
    assert set(row.headroom) == {"random", "photograph"}


def test_weights_that_are_all_positive() -> None:
    """Nothing cancels, so inputs and weights that move by themselves average out; the layers' own roundings do not."""
    graph, params = network("resnet18_v1", 64)
    params = {name: np.abs(array) for name, array in params.items()}
    data = {"data": np.abs(images(64)["random"])}
    model = compile_graph(graph, params, {"data": (1, 3, 64, 64)}, engine="onnxruntime", fallback="error", threads=2)
    headroom, problem = held_to_mxnet(graph, params, data, model(**data))
    assert not problem, problem
    assert 0 < headroom < 0.5


def test_a_small_fault_of_one_layer_is_seen() -> None:
    """The bound is not so wide that one variance in twenty, off by one part in a thousand, hides in it."""
    graph, params = network("resnet18_v1", 64)
    data = {"data": images(64)["random"]}
    name = [n for n in params if n.endswith("running_var")][10]
    faulty = {**params, name: params[name] * np.float32(1.001)}
    model = compile_graph(graph, faulty, {"data": (1, 3, 64, 64)}, engine="onnxruntime", fallback="error", threads=2)
    headroom, problem = held_to_mxnet(graph, params, data, model(**data))
    assert problem
    assert headroom > 1
