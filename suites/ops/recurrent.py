"""RNN: how its attributes and shapes are drawn.

With oneDNN off, MXNet's float32 kernel reads uninitialised memory or raises; float64 takes the plain kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.frontend.compat import mxnet

from .case import DEFAULT, Attributes, Case, Draw, Inputs, Spec, Tensor

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}


def rnn(d: Draw, a: Attributes) -> Inputs:
    length, batch, features = d.integer(1, 4), d.integer(1, 3), d.integer(1, 3)
    size, layers = a["state_size"], a["num_layers"]
    directions = 2 if a.get("bidirectional") else 1
    width = a.get("projection_size", size)
    gates = GATES[a["mode"]] * size
    count = 0
    for layer in range(layers):
        inputs = features if layer == 0 else width * directions
        projected = width * size if "projection_size" in a else 0
        count += directions * (gates * (inputs + width) + projected + 2 * gates)
    found = {
        "data": Tensor((length, batch, features)),
        "parameters": Tensor((count,), low=-1, high=1, const=d.boolean()),
        "state": Tensor((layers * directions, batch, width)),
    }
    if a["mode"] == "lstm":
        found["state_cell"] = Tensor((layers * directions, batch, size))
    return found


def reference(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """MXNet in float64, with the type of the data."""
    return [y.astype(arrays["data"].dtype) for y in _run(case, arrays)]


def _run(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    mx = mxnet()
    tensors = [mx.nd.array(a, dtype="float64") for a in arrays.values()]
    found = mx.nd.RNN(*tensors, **case.attributes)
    return [y.asnumpy() for y in (found if isinstance(found, list) else [found])]


def legal(a: Attributes) -> bool:
    if "projection_size" in a:
        return a["mode"] == "lstm"
    return True


def outputs(a: Attributes) -> int:
    return (3 if a["mode"] == "lstm" else 2) if a.get("state_outputs") else 1


SPECS = [
    Spec(
        "RNN",
        {
            "mode": ["rnn_relu", "rnn_tanh", "lstm", "gru"],
            "state_size": [3, 4],
            "num_layers": [1, 2],
            "bidirectional": [DEFAULT, False, True],
            "state_outputs": [DEFAULT, False, True],
            "p": [DEFAULT, 0.3, 0.6],
            "use_sequence_length": [DEFAULT, False],
        },
        rnn,
        legal=legal,
        outputs=outputs,
        terms=lambda a, i: 64,
        reference=f"{__name__}:reference",
    ),
]
