"""float32 models in float16 or bfloat16: every value gets the type its producer computes in, casts go between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..engines.layers import POINTWISE, WITH_CONSTANTS, Region, region_of
from ..plugins import is_plugin
from .policy import (
    ARITHMETIC,
    FIXED_INPUTS,
    JUMPS,
    NEUTRAL,
    POSITIONS,
    PRODUCTS,
    RECURRENT,
    SEQUENCE_LENGTHS,
    TYPES,
    WIDE,
)  # fmt: skip

_DENSE = frozenset({"Gemm", "MatMul"})
_PRODUCTS = _DENSE | {"Conv", "ConvTranspose"}
_UNTRIED = frozenset({"Softsign", "Tanh"})
_LONG_SUM = 2048  # terms; ResNet-50's 2,048 lose nothing


def narrow(model: ir.Model, precision: str, native: bool = True) -> ir.Model:
    """The model computed in ``precision`` where the policy allows; inputs and outputs keep their types.

    Args:
        model: typed ONNX with float32 data; changed in place, and returned.
        precision: "fp16" or "bf16".
        native: if not, every narrow value is rounded to the type and computed with in float32 (for engines without
            kernels for the type: the numbers are those of an engine that accumulates in float32).
    """
    worker = _Narrowing(model.graph, TYPES[precision], native)
    for node in list(model.graph):
        worker.visit(node)
    worker.restore_outputs()
    return model


class _Narrowing:
    def __init__(self, graph: ir.Graph, narrow: ir.DataType, native: bool) -> None:
        self.graph, self.narrow, self.native = graph, narrow, native
        self.casts: dict[tuple[str, ir.DataType], ir.Value] = {}
        self.floats = {value.name for value in _all_values(graph) if value.dtype == ir.DataType.FLOAT}
        self.positions: set[str] = set()
        self.wide = _before_jumps(graph)
        if narrow == ir.DataType.FLOAT16:
            self.wide |= _behind_8_bits(graph)
        self.wanted_outputs = [value.dtype for value in graph.outputs]

    def visit(self, node: ir.Node) -> None:
        self._widen_captured(node)
        target = self._target(node)
        if target is None:
            return
        fixed = FIXED_INPUTS.get(node.op_type, frozenset())
        for position, value in enumerate(node.inputs):
            if value is not None and value.name in self.floats and position not in fixed:
                node.replace_input_with(position, self._as(value, target, node))
        for value in node.outputs:
            if value.name in self.floats:
                self._set_type(node, value, target)

    def _widen_captured(self, node: ir.Node) -> None:
        """Bodies of loops and branches stay in float32: what they take from outside is cast back for them."""
        for attribute in node.attributes.values():
            if attribute.type != ir.AttributeType.GRAPH:
                continue
            for inner in attribute.as_graph().all_nodes():
                for position, value in enumerate(inner.inputs):
                    if value is not None and value.name in self.floats and value.dtype == self.narrow:
                        inner.replace_input_with(position, self._as(value, ir.DataType.FLOAT, node))

    def _target(self, node: ir.Node) -> ir.DataType | None:
        """The type this node computes in; None if it has nothing to do with float32."""
        floats = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name in self.floats]
        if not floats:
            return None
        if self._is_position(node):
            self.positions.update(str(value.name) for value in node.outputs)
            return ir.DataType.FLOAT
        has_lengths = len(node.inputs) > SEQUENCE_LENGTHS and node.inputs[SEQUENCE_LENGTHS] is not None
        if node.op_type in RECURRENT and has_lengths:
            return ir.DataType.FLOAT
        kept = node.op_type in WIDE or node.op_type in POSITIONS or node in self.wide
        if kept or is_plugin(node) or _is_single(node):
            return ir.DataType.FLOAT
        if _lacks_kernel(node, self.narrow) or _sums_8_bits(node):
            return ir.DataType.FLOAT
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].is_graph_input():
            return ir.DataType.FLOAT  # straight to 8 bits: rounding twice would cost a pass over the input
        if node.op_type == "QuantizeLinear" and _ends_constants(node):
            return ir.DataType.FLOAT
        if node.op_type in NEUTRAL:
            return self._followed(node)
        return self.narrow

    def _is_position(self, node: ir.Node) -> bool:
        if node.op_type in POSITIONS:
            source = node.inputs[0] if node.inputs else None
            return node.op_type != "Cast" or source is None or source.name not in self.floats
        moving = node.op_type in ARITHMETIC or node.op_type in NEUTRAL
        return moving and any(value is not None and value.name in self.positions for value in node.inputs)

    def _followed(self, node: ir.Node) -> ir.DataType:
        """The type of the first float input that is not a constant; narrow if all are."""
        for value in node.inputs:
            if value is not None and value.name in self.floats and value.const_value is None:
                if value.is_graph_input():
                    return self.narrow
                return value.dtype if value.dtype is not None else self.narrow
        return self.narrow

    def _as(self, value: ir.Value, target: ir.DataType, before: ir.Node) -> ir.Value:
        """``value`` in another type: a constant is converted now, a computed one by a Cast where it is first needed."""
        if value.dtype == target:
            return value
        key = (str(value.name), target)
        if key not in self.casts:
            if value.const_value is not None:
                self.casts[key] = self._constant(value, target)
            else:
                node = _cast(value, target, f"{value.name}/{target.name.lower()}")
                producer = value.producer()
                if producer is not None:
                    self.graph.insert_after(producer, node)
                else:
                    self.graph.insert_before(self.graph[0], node)
                self.casts[key] = node.outputs[0]
        return self.casts[key]

    def _constant(self, value: ir.Value, target: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        array = _in_range(value.const_value.numpy(), target)
        name = f"{value.name}/{target.name.lower()}"
        constant = ir.Value(name=name, shape=value.shape, type=ir.TensorType(target))
        constant.const_value = ir.Tensor(array.astype(target.numpy()), dtype=target, name=name)
        self.graph.register_initializer(constant)
        return constant

    def _set_type(self, node: ir.Node, value: ir.Value, target: ir.DataType) -> None:
        if target == ir.DataType.FLOAT:
            return
        value.type = ir.TensorType(target)
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", target.value)

    def restore_outputs(self) -> None:
        """Outputs in the types they had; narrow arithmetic emulated where the engine has none."""
        for position, (value, wanted) in enumerate(zip(list(self.graph.outputs), self.wanted_outputs)):
            if value.dtype != wanted and wanted is not None:
                _retype_output(self.graph, position, value, wanted)
        if not self.native:
            _emulate(self.graph, self.narrow)


def _before_jumps(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that jump or make integers of floats, the arithmetic that leads to them, and products of integers."""
    found: set[ir.Node] = set()
    wanted: set[str] = set()
    quantized: set[str] = set()
    for node in reversed(graph):
        moves = node.op_type in ARITHMETIC or node.op_type in NEUTRAL or node.op_type in JUMPS
        leads = moves and any(value.name in wanted for value in node.outputs)
        exact = _is_stretch(node) and node.outputs[0].name in quantized
        if node.op_type in PRODUCTS and node.outputs[0].name in wanted:
            found.add(node)
        if node.op_type in JUMPS or leads or exact or _makes_integers(node):
            found.add(node)
            wanted.update(str(value.name) for value in node.inputs if value is not None)
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
            quantized.add(str(node.inputs[0].name))
    return found


