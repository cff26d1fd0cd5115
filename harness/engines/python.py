"""Parts with nodes that a user's plugins run: those by their NumPy functions, everything else by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from .. import plugins
from .base import Array, BuildRequest, Session, get_engine


@dataclass(frozen=True, slots=True)
class _Step:
    """Something to run, and the names of what it reads and writes."""

    session: Session | plugins.Call
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class PluginSession:
    """See :class:`~harness.engines.base.Session`. Safe between threads, if the plugins are.

    Args:
        model: typed ONNX.
        name: the part's name, for messages.
        options: ONNX Runtime's.

    Raises:
        EngineMissing: a plugin is not registered here.
        BuildError: ONNX Runtime refuses what lies between the plugins.
    """

    def __init__(self, model: ir.Model, name: str, options: Mapping[str, Any] | None = None) -> None:
        self.input_names = [str(value.name) for value in model.graph.inputs]
        self.output_names = [str(value.name) for value in model.graph.outputs]
        self._constants = {
            str(value.name): value.const_value.numpy()
            for value in (*(v for node in plugins.in_model(model) for v in node.inputs), *model.graph.outputs)
            if value is not None and value.const_value is not None
        }
        self._steps = [_step(model, nodes, name, options or {}) for nodes in _cut(model)]

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        values: dict[str, Any] = {**self._constants, **dict(zip(self.input_names, inputs))}
        for step in self._steps:
            values.update(zip(step.writes, step.session.run([values[name] for name in step.reads])))
        return [values[name] for name in self.output_names]


def _cut(model: ir.Model) -> list[list[ir.Node]]:
    """The nodes in an order in which they run: each plugin's alone, the others as far together as plugins allow.

    A node's level counts the changes between plugins and the others on the longest way to it: plugins have odd ones.
    """
    levels: dict[ir.Node, int] = {}
    groups: dict[int, list[ir.Node]] = {}
    for node in model.graph:
        before = max((levels[source] for source in _sources(node)), default=0)
        levels[node] = before + (before % 2 != plugins.is_plugin(node))
        groups.setdefault(levels[node], []).append(node)
    parts = []
    for level in sorted(groups):
        parts += [[node] for node in groups[level]] if level % 2 else [groups[level]]
    return parts


def _sources(node: ir.Node) -> Iterable[ir.Node]:
    for value in _used(node):
        producer = value.producer()
        if producer is not None and producer.graph is node.graph:
            yield producer


def _used(node: ir.Node) -> Iterable[ir.Value]:
    """What a node reads, in the bodies of loops and branches too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def _step(model: ir.Model, nodes: Sequence[ir.Node], name: str, options: Mapping[str, Any]) -> _Step:
    if plugins.is_plugin(nodes[0]):
        (node,) = nodes
        reads = tuple(str(value.name) for value in node.inputs if value is not None)
        return _Step(plugins.read_node(node), reads, tuple(str(value.name) for value in node.outputs))
    inside = set(nodes)
    results = set(model.graph.outputs)
    inputs = dict.fromkeys(
        value
        for node in nodes
        for value in _used(node)
        if value.graph is model.graph and value.const_value is None and value.producer() not in inside
    )
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value in results or any(user not in inside for user in value.consumers())
    ]
    graph = ir.convenience.extract(model.graph, list(inputs), outputs)
    part = ir.Model(graph, ir_version=model.ir_version)
    session = get_engine("onnxruntime").build(BuildRequest(name, part, options=options))
    return _Step(session, tuple(str(v.name) for v in inputs), tuple(str(v.name) for v in outputs))
