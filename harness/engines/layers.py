"""What an engine made of a part: its layers, which of the part's nodes each holds, and the time each takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

FOLDED = "mxtrt.folded"  # metadata of an ONNX node: the MXNet nodes besides its own that were folded into it, as JSON
Owners = Mapping[str, tuple[str, ...]]
WITH_CONSTANTS = frozenset({
    "Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Selu", "ThresholdedRelu",
})  # fmt: skip
POINTWISE = WITH_CONSTANTS | {"Add", "Clip", "Div", "Max", "Min", "Mul", "Relu", "Sigmoid", "Softsign", "Sub", "Tanh"}


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


@dataclass(frozen=True, slots=True)
class Region:
    """What engines compute together: pointwise nodes whose values nobody else reads.

    Attributes:
        nodes: the pointwise nodes.
        reads: the values from outside that are not constants.
        before: the producers of those that nobody else reads.
    """

    nodes: frozenset[ir.Node]
    reads: frozenset[ir.Value]
    before: frozenset[ir.Node]


def region_of(value: ir.Value) -> Region:
    """The pointwise nodes that make a value, whoever reads it; without any, its producer alone is before it."""
    last = value.producer()
    if last is None or last.op_type not in POINTWISE:
        return Region(frozenset(), frozenset({value}), frozenset({last} if last is not None else ()))
    inside: set[ir.Node] = set()
    more = {last}
    while more:
        inside |= more
        values = [
            source for node in inside for source in node.inputs if source is not None and source.const_value is None
        ]
        reads = {source for source in values if source.producer() not in inside}
        before = {node for source in reads if (node := _producer_for(inside, source)) is not None}
        more = {node for node in before if node.op_type in POINTWISE}
    return Region(frozenset(inside), frozenset(reads), frozenset(before))


def _producer_for(inside: set[ir.Node], value: ir.Value) -> ir.Node | None:
    """The producer of a value that nobody reads but these nodes; None if there are others."""
    return value.producer() if {use.node for use in value.uses()} <= inside else None


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
