"""MXNet nodes become typed ONNX, one by one; segments of them become models.

``lower`` walks the graph once, in order. A node whose operator says why it cannot be lowered keeps that reason, and
its outputs' types come from ``infer`` (MXNet itself, if it is there), so that what follows can still be lowered.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper

from . import plugins
from .collection import without_collection
from .dims import Dim
from .errors import HarnessError, ModelError
from .frontend.params import place_in_file
from .graph import MOST_ELEMENTS, Entry, Graph, Node, TensorType
from .open_sizes import OpenSizes
from .operators import registry
from .operators.context import IR_VERSION, OPSET, Context, Fragment, Missing, Untyped, Value, type_proto
from .operators.registry import Unsupported
from .operators.schema import Attributes, Schema, schemas

Array = npt.NDArray[Any]
Infer = Callable[[Node, Sequence[Value]], "Sequence[TensorType] | None"]
Refuse = Callable[[Fragment], "str | None"]

BROKEN = "its attributes do not fit its inputs"  # so begins a refusal where a lowering failed in the middle
_SHAPE_ATTRIBUTES = ("kernel", "shape", "pooled_size", "output_size", "target_shape", "size", "depth", "N", "repeats")


@dataclass(slots=True)
class Lowered:
    """What one node became: a fragment or the reason why there is none; what it reads, and its outputs.

    Attributes:
        plugin: whether the fragment is a node that a plugin runs.
        on_host: why its NumPy function runs it and not the engine, "" if the engine does.
    """

    node: Node
    fragment: Fragment | None
    outputs: tuple[Value, ...]
    inputs: tuple[Value, ...] = ()
    reason: str | None = None
    plugin: bool = False
    on_host: str = ""


@dataclass(slots=True)
class LoweredGraph:
    """All reachable nodes by position, the outputs, and what was left out on the way."""

    graph: Graph
    nodes: dict[int, Lowered]
    dims: dict[str, Dim]
    removed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def outputs(self) -> list[Value]:
        return [_output(self, entry, "the symbol's outputs") for entry in self.graph.heads]


def lower(
    graph: Graph,
    variables: Mapping[str, Value],
    infer: Infer,
    refuse: Refuse,
    dims: dict[str, Dim],
) -> LoweredGraph:
    """Lower every node that the outputs need.

    Args:
        graph: the model.
        variables: the inputs and parameters by name.
        infer: types of the outputs of a node that is not lowered, or None if nothing can tell.
        refuse: why the engine cannot run a fragment, or None if it can.
        dims: the symbolic dimensions of the inputs, by their text.

    Raises:
        ModelError: the graph is not valid: an output that does not exist, an attribute that cannot be read.
    """
    sizes = OpenSizes([value for value in variables.values() if value.const is None])
    while True:
        result = _lower_once(graph, variables, infer, refuse, dims, sizes)
        if sizes.settled():
            return result


def _lower_once(
    graph: Graph,
    variables: Mapping[str, Value],
    infer: Infer,
    refuse: Refuse,
    dims: dict[str, Dim],
    sizes: OpenSizes,
) -> LoweredGraph:
    result = LoweredGraph(graph, {}, dims)
    reachable = graph.reachable()
    wanted = outputs_wanted(graph, reachable)
    for index in reachable:
        node = graph.nodes[index]
        if node.is_variable:
            value = variables.get(node.name) or Missing(node.name)
            result.nodes[index] = Lowered(node, None, (value,))
            continue
        inputs = [_output(result, entry, f"node {node.name!r} ({node.operator})") for entry in node.inputs]
        if sizes.searched and not any(isinstance(value, (Missing, Untyped)) for value in inputs):
            inputs = sizes.compare(node, inputs)
        result.nodes[index] = _lower_node(
            node, inputs, wanted.get(index, 0), graph.np_shape, infer, refuse, dims, sizes
        )
        if _is_removed(result.nodes[index]):
            result.removed.append((node.name, node.operator))
    return result


def outputs_wanted(graph: Graph, reachable: Iterable[int]) -> dict[int, int]:
    """Position -> the number of outputs that somebody refers to."""
    wanted: dict[int, int] = {}
    entries = [*graph.heads, *(entry for index in reachable for entry in graph.nodes[index].inputs)]
    for entry in entries:
        wanted[entry.node] = max(wanted.get(entry.node, 0), entry.output + 1)
    return wanted


def _output(result: LoweredGraph, entry: Entry, reader: str) -> Value:
    source = result.nodes[entry.node]
    if entry.output >= len(source.outputs):
        raise ModelError(
            f"{reader}: output number {entry.output} of {source.node.name!r} ({source.node.operator}) is asked for, "
            f"and it has {len(source.outputs)}"
        )
    return source.outputs[entry.output]


def _lower_node(
    node: Node,
    inputs: Sequence[Value],
    wanted: int,
    np_shape: bool,
    infer: Infer,
    refuse: Refuse,
    dims: dict[str, Dim],
    sizes: OpenSizes,
) -> Lowered:
    plugin = plugins.find(node.operator, node.attributes)
    try:
        if plugin is not None:
            fragment, outputs = _lower_plugin(plugin, node, inputs, infer, dims)
        else:
            fragment, outputs = lower_operator(node, inputs, np_shape, dims, sizes)
        if len(outputs) < wanted:
            raise Unsupported(f"its output {wanted - 1} is used, and only {len(outputs)} output(s) can be lowered")
        reason = refuse(fragment)
        if reason is None or plugin is not None:
            return Lowered(node, fragment, outputs, tuple(inputs), None, plugin is not None, reason or "")
    except Unsupported as refusal:
        reason = str(refusal)
    except HarnessError as error:
        if node.name in str(error):
            raise
        raise type(error)(f"node {node.name!r} ({node.operator}): {error}") from None
    types = infer(node, inputs)
    if types is None:
        unknown = tuple(Untyped(f"{node.name}:{i}", node) for i in range(max(wanted, 1)))
        return Lowered(node, None, unknown, tuple(inputs), reason)
    known = tuple(Value(f"{node.name}:{i}", kind) for i, kind in enumerate(types))
    return Lowered(node, None, known, tuple(inputs), reason)


def _lower_plugin(
    plugin: plugins.Plugin, node: Node, inputs: Sequence[Value], infer: Infer, dims: dict[str, Dim]
) -> tuple[Fragment, tuple[Value, ...]]:
    """The one node that a plugin runs, and its outputs.

    Raises:
        Unsupported: nothing tells the types of its inputs or outputs.
        ModelError: an attribute cannot be read, or the plugin's ``infer`` fails.
    """
    types = [value.type for value in inputs]
    found = _types_of(plugin, node, inputs, types, infer)
    dims.update({str(size): size for kind in found for size in kind.shape if isinstance(size, Dim)})
    stem = f"{node.name}/{plugin.name}"
    names = [stem] if len(found) == 1 else [f"{stem}:{i}" for i in range(len(found))]
    outputs = tuple(Value(name, kind) for name, kind in zip(names, found))
    call = plugins.call(plugin, node.name, node.attributes, types, found)
    proto = plugins.node_of(call, inputs, names, stem)
    return Fragment([proto], {value.name: value for value in (*inputs, *outputs)}), outputs


def _types_of(
    plugin: plugins.Plugin, node: Node, inputs: Sequence[Value], types: Sequence[TensorType], infer: Infer
) -> Sequence[TensorType]:
    if plugin.has_infer:
        return plugins.infer(plugin, node.name, plugin.read(node.attributes, node.name), types)
    advice = f"{plugin.label} does not tell the types of its outputs: give it a method infer"
    try:
        found = infer(node, inputs)
    except ModelError as error:  # MXNet knows no such operator
        raise ModelError(f"node {node.name!r} ({node.operator}): {advice} ({error})") from None
    if found is None:
        raise Unsupported(advice)
    return found


def lower_operator(
    node: Node, inputs: Sequence[Value], np_shape: bool, dims: dict[str, Dim], sizes: OpenSizes
) -> tuple[Fragment, tuple[Value, ...]]:
    """The ONNX fragment of one node and its output values.

    Raises:
        Unsupported: with the reason why the node cannot be lowered.
        ModelError: an attribute cannot be read.
    """
    definition = registry.find(node.operator)
    if definition is None:
        raise Unsupported(registry.reason(node.operator))
    schema = schemas()[node.operator]
    attributes = Attributes(schema, node.attributes, node.name)
    attributes.ignore("ctx", "num_args", "name", "__profiler_scope__", *definition.ignore)
    _check_sizes(node, attributes, schema)

    def body(graph: Graph, prefix: str, values: Sequence[Value]) -> tuple[list[Fragment], list[Value]]:
        return _lower_body(replace(graph, np_shape=np_shape), prefix, values, dims, sizes)

    context = Context(node.name, dims, np_shape, node.subgraphs, body, sizes)
    try:
        result = definition.lower(context, attributes, *inputs)
    except (Unsupported, HarnessError):
        raise
    except Exception as error:  # noqa: BLE001 - see _refusal: the one place where a lowering's own failure may end
        raise _refusal(error, node, inputs) from None
    unread = attributes.unread()
    if unread:
        raise Unsupported("the attribute " + ", ".join(f"{k}={v}" for k, v in unread.items()) + " is not supported")
    outputs = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    return context.fragment, outputs


def _check_sizes(node: Node, attributes: Attributes, schema: Schema) -> None:
    """Shapes that no tensor of MXNet can have, before a lowering spends memory on them."""
    for name in _SHAPE_ATTRIBUTES:
        if name in schema.attributes and name in node.attributes:
            value = attributes.peek(name)
            sizes = value if isinstance(value, tuple) else (value,)
            if all(isinstance(s, int) for s in sizes) and math.prod(sizes) >= MOST_ELEMENTS:
                raise ModelError(
                    f"node {node.name!r} ({node.operator}): {name}={node.attributes[name][:80]} is {math.prod(sizes)} "
                    f"elements; a tensor of MXNet has fewer than 2^31"
                )


def _refusal(error: Exception, node: Node, inputs: Sequence[Value]) -> Exception:
    """What a lowering failed at, in the caller's words.

    Lowerings are written for what MXNet accepts. Attributes, shapes and counts that it would refuse break them in the
    middle (an axis that is not there, a division by a stride of 0), and only here is it known which node that was.
    """
    if isinstance(error, TypeError) and "positional argument" in str(error):
        takes = ", ".join(schemas()[node.operator].inputs)
        return ModelError(f"node {node.name!r} ({node.operator}) has {len(inputs)} inputs; it takes {takes}")
    types = ", ".join(str(value.type) if not isinstance(value, (Missing, Untyped)) else "?" for value in inputs)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Unsupported(
        f"{BROKEN} ({types}): {type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
    )


def _lower_body(
    graph: Graph, prefix: str, values: Sequence[Value], dims: dict[str, Dim], sizes: OpenSizes
) -> tuple[list[Fragment], list[Value]]:
    """A subgraph for these values of its variables; all its names begin with ``prefix``.

    Raises:
        Unsupported: a node inside cannot be lowered, or the values do not fit the variables.
    """
    names = [f"{prefix}/{node.name}" for node in graph.variables]
    if len(names) != len(values):
        raise Unsupported(f"its body has {len(names)} variables and gets {len(values)} values")
    renamed = replace(graph, nodes=tuple(replace(node, name=f"{prefix}/{node.name}") for node in graph.nodes))
    known = dict(zip(names, values))
    lowered = _lower_once(renamed, known, lambda node, inputs: None, lambda fragment: None, dims, sizes)
    for item in lowered.nodes.values():
        if item.reason is not None:
            raise Unsupported(f"in its body, {item.node.name!r} ({item.node.operator}): {item.reason}")
        if item.plugin:
            raise Unsupported(
                f"in its body, {item.node.name!r} ({item.node.operator}) is a plugin's, which run outside only"
            )
    return [item.fragment for item in lowered.nodes.values() if item.fragment], lowered.outputs


def _is_removed(lowered: Lowered) -> bool:
    return lowered.fragment is not None and not lowered.fragment.nodes and bool(lowered.node.inputs)


# --- segments as models ----------------------------------------------------------------------------------------------


@without_collection
def assemble(
    name: str,
    fragments: Iterable[Fragment],
    inputs: Sequence[Value],
    outputs: Sequence[tuple[str, Value]],
) -> ir.Model:
    """One typed ONNX model of these fragments.

    Args:
        name: the graph's name.
        fragments: in topological order.
        inputs: what the model takes, in order.
        outputs: the name and the value of each output; values that the model does not produce (inputs, constants) or
            gives out twice pass through an Identity.
    """
    nodes: list[onnx.NodeProto] = []
    values: dict[str, Value] = {}
    for fragment in fragments:
        nodes.extend(fragment.nodes)
        values.update(fragment.values)
    nodes = _needed(nodes, {value.name for _, value in outputs})
    produced = {output for node in nodes for output in node.output}
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    identities = []
    for output_name, value in outputs:
        values[value.name] = value
        free = output_name == value.name or output_name not in values
        if value.name in produced and value.name not in taken and free:
            renamed[value.name] = output_name
            taken.add(value.name)
        else:
            identities.append(helper.make_node("Identity", [value.name], [output_name], name=f"{output_name}/Identity"))
    graph = helper.make_graph(
        nodes + identities,
        name,
        [helper.make_value_info(value.name, type_proto(value.type)) for value in inputs],
        [helper.make_value_info(output_name, type_proto(value.type)) for output_name, value in outputs],
        value_info=[
            helper.make_value_info(value.name, value.proto)
            for value in values.values()
            if value.name in produced and value.name not in renamed
        ],
    )
    _rename(graph, renamed)
    opsets = [helper.make_opsetid("", OPSET)]
    if any(plugins.is_plugin(node) for node in nodes):
        opsets.append(helper.make_opsetid(plugins.DOMAIN, 1))
    constants = _constants(graph, values, {value.name for value in inputs} | produced)
    graph.initializer.extend(_placeholder(name, array) for name, array in constants.items())
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mxtrt"))
    for name, array in constants.items():
        model.graph.initializers[name].const_value = constant_tensor(name, array)
    return model


def _needed(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes without those that nothing reads: an engine may refuse what no answer depends on."""
    wanted = set(wanted)
    kept = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(names_used(node))
            kept.append(node)
    return kept[::-1]


