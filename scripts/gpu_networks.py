"""The networks of scripts/gpu_speed.py: made with fixed random weights, settled, and written as MXNet's own files."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness.frontend.compat import mxnet

SSD = "ssd_512_mobilenet1.0_voc"
SPECIAL = {"ssd": SSD, "ssd_heads": SSD}  # GluonCV's, whole, and up to its suppression of boxes


def network(name: str) -> tuple[Any, int]:
    """An initialised network and the size of its images; ``gluoncv.NAME`` is GluonCV's."""
    mx = mxnet()
    mx.random.seed(0)
    np.random.seed(0)
    if name in SPECIAL:
        name = f"gluoncv.{SPECIAL[name]}"
    if name.startswith("gluoncv."):
        net = gluoncv().model_zoo.get_model(name.removeprefix("gluoncv."), pretrained=False, pretrained_base=False)
    else:
        net = mx.gluon.model_zoo.vision.get_model(name)
    net.initialize(_initializer())
    sizes = {"inception": 299, "ssd_512": 512, "ssd_300": 300}
    return net, next((size for key, size in sizes.items() if key in name), 224)


def gluoncv() -> Any:
    """GluonCV, which refuses to be imported beside a PyTorch of our days: it is imported as if there were none."""
    mxnet()
    held = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("gluoncv")
    finally:
        del sys.modules["torch"]
        if held is not None:
            sys.modules["torch"] = held


def _initializer() -> Any:
    """He's weights; vectors, which some of GluonCV's networks do not tell from weights, by their names."""
    mx = mxnet()

    class Initializer(mx.init.MSRAPrelu):  # type: ignore[misc,name-defined]
        def _init_weight(self, name: str, array: Any) -> None:
            if array.ndim > 1:
                super()._init_weight(name, array)
            else:
                array[:] = 1 if name.endswith(("gamma", "var")) else 0

    return Initializer()


def settle(net: Any, shape: tuple[int, ...]) -> None:
    """One pass in training mode that leaves each BatchNorm the statistics of what it sees, as training would.

    With the initial ones (0 and 1) signals die out or explode on the way, and nothing is left to compare.
    """
    mx = mxnet()

    def momentum(value: float) -> Any:
        def change(block: Any) -> None:
            if isinstance(block, mx.gluon.nn.BatchNorm):
                block._kwargs["momentum"] = value

        return change

    net.apply(momentum(0.0))
    with mx.autograd.record():
        found = net(mx.nd.random.uniform(-1, 1, (4, *shape[1:])))
        answers = list(found) if isinstance(found, (list, tuple)) else [found]
        total = mx.nd.add_n(*[answer.mean() for answer in answers])
    total.backward()  # MXNet's BatchNorm writes its statistics on the way back
    mx.nd.waitall()
    net.apply(momentum(0.9))


def export(name: str, folder: Path) -> int:
    """Write ``folder/net-symbol.json`` and ``net-0000.params``, once; the size of the images."""
    mx = mxnet()
    net, size = network(name)
    if (folder / "net-0000.params").exists():
        return size
    settle(net, (2, 3, min(size, 256), min(size, 256)))
    net.hybridize()
    found = net(mx.nd.zeros((1, 3, size, size)))
    folder.mkdir(parents=True, exist_ok=True)
    if name == "ssd_heads":
        symbol = net(mx.sym.var("data"))
        inner = symbol[0].get_internals()
        heads = [n for n in inner.list_outputs() if n.endswith(("softmax0_output", "box_decode0_output"))]
        (folder / "net-symbol.json").write_text(mx.sym.Group([inner[n] for n in heads]).tojson())
        held = {f"arg:{key}": value.data() for key, value in net.collect_params().items()}
        mx.nd.save(str(folder / "net-0000.params.part"), held)
        os.replace(folder / "net-0000.params.part", folder / "net-0000.params")
    else:
        del found
        net.export(str(folder / "net"))
    return size
