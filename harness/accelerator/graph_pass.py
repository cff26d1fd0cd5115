"""The graph pass: MXNet's JSON in, JSON with segments out. The partitioner is the one of ``harness.compile``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ..dims import Dim
from ..engines.base import choose_engine, get_engine
from ..engines.mxnet import graph_json
from ..errors import ModelError
from ..frontend.arity import output_name
from ..frontend.compat import mxnet
from ..frontend.symbol import parse_symbol
from ..graph import MXNET_DTYPES, Entry, Graph, Node, TensorType
from ..lowering import Lowered, LoweredGraph, lower, outputs_wanted
from ..operators.context import Value
from ..operators.schema import schemas
from ..partition import Part, partition
from .options import Options

Array = npt.NDArray[Any]

_log = logging.getLogger("mxtrt")

OPERATOR = "_mxtrt_segment"
_SHAPE, _DTYPE = "__ext_shape__", "__ext_dtype__"

# Inputs that hold parameters, by their names in MXNet's operator registry; everything else is data.
PARAMETER_INPUTS = frozenset({
    "weight", "bias", "gamma", "beta", "moving_mean", "moving_var", "running_mean", "running_var", "parameters",
    "i2h_weight", "h2h_weight",
})  # fmt: skip


def rewrite(text: str, options: Options, device: str, arrays: Mapping[str, Array]) -> str:
    """The graph with each part that lowers as one node.

    Args:
        text: MXNet's JSON, with the types of all outputs as attributes.
        options: the backend's.
        device: "cpu" or "gpu".
        arrays: known arguments and auxiliary states by name, as views.

    Raises:
        ModelError: the shapes of the variables are not known; or the graph is partitioned already, with other options.
    """
    graph = parse_symbol(text, "the symbol")
    known = {node.name: _types(node) for node in graph.nodes}
    graph = _stripped(graph)
    parameters = parameter_names(graph)
    values = {
        node.name: Value(node.name, kinds[0], arrays.get(node.name) if node.name in parameters else None)
        for node in graph.nodes
        if node.is_variable and (kinds := known[node.name])
    }
    engine = get_engine(engine_for(options.engine, device))
    dims: dict[str, Dim] = {}
    lowered = lower(graph, values, lambda node, inputs: known.get(node.name), engine.refuse, dims)
    for item in lowered.nodes.values():
        if item.fragment is not None and known[item.node.name] is None:  # MXNet must know what a segment gives out
            item.fragment, item.reason = None, "MXNet knows the shapes of its outputs only when it runs"
    graph = _without_identities(graph, lowered)
    parts = _parts(graph, lowered, options)
    earlier = [node for node in graph.nodes if node.operator == OPERATOR]
    if earlier:
        _check_earlier(earlier, options, bool(parts))
    elif not parts:
        _warn(lowered, options)
    return json.dumps(_with_segments(graph, parts, parameters, options), ensure_ascii=False)  # MXNet reads no \u


def _warn(lowered: LoweredGraph, options: Options) -> None:
    """Say why the graph stays as it is."""
    reasons = [f"{n.node.name} ({n.node.operator}): {n.reason}" for n in lowered.nodes.values() if n.reason is not None]
    more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    cause = (
        "; ".join(reasons[:5]) + more if reasons else f"no part has min_segment_size={options.min_segment_size} nodes"
    )
    _log.warning("optimize_for: nothing was partitioned, MXNet runs the whole network: %s", cause)


def _check_earlier(segments: Sequence[Node], options: Options, is_more: bool) -> None:
    """A graph that holds segments: fine if they have these options; else say that they stay as they are."""
    other = [node for node in segments if node.attributes.get("mxtrt_options") != _chosen(options)]
    if not other:
        return
    found = f"{other[0].name!r} is a segment already, with the options {other[0].attributes.get('mxtrt_options')}"
    if not is_more:
        raise ModelError(
            f"optimize_for: the graph is partitioned: {found}; partition the original network (in Gluon give clear=True)"
        )
    _log.warning("optimize_for: %s, and stays as it is; the rest is partitioned with %s", found, _chosen(options))


def _without_identities(graph: Graph, lowered: LoweredGraph) -> Graph:
    """The graph in which nobody but an output reads a node that passes its input on (Dropout, BlockGrad)."""
    same: dict[Entry, Entry] = {}
    nodes = list(graph.nodes)
    for index, node in lowered.nodes.items():
        inputs = tuple(same.get(entry, entry) for entry in node.node.inputs)
        nodes[index] = replace(node.node, inputs=inputs)
        if node.fragment is not None and not node.fragment.nodes:
            for output, value in enumerate(node.outputs):
                source = next((e for e, v in zip(inputs, node.inputs) if v.name == value.name), None)
                if source is not None:
                    same[Entry(index, output)] = source
    return replace(graph, nodes=tuple(nodes))


def _is_generated(node: Lowered) -> bool:
    """Whether a node makes its output from nothing (zeros, arange): every part that reads it has its own."""
    return node.fragment is not None and not node.node.inputs


def _parts(graph: Graph, lowered: LoweredGraph, options: Options) -> list[Part]:
    """Convex parts over the real edges: what the engine takes for a constant may depend on MXNet's nodes here."""
    colours, sources = {}, {}
    for index in graph.reachable():
        node = lowered.nodes[index]
        if node.node.is_variable or _is_generated(node):
            continue
        is_identity = node.fragment is not None and not node.fragment.nodes
        colours[index] = "mxnet" if node.fragment is None or node.on_host or is_identity else "engine"
        sources[index] = [entry.node for entry in graph.nodes[index].inputs]
    parts = [
        p for p in partition(colours, sources) if p.engine == "engine" and len(p.nodes) >= options.min_segment_size
    ]
    generated = {index for index, node in lowered.nodes.items() if _is_generated(node)}
    return [_with_generated(graph, part, generated) for part in parts]