def names_used(node: onnx.NodeProto) -> Iterator[str]:
    """The names of values that a node reads, its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from names_used(inner)


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    if not renamed:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name in renamed:
                    names[position] = renamed[name]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, renamed)


def _constants(graph: onnx.GraphProto, values: Mapping[str, Value], known: set[str]) -> dict[str, Array]:
    """The constants that the nodes read, subgraphs included, in order of first use."""
    found: dict[str, Array] = {}
    for node in graph.node:
        for name in node.input:
            value = values.get(name)
            if value is not None and value.const is not None and name not in known:
                found[name] = value.const
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.update(_constants(attribute.g, values, known))
    return found


def _placeholder(name: str, array: Array) -> onnx.TensorProto:
    """An initializer without its data, which never pass through protobuf."""
    data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=data_type, dims=array.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="placeholder")
    return tensor


def constant_tensor(name: str, array: Array) -> ir.TensorProtocol:
    """An array as onnx-ir's tensor, without a copy; a view of a file stays one."""
    place = place_in_file(array)
    dtype = ir.DataType.from_numpy(array.dtype)
    if place is None or array.nbytes < 1024:
        return ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
    path, offset = place
    return ir.ExternalTensor(
        path.name, offset, array.nbytes, dtype, shape=ir.Shape(array.shape), name=name, base_dir=str(path.parent)
    )
