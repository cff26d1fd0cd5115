"""What a plan consists of, and where its time goes, in terms of MXNet's nodes.

TensorRT's inspector gives JSON in two schemas, and layers as plain names unless the plan was built with detailed
profiling. Both are read here. A layer is traced back by the ONNX nodes that its metadata or its name mentions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..layers import Layer, LayerTime, Owners


def describe_layers(trt: Any, engine: Any, owners: Owners) -> list[Layer]:
    """The layers of an engine, in the order in which they run."""
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):  # profiling="none": the plan knows nothing of itself
        return []
    return [_layer(item, owners) for item in layers]


def _layer(item: Any, owners: Owners) -> Layer:
    if not isinstance(item, Mapping):
        return Layer(str(item), trace(str(item), owners))
    name = str(item.get("Name", ""))
    details = {key: value for key, value in item.items() if key not in ("Name", "LayerType")}
    traced = trace(str(item.get("Metadata", "")), owners) or trace(name, owners)
    tactic = str(item.get("TacticName") or item.get("TacticValue") or "")
    return Layer(name, traced, str(item.get("LayerType", "")), _precision(item), tactic, details)


def _precision(item: Mapping[str, Any]) -> str:
    """Format and type of the first output: 10.x has them in one text, later versions apart."""
    outputs = item.get("Outputs") or [{}]
    first = outputs[0] if isinstance(outputs, list) and isinstance(outputs[0], Mapping) else {}
    texts = (first.get(key) for key in ("Format/Datatype", "Format", "Datatype", "DataType"))
    return " ".join(str(text) for text in texts if text)


_SEPARATORS = re.compile(r" \+ |\x1e|\x1f|\.\.\.|[\[\]{}(),|]|ONNX Layer: ")


def trace(text: str, owners: Owners) -> tuple[str, ...]:
    """The MXNet nodes whose ONNX nodes a layer's name or metadata mentions."""
    words = (word.strip() for word in _SEPARATORS.split(text))
    return tuple(dict.fromkeys(node for word in words for node in owners.get(word, ())))


def layer_times(milliseconds: Mapping[str, float], runs: int, owners: Owners) -> list[LayerTime]:
    """The mean of the times that a profiler summed up, layer by layer."""
    return [LayerTime(name, trace(name, owners), total / runs) for name, total in milliseconds.items()]


def make_profiler(trt: Any) -> Any:
    """TensorRT's profiler that sums up; ``milliseconds`` maps a layer to its total."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()