def _with_generated(graph: Graph, part: Part, generated: set[int]) -> Part:
    own = {entry.node for index in part.nodes for entry in graph.nodes[index].inputs if entry.node in generated}
    return replace(part, nodes=tuple(sorted(own | set(part.nodes))))


def engine_for(engine: str, device: str) -> str:
    """ "auto" resolved for the device that the arrays are on."""
    if engine != "auto":
        return engine
    return choose_engine("auto") if device == "gpu" else "onnxruntime"


def parameter_names(graph: Graph) -> set[str]:
    """Variables that are only read where operators take parameters."""
    roles: dict[int, set[bool]] = {}
    for node in graph.nodes:
        schema = schemas().get(node.operator)
        names = schema.inputs if schema else ()
        for position, entry in enumerate(node.inputs):
            role = names[position] if position < len(names) else ""
            roles.setdefault(entry.node, set()).add(role in PARAMETER_INPUTS)
    return {
        graph.nodes[index].name for index, seen in roles.items() if graph.nodes[index].is_variable and seen == {True}
    }


def _types(node: Node) -> tuple[TensorType, ...] | None:
    """The types of all outputs, from MXNet's own inference; None if it cannot tell (a shape that depends on data)."""
    shapes, dtypes = node.attributes.get(_SHAPE), node.attributes.get(_DTYPE)
    unknown = shapes is None or dtypes is None or "None" in shapes or "-1" in shapes
    if unknown and node.is_variable:
        raise ModelError(
            f"optimize_for: the shape of {node.name!r} is not known; give all arguments as args= and aux= "
            f"(or call net.optimize_for with an example input)"
        )
    if shapes is None or dtypes is None or unknown:
        return None
    pairs = list(zip(json.loads(shapes), json.loads(dtypes)))
    if any(flag not in MXNET_DTYPES for _, flag in pairs):
        return None
    return tuple(TensorType(MXNET_DTYPES[flag], tuple(shape)) for shape, flag in pairs)


def _stripped(graph: Graph) -> Graph:
    """Without the pass's own attributes: left on a user's Custom node they crash MXNet's loader."""
    nodes = tuple(
        replace(node, attributes={k: v for k, v in node.attributes.items() if not k.startswith("__ext_")})
        for node in graph.nodes
    )
    np_shape = graph.np_shape or bool(mxnet().util.is_np_shape())
    return replace(graph, nodes=nodes, np_shape=np_shape)


def _with_segments(graph: Graph, parts: Sequence[Part], parameters: set[str], options: Options) -> dict[str, Any]:
    """The whole graph's JSON, each part replaced by one node."""
    writer = _Writer(graph)
    home = {index: part for part in parts for index in part.nodes if graph.nodes[index].inputs}
    earlier = sum(node.operator == OPERATOR for node in graph.nodes)
    numbers = {id(part): number for number, part in enumerate(parts, earlier)}
    done: set[int] = set()
    stack = [entry.node for entry in reversed(graph.heads)]
    while stack:  # a node is written after everything it reads; a member of a part writes the whole part
        index = stack[-1]
        part = home.get(index)
        group = part.nodes if part else (index,)
        missing = () if index in done else _missing(graph, group, done)
        if missing:
            stack.extend(reversed(missing))
            continue
        stack.pop()
        if index in done:
            continue
        if part:
            writer.segment(numbers[id(part)], group, parameters, options)
        else:
            writer.node(index)
        done.update(i for i in group if i == index or i in home)
    return writer.document([writer.place(entry) for entry in graph.heads])


def _missing(graph: Graph, group: Sequence[int], done: set[int]) -> list[int]:
    """What a group reads from outside, and is not written yet."""
    inside = set(group)
    sources = (entry.node for index in group for entry in graph.nodes[index].inputs)
    return [source for source in sources if source not in inside and source not in done]


