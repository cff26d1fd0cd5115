"""What a plan consists of, and where its time goes, in terms of MXNet's nodes.

TensorRT's inspector gives JSON in two schemas, and layers as plain names unless the plan was built with detailed
profiling. Both are read here. A layer is traced back by the ONNX nodes that its metadata or its name mentions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .refusals import owner_of


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a plan.

    Attributes:
        nodes: the MXNet nodes in it; empty for what TensorRT added (reformats).
        kind: TensorRT's type of layer, "" if the plan was not built with ``profiling="detailed"``.
        details: everything else that the inspector says.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Mean milliseconds of one layer."""

    name: str
    nodes: tuple[str, ...]
    milliseconds: float


def describe_layers(trt: Any, engine: Any, nodes: Sequence[str]) -> list[Layer]:
    """The layers of an engine, in the order in which they run."""
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):  # profiling="none": the plan knows nothing of itself
        return []
    return [_layer(item, nodes) for item in layers]


def _layer(item: Any, nodes: Sequence[str]) -> Layer:
    if not isinstance(item, Mapping):
        return Layer(str(item), trace(str(item), nodes))
    name = str(item.get("Name", ""))
    details = {key: value for key, value in item.items() if key not in ("Name", "LayerType")}
    traced = trace(str(item.get("Metadata", "")), nodes) or trace(name, nodes)
    return Layer(name, traced, str(item.get("LayerType", "")), details)


_SEPARATORS = re.compile(r" \+ |\x1e|\x1f|\.\.\.|[\[\]{}(),|]|ONNX Layer: ")


def trace(text: str, nodes: Sequence[str]) -> tuple[str, ...]:
    """The MXNet nodes whose ONNX nodes a layer's name or metadata mentions."""
    known = set(nodes)
    words = (word.strip() for word in _SEPARATORS.split(text))
    return tuple(dict.fromkeys(owner_of(word) for word in words if word in known))


def layer_times(milliseconds: Mapping[str, float], runs: int, nodes: Sequence[str]) -> list[LayerTime]:
    """The mean of the times that a profiler summed up, layer by layer."""
    return [LayerTime(name, trace(name, nodes), total / runs) for name, total in milliseconds.items()]


def make_profiler(trt: Any) -> Any:
    """TensorRT's profiler that sums up; ``milliseconds`` maps a layer to its total."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()
