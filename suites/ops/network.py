"""FullyConnected, Flatten and Dropout: how their attributes and shapes are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor


def fully_connected(d: Draw, a: Attributes) -> Inputs:
    shape = d.shape((1, 4))
    flat = a.get("flatten", True)
    width = int(np.prod(shape[1:])) if flat else shape[-1]
    moving = tuple(range(len(shape) - 1)) if not flat and len(shape) > 1 else (0,) if len(shape) > 1 else ()
    inputs = {
        "data": Tensor(shape, dynamic=moving),
        "weight": Tensor((a["num_hidden"], width), const=d.boolean()),
    }
    if not a.get("no_bias", False):
        column = a.pop("column", False)
        inputs["bias"] = Tensor((a["num_hidden"], 1) if column else (a["num_hidden"],), const=d.boolean())
    return inputs


SPECS = [
    Spec(
        "FullyConnected",
        {"num_hidden": [1, 3], "no_bias": [DEFAULT, False, True], "flatten": [DEFAULT, False, True]},
        fully_connected,
        terms=lambda a, i: int(np.prod(i["weight"].shape)),
    ),
    Spec("FullyConnected", {"num_hidden": [3], "column": [True]}, fully_connected, terms=lambda a, i: int(np.prod(i["weight"].shape)), examples=2),
    Spec("Flatten", {}, lambda d, a: {"data": Tensor(d.shape((1, 5)), dynamic=(0,))}),
    Spec(
        "Dropout",
        {"p": [DEFAULT, 0.0, 0.3], "mode": [DEFAULT, "training", "always"], "axes": [DEFAULT, (0,), (0, 1)],
         "cudnn_off": [DEFAULT, True]},
        lambda d, a: {"data": Tensor(d.shape((2, 4)), dynamic=(0,))},
        legal=lambda a: a.get("mode") != "always" or a.get("p") == 0.0,
    ),
]  # fmt: skip
