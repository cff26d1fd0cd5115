"""The 34 networks of ``mxnet.gluon.model_zoo``: one engine each, MXNet's numbers, and accepted by TensorRT-RTX's builder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import harness
from harness import numerics
from harness.compiler import compile_graph
from harness.demo.photos import photos
from harness.engines.mxnet import graph_json
from harness.frontend.compat import mxnet
from harness.frontend.mxnet import read_model
from harness.graph import Graph
from harness.numerics.network import longest_sum, with_roundings
from harness.reference import float_entries

Arrays = Mapping[str, np.ndarray]
DRAWS = 3

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
_FIXED = {"inceptionv3": 299, "densenet": 224, "squeezenet": 224, "alexnet": 224}  # pooling windows of fixed size


def size_of(name: str, quick: bool) -> int:
    """The side of a network's images: that of ImageNet, or the smallest legal one for those that pool globally."""
    fixed = next((size for family, size in _FIXED.items() if name.startswith(family)), None)
    return fixed or (64 if quick else 224)


@dataclass(frozen=True)
class Row:
    """What became of one network; ``headroom`` is the largest error over its bound, per kind of image."""

    network: str
    size: int
    nodes: int
    segments: tuple[str, ...]
    fallbacks: int
    terms: int
    headroom: dict[str, float]
    problem: str
    refusals: tuple[str, ...]
    compile_seconds: float

    @property
    def ok(self) -> bool:
        return len(self.segments) == 1 and not self.fallbacks and not self.problem and not self.refusals


def network(name: str, size: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """Graph and parameters with random weights; each BatchNorm has the statistics of what it sees, as after training.

    With the initial statistics (0 and 1) signals die out or explode on the way, and nothing is left to compare.
    """
    mx = mxnet()
    mx.random.seed(7)
    np.random.seed(7)
    block = mx.gluon.model_zoo.vision.get_model(name)
    block.initialize(mx.init.MSRAPrelu())
    _settle(block, mx.nd.random.uniform(-1, 1, (2, 3, size, size)))
    return read_model(block, None, [])


def _settle(block: Any, images: Any) -> None:
    mx = mxnet()

    def momentum(value: float) -> Any:
        def change(part: Any) -> None:
            if isinstance(part, mx.gluon.nn.BatchNorm):
                part._kwargs["momentum"] = value

        return change

    block.apply(momentum(0.0))
    with mx.autograd.record():
        answer = block(images).mean()
    answer.backward()  # MXNet's BatchNorm writes its statistics on the way back
    mx.nd.waitall()
    block.apply(momentum(0.9))


def images(size: int) -> dict[str, np.ndarray]:
    """One random image and one photograph, (1, 3, size, size)."""
    rng = np.random.default_rng(7)
    pixels = np.asarray(photos()[0].square.resize((size, size)), np.float32) / 127.5 - 1
    return {
        "random": rng.uniform(-1, 1, (1, 3, size, size)).astype(np.float32),
        "photograph": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]),
    }


class InMXNet:
    """A graph run by MXNet in float64."""

    def __init__(self, graph: Graph) -> None:
        self.symbol = mxnet().sym.load_json(json.dumps(graph_json(graph)))

    def __call__(self, arrays: Arrays) -> list[np.ndarray]:
        mx = mxnet()
        known = {name: mx.nd.array(array, dtype="float64") for name, array in arrays.items()}
        states = {name: known.pop(name) for name in self.symbol.list_auxiliary_states()}
        known = {name: known[name] for name in self.symbol.list_arguments()}
        found = self.symbol.bind(mx.cpu(), known, aux_states=states, grad_req="null").forward(is_train=False)
        return [array.asnumpy() for array in found]


class Reference:
    """MXNet's answer in float64, to which answers of several precisions are held."""

    def __init__(self, graph: Graph, params: Arrays, inputs: Arrays) -> None:
        self.graph, self.terms = graph, longest_sum(graph, params)
        self.arrays = {**{name: np.asarray(a, np.float64) for name, a in params.items()}, **inputs}
        self.exact = InMXNet(graph)(self.arrays)

    def hold(self, found: Sequence[np.ndarray], precision: str = "fp32") -> tuple[float, str]:
        """The largest error over its bound, and what is wrong ("" if nothing is)."""
        floats = float_entries(self.graph, self.arrays, np.dtype(np.float64))
        rounded = InMXNet(with_roundings(self.graph, precision, floats.__contains__))
        moved = numerics.response(rounded, self.arrays, self.exact, precision, draws=DRAWS)
        trios = zip(found, self.exact, moved, strict=True)
        results = [numerics.compare(*trio, precision, self.terms) for trio in trios]
        return max(r.headroom for r in results), next((r.message for r in results if r.message), "")


def held_to_mxnet(
    graph: Graph, params: Arrays, inputs: Arrays, found: Sequence[np.ndarray], precision: str = "fp32"
) -> tuple[float, str]:
    """The largest error over its bound, and what is wrong ("" if nothing is)."""
    return Reference(graph, params, inputs).hold(found, precision)


def examine(name: str, quick: bool = False, builder: bool = False) -> Row:
    """Compile a network for ONNX Runtime, compare it with MXNet, and let TensorRT-RTX's builder judge it."""
    size = size_of(name, quick)
    graph, params = network(name, size)
    start = time.perf_counter()
    model = compile_graph(
        graph, params, {"data": (1, 3, size, size)}, engine="onnxruntime", fallback="mxnet", threads=2
    )
    seconds = time.perf_counter() - start
    headroom, problem = {}, ""
    for kind, image in images(size).items():
        headroom[kind], wrong = held_to_mxnet(graph, params, {"data": image}, model(data=image))
        problem = problem or (f"{kind}: {wrong}" if wrong else "")
    segments = tuple(segment.engine for segment in model.segments)
    refusals = _refusals(model, name) if builder else ()
    nodes = sum(len(segment.nodes) for segment in model.segments)
    terms = longest_sum(graph, params)
    return Row(name, size, nodes, segments, len(model.fallbacks), terms, headroom, problem, refusals, round(seconds, 3))


def _refusals(model: harness.Model, name: str) -> tuple[str, ...]:
    from harness.engines.tensorrt import check_model

    return tuple(str(refusal) for part in model.plan.models if part is not None for refusal in check_model(part, name))