class _Writer:
    """Collects the JSON's nodes and remembers where each entry went."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.items: list[dict[str, Any]] = []
        self.places: dict[Entry, list[int]] = {}
        self.simple: dict[int, int] = {}
        self.read_by: dict[Entry, set[int]] = {}
        self.wanted = outputs_wanted(graph, graph.reachable())
        for index in graph.reachable():
            for entry in graph.nodes[index].inputs:
                self.read_by.setdefault(entry, set()).add(index)

    def place(self, entry: Entry) -> list[int]:
        if entry in self.places:
            return self.places[entry]
        return [self.simple[entry.node], entry.output, 0]

    def node(self, index: int) -> None:
        node = self.graph.nodes[index]
        item: dict[str, Any] = {"op": node.operator, "name": node.name, "inputs": [self.place(e) for e in node.inputs]}
        if node.attributes:
            item["attrs"] = dict(node.attributes)
        if node.subgraphs:
            item["subgraphs"] = [graph_json(sub) for sub in node.subgraphs]
        self.simple[index] = len(self.items)
        self.items.append(item)

    def segment(self, number: int, group: Sequence[int], parameters: set[str], options: Options) -> None:
        inside = set(group)
        heads = [
            Entry(index, output)
            for index in group
            for output in range(self.wanted.get(index, 0))
            if self._is_read_outside(Entry(index, output), inside)
        ]
        sub, sources = _subgraph(self.graph, group, heads, self.wanted)
        document = graph_json(sub)
        symbol = mxnet().sym.load_json(json.dumps(document, ensure_ascii=False))
        order = symbol.list_inputs()
        inputs = [self.place(sources[name]) for name in order]
        states = set(symbol.list_auxiliary_states())
        roles = [_role(self.graph.nodes[sources[name].node], name in states, parameters) for name in order]
        chosen = _chosen(options)
        attributes = {
            "mxtrt_id": _digest(document, roles, chosen),
            "mxtrt_inputs": json.dumps(order),
            "mxtrt_roles": json.dumps(roles),
            "mxtrt_options": chosen,
        }
        here = len(self.items)
        self.items.append(
            {
                "op": OPERATOR,
                "name": self._name(number, heads),
                "attrs": attributes,
                "inputs": inputs,
                "subgraphs": [document],
            }
        )
        for position, head in enumerate(heads):
            self.places[head] = [here, position, 0]

    def _name(self, number: int, heads: Sequence[Entry]) -> str:
        """That of the node which gives the only output, if it has one: programs ask for outputs by ``node_output``."""
        if len(heads) == 1:
            node = self.graph.nodes[heads[0].node]
            if output_name(node, heads[0].output) == f"{node.name}_output":
                return node.name
        return f"mxtrt_segment{number}"

    def _is_read_outside(self, entry: Entry, inside: set[int]) -> bool:
        return entry in self.graph.heads or bool(self.read_by.get(entry, set()) - inside)

    def document(self, heads: list[list[int]]) -> dict[str, Any]:
        attrs: dict[str, Any] = {"mxnet_version": ["int", 10901]}
        if self.graph.np_shape:
            attrs["is_np_shape"] = ["int", 1]
        return {
            "nodes": self.items,
            "arg_nodes": [index for index, item in enumerate(self.items) if item["op"] == "null"],
            "node_row_ptr": list(range(len(self.items) + 1)),
            "heads": heads,
            "attrs": attrs,
        }


def _chosen(options: Options) -> str:
    """The options that a segment keeps, as text."""
    return json.dumps({
        "precision": options.precision, "calibration_iters": options.calibration_iters,
        "engine": options.engine, "cache_dir": options.cache_dir, "engine_options": dict(options.engine_options),
    })  # fmt: skip


def _role(source: Node, is_state: bool, parameters: set[str]) -> int:
    """What an input is to shim.c: data, a weight, or a state, which MXNet counts as written by each call."""
    if not source.is_variable or source.name not in parameters:
        return 0
    return 2 if is_state else 1


def _digest(document: Mapping[str, Any], roles: Sequence[int], options: str) -> str:
    """What a segment computes, whatever its nodes are called: the same network made again shares its engines."""
    nodes = [{key: value for key, value in node.items() if key != "name"} for node in document["nodes"]]
    text = json.dumps([{**document, "nodes": nodes}, list(roles), options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _subgraph(
    graph: Graph, group: Sequence[int], heads: Sequence[Entry], wanted: Mapping[int, int]
) -> tuple[Graph, dict[str, Entry]]:
    """The part as a graph of its own, and what each of its variables stands for outside."""
    nodes: list[Node] = []
    moved: dict[Entry, Entry] = {}
    sources: dict[str, Entry] = {}
    inside = set(group)
    for index in group:
        for entry in graph.nodes[index].inputs:
            if entry.node not in inside and entry not in moved:
                source = graph.nodes[entry.node]
                name = source.name if source.is_variable else f"{source.name}_{entry.output}"
                while name in sources:  # two variables may have one name
                    name += "_"
                moved[entry] = Entry(len(nodes))
                sources[name] = entry
                nodes.append(Node(name, "null"))
        inputs = tuple(moved.get(entry, entry) for entry in graph.nodes[index].inputs)
        for output in range(wanted.get(index, 0)):
            moved[Entry(index, output)] = Entry(len(nodes), output)
        nodes.append(replace(graph.nodes[index], inputs=inputs))
    return Graph(tuple(nodes), tuple(moved[head] for head in heads), (), graph.np_shape), sources
