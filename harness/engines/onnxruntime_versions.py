"""What older versions of ONNX Runtime get wrong, and what keeps it from happening.

1.22 to 1.28, 1.31 and 1.32 were tried. Python 3.10 has none above 1.23.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import helper

from ..operators.context import OPSET, Value

Release = tuple[int, ...]

# The versions that mended it.
NORMALIZES_ONE = (1, 24)  # LayerNormalization of one number is refused in a run
AVERAGES = (1, 25)  # AveragePool divides by the padding of another axis
OPTIMIZES_22 = (1, 25)  # no optimizer knows the convolutions of opset 22: nothing is fused, no layout is blocked
FUSES_FLOAT64 = (1, 26)  # MatmulTransposeFusion makes products of float64, which have no kernel
ERF_OF_NAN = (1, 27)  # is 1


def opset(release: Release) -> int:
    """The opset that models are stamped with. From 21 to 22 operators only took bfloat16 in, which this engine emulates."""
    return OPSET if release >= OPTIMIZES_22 else 21


def refuse(node: onnx.NodeProto, values: Mapping[str, Value], release: Release) -> str | None:
    """Why a node cannot be left to a version, None if it can."""
    if release < AVERAGES and _counts_padding(node):
        reason = "divides a mean over padding that differs between the axes by a wrong number; 1.25 does not"
    elif release < NORMALIZES_ONE and _normalizes_one(node, values):
        reason = "does not normalize one number; 1.24 does"
    else:
        return None
    return f"onnxruntime {'.'.join(map(str, release))} {reason} (Python 3.11 and newer have it)"


def _counts_padding(node: onnx.NodeProto) -> bool:
    """Whether this is a mean that counts the padding, of which the axes have not the same."""
    if node.op_type != "AveragePool":
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return bool(attributes.get("count_include_pad")) and len(set(attributes.get("pads", ()))) > 1


def _normalizes_one(node: onnx.NodeProto, values: Mapping[str, Value]) -> bool:
    scale = values.get(node.input[1]) if node.op_type == "LayerNormalization" else None
    return scale is not None and scale.shape == (1,)


def disabled(model: ir.Model, release: Release) -> list[str]:
    """The optimizers that make nodes of this model that cannot be run."""
    products = (node for node in model.graph if node.op_type == "MatMul")
    wrong = release < FUSES_FLOAT64 and any(node.outputs[0].dtype == ir.DataType.DOUBLE for node in products)
    return ["MatmulTransposeFusion"] if wrong else []


def mend(model: onnx.ModelProto, release: Release) -> None:
    """Make a model, in place, one that a version runs as the newest would."""
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = min(entry.version, opset(release))
    if release < ERF_OF_NAN:
        for graph in _graphs(model.graph):
            _keep_nan_in_erf(graph)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _keep_nan_in_erf(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        if node.op_type == "Erf":
            (x,), (result,) = node.input, node.output
            graph.node[-1].output[0] = f"{result}/of_number"
            graph.node.append(helper.make_node("IsNaN", [x], [f"{result}/is_nan"], f"{node.name}/is_nan"))
            chosen = [f"{result}/is_nan", x, f"{result}/of_number"]
            graph.node.append(helper.make_node("Where", chosen, [result], f"{node.name}/keep_nan"))
