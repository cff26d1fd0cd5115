"""Gluon's model zoo: each network is one segment, without fallback, and agrees with MXNet.

Weights are random. The reference is MXNet in float32: its own roundoff is of the same kind as ours, so both are held
to twice the bound that the response of the reference to rounded inputs and weights gives.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest

import harness
from harness import numerics
from harness.frontend.compat import mxnet

SIZES = {"inceptionv3": 299, "alexnet": 224, "vgg": 224, "densenet": 224, "squeezenet": 224}
FACTOR = 2.0
TERMS = 4096  # the longest sums of these networks: 3 x 3 kernels over 512 channels


NAMES = [
    *(f"resnet{depth}_v{version}" for depth in (18, 34, 50, 101, 152) for version in (1, 2)),
    *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
    "alexnet",
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *(f"squeezenet1.{minor}" for minor in (0, 1)),
    "inceptionv3",
    *(f"mobilenet{width}" for width in ("1.0", "0.75", "0.5", "0.25")),
    *(f"mobilenetv2_{width}" for width in ("1.0", "0.75", "0.5", "0.25")),
]
QUICK = {"resnet18_v1", "resnet18_v2", "vgg11_bn", "alexnet", "densenet121", "squeezenet1.1", "inceptionv3",
         "mobilenet0.25", "mobilenetv2_0.25"}  # fmt: skip


def _size(name: str) -> int:
    return next((size for family, size in SIZES.items() if name.startswith(family)), 64)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES])
def test_network(name: str) -> None:
    mx = mxnet()
    mx.random.seed(7)
    network = mx.gluon.model_zoo.vision.get_model(name)
    network.initialize(mx.init.Xavier(magnitude=2.0))
    network.hybridize()
    size = _size(name)
    x = np.random.default_rng(7).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    expected = network(mx.nd.array(x)).asnumpy()
    model = harness.compile(network, inputs={"data": x.shape}, engine="onnxruntime", fallback="error", threads=2)
    assert [segment.engine for segment in model.segments] == ["onnxruntime"]
    assert not model.fallbacks
    (actual,) = model(data=x)

    def reference(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [network(mx.nd.array(arrays["data"])).asnumpy()]

    moved = numerics.response(reference, {"data": x}, [expected], "fp32", draws=2)
    result = numerics.compare(actual, expected, moved[0] * FACTOR, "fp32", TERMS)
    assert result, result.message
    del network, model
    gc.collect()
