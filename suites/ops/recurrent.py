"""RNN: how its attributes and shapes are drawn.

With oneDNN off, MXNet's float32 kernel reads uninitialised memory or raises; float64 takes the plain kernel. On the
CPU it refuses ``use_sequence_length`` (the reference runs it on each row, cut to its length) and limits of the cell
state, and ends the process with ``projection_size`` (the references of both are written out here, after cuDNN's
equations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

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

    from_zeros = a.pop("from_zeros", False)

    def initial(shape: tuple[int, ...]) -> Tensor:
        zeros = from_zeros or d.integer(0, 3) == 0
        return Tensor(shape, values=[0.0], const=True) if zeros else Tensor(shape, const=d.boolean())

    for layer in range(layers):
        inputs = features if layer == 0 else width * directions
        projected = width * size if "projection_size" in a else 0
        count += directions * (gates * (inputs + width) + projected + 2 * gates)
    found = {
        "data": Tensor((length, batch, features)),
        "parameters": Tensor((count,), low=-1, high=1, const=d.boolean()),
        "state": initial((layers * directions, batch, width)),
    }
    if a["mode"] == "lstm":
        found["state_cell"] = initial((layers * directions, batch, size))
    if a.get("use_sequence_length"):
        found["sequence_length"] = Tensor((batch,), d.pick(["int32", "int64", "float32"]), values=range(1, length + 1))
    return found


def reference(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """MXNet in float64, with the type of the data."""
    wide = {name: np.asarray(a, np.float64) for name, a in arrays.items()}
    run = _written_out if {"projection_size", "lstm_state_clip_min"} & set(case.attributes) else _run
    found = _row_by_row(run, case, wide) if case.attributes.get("use_sequence_length") == "True" else run(case, wide)
    return [y.astype(arrays["data"].dtype) for y in found[: case.outputs]]


def _run(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    mx = mxnet()
    tensors = [mx.nd.array(a, dtype="float64") for a in arrays.values()]
    found = mx.nd.RNN(*tensors, **case.attributes)
    return [y.asnumpy() for y in (found if isinstance(found, list) else [found])]


def _row_by_row(
    run: Callable[[Case, Mapping[str, np.ndarray]], list[np.ndarray]], case: Case, arrays: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Each sequence alone and cut to its length; what lies behind it is 0."""
    whole = dict(arrays)
    lengths = np.rint(whole.pop("sequence_length")).astype(int)
    plain = replace(case, attributes={k: v for k, v in case.attributes.items() if k != "use_sequence_length"})
    rows = []
    for row, length in enumerate(lengths):
        one = {name: a if name == "parameters" else a[:, row : row + 1] for name, a in whole.items()}
        y, *ends = run(plain, {**one, "data": one["data"][:length]})
        rows.append([np.pad(y, ((0, len(whole["data"]) - length), (0, 0), (0, 0))), *ends])
    return [np.concatenate(parts, axis=1) for parts in zip(*rows)]


def _written_out(case: Case, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """LSTM: i, f, g, o = W x + b + R r + d; c' = clip(s(f) c + s(i) tanh(g)); r' = P (s(o) tanh(c'))."""
    size = int(case.attributes["state_size"])
    width = int(case.attributes.get("projection_size", size))
    low, high = (
        float(case.attributes.get(f"lstm_state_clip_{end}", f"{sign}inf")) for end, sign in (("min", "-"), ("max", ""))
    )
    directions = 2 if case.attributes.get("bidirectional") == "True" else 1
    layers = int(case.attributes["num_layers"])
    x, vector = arrays["data"], arrays["parameters"]
    place = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal place
        place += int(np.prod(shape))
        return vector[place - int(np.prod(shape)) : place].reshape(shape)

    weights = []
    for layer in range(layers):
        features = x.shape[2] if layer == 0 else width * directions
        for _ in range(directions):
            weights.append((take(4 * size, features), take(4 * size, width), _projection(case, take, width, size)))
    biases = [take(4 * size) + take(4 * size) for _ in weights]
    ends, memories = [], []
    for layer in range(layers):
        parts = []
        for direction in range(directions):
            cell = layer * directions + direction
            w, r, p = weights[cell]
            state, memory = arrays["state"][cell], arrays["state_cell"][cell]
            steps = []
            for step in x[::-1] if direction else x:
                i, f, g, o = np.split(step @ w.T + state @ r.T + biases[cell], 4, axis=1)
                memory = np.clip(_sigmoid(f) * memory + _sigmoid(i) * np.tanh(g), low, high)
                state = (_sigmoid(o) * np.tanh(memory)) @ p.T
                steps.append(state)
            parts.append(np.stack(steps[::-1] if direction else steps))
            ends.append(state)
            memories.append(memory)
        x = np.concatenate(parts, axis=2)
    return [x, np.stack(ends), np.stack(memories)]


def _projection(case: Case, take: Callable[..., np.ndarray], width: int, size: int) -> np.ndarray:
    return take(width, size) if "projection_size" in case.attributes else np.eye(size)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def legal(a: Attributes) -> bool:
    limits = ["lstm_state_clip_min" in a, "lstm_state_clip_max" in a]
    return (a["mode"] == "lstm" or ("projection_size" not in a and not any(limits))) and limits[0] == limits[1]


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
            "use_sequence_length": [DEFAULT, False, True],
            "projection_size": [DEFAULT, 1, 2],
            "lstm_state_clip_min": [DEFAULT, -0.4, -0.1],
            "lstm_state_clip_max": [DEFAULT, 0.3, 0.05],
            "lstm_state_clip_nan": [DEFAULT, False, True],
        },
        rnn,
        legal=legal,
        outputs=outputs,
        terms=lambda a, i: 64,
        reference=f"{__name__}:reference",
    ),
    *(  # states that are zeros for certain, where a layer is written out
        Spec(
            "RNN",
            {
                "mode": ["lstm"],
                "state_size": [3],
                "num_layers": [1, 2],
                "state_outputs": [True],
                "from_zeros": [True],
                **more,
            },
            rnn,
            outputs=outputs,
            terms=lambda a, i: 64,
            reference=f"{__name__}:reference",
            examples=2,
        )
        for more in (
            {"projection_size": [2]},
            {"lstm_state_clip_min": [-0.4], "lstm_state_clip_max": [0.3]},
        )
    ),
]
