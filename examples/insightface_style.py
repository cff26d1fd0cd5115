"""Face embeddings as InsightFace's MXNet code computes them: a checkpoint, its last layer cut off, a Module.

    python examples/insightface_style.py            # MXNet
    python examples/insightface_style.py --fast     # the changed line

The network is a small ArcFace-like one with random weights; put your own prefix into ``mx.model.load_checkpoint``.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np

from harness.frontend.compat import mxnet

mx = mxnet()  # `import mxnet as mx`, on NumPy 1.26 as well


def write_checkpoint(prefix: str) -> None:
    """What training leaves behind."""
    data = mx.sym.Variable("data")
    body = (data - 127.5) * 0.0078125
    for number, filters in enumerate((16, 32)):
        body = mx.sym.Convolution(
            body, num_filter=filters, kernel=(3, 3), stride=(2, 2), pad=(1, 1), name=f"conv{number}"
        )
        body = mx.sym.BatchNorm(body, fix_gamma=False, eps=2e-5, name=f"bn{number}")
        body = mx.sym.LeakyReLU(body, act_type="prelu", name=f"relu{number}")
    body = mx.sym.Dropout(mx.sym.Flatten(body), p=0.4)
    embedding = mx.sym.BatchNorm(
        mx.sym.FullyConnected(body, num_hidden=128, name="pre_fc1"), fix_gamma=True, name="fc1"
    )
    network = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(embedding, num_hidden=10, name="fc7"), name="softmax")
    module = mx.mod.Module(network)
    module.bind([("data", (1, 3, 112, 112))], [("softmax_label", (1,))])
    mx.random.seed(1)
    module.init_params(mx.init.Xavier())
    module.save_checkpoint(prefix, 0)


def load_model(prefix: str, fast: bool) -> mx.mod.Module:
    """InsightFace's get_model: the checkpoint up to the embedding."""
    symbol, args, aux = mx.model.load_checkpoint(prefix, 0)
    symbol = symbol.get_internals()["fc1_output"]
    if fast:
        import harness.accelerator  # noqa: F401 - the first changed line, once in a program

        args["data"] = mx.nd.zeros((1, 3, 112, 112))
        symbol = symbol.optimize_for("TensorRT", args, aux)  # the second
    model = mx.mod.Module(symbol, label_names=None)
    model.bind([("data", (1, 3, 112, 112))], for_training=False)
    model.set_params(args, aux, allow_extra=True)
    return model


def embed(model: mx.mod.Module, image: np.ndarray) -> np.ndarray:
    """The unit vector of a face."""
    model.forward(mx.io.DataBatch([mx.nd.array(image[None])]), is_train=False)
    (vector,) = model.get_outputs()[0].asnumpy()
    return vector / np.linalg.norm(vector)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(f"{folder}/face")
        model = load_model(f"{folder}/face", parser.parse_args().fast)
        faces = np.random.default_rng(1).uniform(0, 255, (2, 3, 112, 112)).astype(np.float32)
        one, other = (embed(model, face) for face in faces)
        print(f"similarity {float(one @ other):.5f}")


if __name__ == "__main__":
    main()
