"""Classification as GluonCV's scripts do it: a network of the model zoo, hybridized, top 5 of an image.

    python examples/gluoncv_style.py                # MXNet
    python examples/gluoncv_style.py --fast         # the changed line

Weights are random here; with GluonCV the network is ``gluoncv.model_zoo.get_model(name, pretrained=True)``.
"""

from __future__ import annotations

import argparse

import numpy as np

from harness.frontend.compat import mxnet

mx = mxnet()  # `import mxnet as mx`, on NumPy 1.26 as well


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--model", default="mobilenetv2_0.25")
    given = parser.parse_args()
    mx.random.seed(1)
    net = mx.gluon.model_zoo.vision.get_model(given.model, classes=100)
    net.initialize(mx.init.Xavier())
    image = mx.nd.array(np.random.default_rng(1).uniform(-2, 2, (1, 3, 64, 64)))
    if given.fast:
        import harness.accelerator  # noqa: F401

        net.optimize_for(image, backend="TensorRT", static_alloc=True, static_shape=True)  # the changed line
    else:
        net.hybridize(static_alloc=True, static_shape=True)
    scores = mx.nd.softmax(net(image))[0]
    for index in mx.nd.topk(scores, k=5).asnumpy().astype(int):
        print(f"class {index}: {float(scores[int(index)].asscalar()):.5f}")


if __name__ == "__main__":
    main()