def _in_range(array: npt.NDArray[Any], target: ir.DataType) -> npt.NDArray[Any]:
    """Constants as the narrow type can tell them from infinity, and single numbers from 0.

    Lowerings guard with the largest and the smallest number of float32: the guard must not become what it guards from.
    """
    if target == ir.DataType.FLOAT:
        return array
    info = ml_dtypes.finfo(target.numpy())  # type: ignore[no-untyped-call]
    largest, smallest = float(info.max), float(info.smallest_subnormal)
    array = np.where(np.isinf(array), array, np.clip(array, -largest, largest))
    vanishes = (array.size == 1) & (array != 0) & (np.abs(array) <= smallest / 2)
    return np.where(vanishes, np.copysign(smallest, array), array)


def _lacks_kernel(node: ir.Node, narrow: ir.DataType) -> bool:
    """What TensorRT 10.6 has no kernel for.

    In bfloat16 resizing and deconvolution; in 16 bits convolution in groups of an odd number of channels above one.
    """
    if node.op_type in ("Resize", "ConvTranspose"):
        return narrow == ir.DataType.BFLOAT16
    weight = node.inputs[1] if node.op_type == "Conv" else None
    channels = weight.shape[1] if weight is not None and weight.shape is not None else 0
    grouped = "group" in node.attributes and node.attributes["group"].as_int() > 1
    return grouped and isinstance(channels, int) and channels > 1 and channels % 2 == 1


def _sums_8_bits(node: ir.Node) -> bool:
    """Whether a node is a long matrix product of quantized arrays, or dequantizes for such products only.

    TensorRT 10.6 loses 5 dB of VGG-16 by those over float16 (25,088 terms), and nothing over float32.
    """
    if node.op_type == "DequantizeLinear":
        readers = [use.node for use in node.outputs[0].uses()]
        return bool(readers) and all(map(_sums_8_bits, readers))
    if node.op_type not in _DENSE or not _multiplies_8_bits(node):
        return False
    left = node.inputs[0]
    length = left.shape[-1] if left is not None and left.shape is not None else None
    return not isinstance(length, int) or length > _LONG_SUM


def _multiplies_8_bits(node: ir.Node) -> bool:
    factors = [value.producer() for value in node.inputs[:2] if value is not None]
    quantized = all(factor is not None and factor.op_type == "DequantizeLinear" for factor in factors)
    return node.op_type in _PRODUCTS and quantized


