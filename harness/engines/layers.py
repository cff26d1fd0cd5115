"""What an engine made of a part: its layers, which of the part's nodes each holds, and the time each takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

FOLDED = "mxtrt.folded"  # metadata of an ONNX node: the MXNet nodes besides its own that were folded into it, as JSON
Owners = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, as the engine runs it.

    Attributes:
        name: the engine's name of it.
        nodes: the MXNet nodes in it; empty for what the engine added (casts, changes of layout).
        kind: the engine's type of layer, "" if it does not say (TensorRT: ``profiling="detailed"``).
        precision: the type of its output, and TensorRT's format, "" if the engine does not say.
        tactic: the kernel that runs it, "" if the engine does not say.
        details: everything else that the engine says.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str = ""
    precision: str = ""
    tactic: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Milliseconds of one layer in a run: TensorRT tells means, of ONNX Runtime's times it is the median."""

    name: str
    nodes: tuple[str, ...]
    milliseconds: float


def fused_result(value: ir.Value) -> ir.Value:
    """What a convolution gives out together with the activations that engines fuse into it: of 8 bits Clip and Relu."""
    readers = [use.node for use in value.uses()]
    fused = len(readers) == 1 and readers[0].op_type in ("Clip", "Relu") and not value.is_graph_output()
    return fused_result(readers[0].outputs[0]) if fused else value


def owner_of(node: str) -> str:
    """The MXNet node of an ONNX node: lowerings name theirs ``NODE/Operator``."""
    return node.rpartition("/")[0] or node


def owners_of(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """ONNX node -> the MXNet nodes that it stands for."""
    found = {}
    for node in model.graph:
        folded = json.loads(node.metadata_props.get(FOLDED, "[]"))
        found[str(node.name)] = (*folded, owner_of(str(node.name)))
    return found