def _behind_8_bits(graph: ir.Graph) -> set[ir.Node]:
    """The activations with constants behind a product of 8 bits whose result is not quantized again.

    TensorRT 10.6 may make one layer of both, by a kernel that writes 8 bits where 16 are read (found on an H200,
    CaskJitConv "i8i8" with an output of halves: 0.6 dB for 44 with a leaky ReLU, a hard swish or an ELU). Computed in
    float32 they are a layer of their own. Relu, Clip, Sigmoid and x * sigmoid(x) were right in float16, and leaky ReLU
    in bfloat16; Tanh and Softsign have not been tried.
    """
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type in POINTWISE and _is_read_wide(node.outputs[0]):
            region = region_of(node.outputs[0])
            if any(map(_multiplies_8_bits, region.before)) and _has_constants(region, WITH_CONSTANTS | _UNTRIED):
                found |= region.nodes
    return found


def _is_read_wide(value: ir.Value) -> bool:
    """Whether somebody reads a value as it is: neither quantizations only, nor one node that engines fuse with it."""
    readers = [use.node.op_type for use in value.uses()]
    fused = len(readers) == 1 and readers[0] in POINTWISE
    return value.is_graph_output() or not (fused or set(readers) == {"QuantizeLinear"})


def _ends_constants(node: ir.Node) -> bool:
    """Whether activations that have constants lie between a product and this QuantizeLinear, and nobody else reads them.

    TensorRT 10.6 makes one layer of all that, and then refuses constants of 16 bits (found on an H200: "Assertion type()
    == expectedDataType<T>() failed"); where the quantization reads float32 it does not. A normalization behind a sum of
    two branches it leaves apart.
    """
    value = node.inputs[0]
    if value is None:
        return False
    region = region_of(value)
    from_product = any(one.op_type in _PRODUCTS for one in region.before)
    return from_product and _has_constants(region, WITH_CONSTANTS)


def _has_constants(region: Region, own: frozenset[str]) -> bool:
    """Whether one of these operators is in a region, or one that scales the only value that it reads."""
    scaled = len(region.reads) == 1 and any(map(_scales, region.nodes))
    return scaled or any(node.op_type in own for node in region.nodes)


def _scales(node: ir.Node) -> bool:
    """Whether a node computes with a constant, and not only within bounds, which TensorRT takes as numbers."""
    return node.op_type != "Clip" and any(value is not None and value.const_value is not None for value in node.inputs)


def _is_stretch(node: ir.Node) -> bool:
    """Whether a node multiplies with one number."""
    shapes = [value.shape for value in node.inputs if value is not None]
    return node.op_type == "Mul" and any(shape is not None and set(shape) <= {1} for shape in shapes)


def _is_single(node: ir.Node) -> bool:
    """Whether a node computes one number: it costs nothing, and ranges and scales may leave 16 bits."""
    shape = node.outputs[0].shape
    return (node.op_type in ARITHMETIC or node.op_type in NEUTRAL) and shape is not None and set(shape) == {1}


def _makes_integers(node: ir.Node) -> bool:
    source = node.inputs[0] if node.op_type == "Cast" else None
    target = node.outputs[0].dtype
    return source is not None and source.dtype == ir.DataType.FLOAT and target is not None and target.is_integer()


def _retype_output(graph: ir.Graph, position: int, value: ir.Value, wanted: ir.DataType) -> None:
    """Give the graph's output its type back under its own name."""
    name, narrow_type = str(value.name), value.type
    value.name = f"{name}/narrow"
    node = _cast(value, wanted, name)
    assert narrow_type is not None
    graph.append(node)
    graph.outputs[position] = node.outputs[0]


def _emulate(graph: ir.Graph, narrow: ir.DataType) -> None:
    """Every narrow value rounded to the type, and float32 again for its readers."""
    for node in list(graph):
        for value in node.outputs:
            if value.dtype != narrow or node.op_type == "Cast":
                continue
            readers = list(value.uses())
            down = _cast(value, narrow, f"{value.name}/rounded")
            up = _cast(down.outputs[0], ir.DataType.FLOAT, f"{value.name}/widened")
            value.type = ir.TensorType(ir.DataType.FLOAT)
            graph.insert_after(node, (down, up))
            for user, position in readers:
                user.replace_input_with(position, up.outputs[0])
    for node in list(graph):
        is_cast = node.op_type == "Cast" and node.outputs[0].dtype == narrow
        if is_cast and not str(node.name).endswith("/rounded/Cast"):
            _widen_after(graph, node)
    _widen_constants(graph, narrow)


def _widen_after(graph: ir.Graph, node: ir.Node) -> None:
    value = node.outputs[0]
    readers = list(value.uses())
    up = _cast(value, ir.DataType.FLOAT, f"{value.name}/widened")
    graph.insert_after(node, up)
    for user, position in readers:
        user.replace_input_with(position, up.outputs[0])


def _widen_constants(graph: ir.Graph, narrow: ir.DataType) -> None:
    for value in list(graph.initializers.values()):
        if value.dtype == narrow and value.const_value is not None:
            rounded = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.Tensor(rounded, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)


def _cast(value: ir.Value, target: ir.DataType, name: str) -> ir.Node:
    node = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", target.value)], name=f"{name}/Cast")
    node.outputs[0].name = name
    node.outputs[0].shape = value.shape
    node.outputs[0].type = ir.TensorType(target)
    return node


def _all_values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
