"""What ONNX Runtime made of a model: its optimized graph, traced back to the nodes that each of its nodes stands for.

A fused node keeps the name of one of its parts, and mostly the name of its last part's result. Blocked layouts rename
results too; then the inputs and the ``activation`` attribute of the fused node tell how far it reaches.
"""

from __future__ import annotations

import bisect
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ..errors import ExecutionError
from .layers import Layer, LayerTime, owners_of

_BLOCKED = "com.microsoft.nchwc"  # nodes that work on blocked layouts, of float32 alone
Open = Callable[[Callable[[Any], None]], Any]  # a session of the model, after a change of its SessionOptions


def measure_layers(model: ir.Model, opened: Open, inputs: Mapping[str, Any], runs: int) -> list[LayerTime]:
    """Milliseconds of each node of the optimized graph, the median of some runs, by ONNX Runtime's own profiler.

    Raises:
        ExecutionError: ONNX Runtime fails.
    """
    layers = {layer.name: layer for layer in describe_layers(model, opened)}
    with tempfile.TemporaryDirectory(prefix="mxtrt-") as folder:

        def profiled(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")

        session = opened(profiled)
        try:
            for _ in range(runs + 1):  # the first run allocates
                session.run(None, dict(inputs))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            raise ExecutionError(f"onnxruntime failed while it was measured: {str(error).splitlines()[0]}") from None
        events = json.loads(Path(session.end_profiling()).read_text())
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    times = {name: [0.0] * len(starts) for name in layers}
    for event in events:
        name = str(event.get("name", "")).removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name != event["name"] and name in times:
            times[name][bisect.bisect(starts, event["ts"]) - 1] += event["dur"] / 1e3
    return [LayerTime(name, layers[name].nodes, statistics.median(each[1:])) for name, each in times.items()]


def describe_layers(model: ir.Model, opened: Open) -> list[Layer]:
    """The nodes of the optimized graph, in the order in which they run.

    Args:
        model: what was optimized.
        opened: makes ONNX Runtime's session anew, with changed options.
    """
    with tempfile.TemporaryDirectory(prefix="mxtrt-") as folder:
        path = Path(folder) / "optimized.onnx"

        def saved(options: Any) -> None:
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "data")

        opened(saved)
        graph = onnx.load(path, load_external_data=False).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output, *graph.input)}
    owners, found = owners_of(model), []
    for node, originals in zip(graph.node, _trace(model, graph)):
        kind = onnx.TensorProto.FLOAT if node.domain == _BLOCKED else types.get(node.output[0], 0)
        precision = onnx.TensorProto.DataType.Name(kind).lower() if kind else ""
        nodes = tuple(dict.fromkeys(owner for name in originals for owner in owners[name]))
        found.append(Layer(node.name, nodes, node.op_type, precision))
    return found


# --- tracing ---------------------------------------------------------------------------------------------------------


def _trace(model: ir.Model, graph: onnx.GraphProto) -> list[list[str]]:
    """The names of the model's nodes that each node of the optimized graph stands for."""
    tracer = _Tracer(model)
    return [tracer.visit(node) for node in graph.node]


class _Tracer:
    def __init__(self, model: ir.Model) -> None:
        nodes = list(model.graph)
        self.by_name = {str(node.name): node for node in nodes}
        self.by_result = {str(value.name): node for node in nodes for value in node.outputs}
        self.place = {node: number for number, node in enumerate(nodes)}
        self.done: set[ir.Node] = set()
        self.made: dict[str, ir.Node] = {}  # a renamed result -> the node whose result it is
        self.computed = {str(value.name) for value in model.graph.inputs}

    def visit(self, node: onnx.NodeProto) -> list[str]:
        is_constant = bool(node.input) and not any(name in self.computed for name in node.input)
        if is_constant and node.name not in self.by_name:
            return []  # parameters that ONNX Runtime converts
        self.computed.update(() if is_constant else node.output)
        last = self._last(node)
        taken = self._before(last) if last is not None else set()
        if last is None or not taken:
            return []  # a result that is only moved or converted
        if not any(_known(name, self.by_result) for name in node.output):
            last = self._forwards(node, last, taken)
        self.made.update(dict.fromkeys(node.output, last))
        self.done |= taken
        return [str(item.name) for item in sorted(taken, key=self.place.__getitem__)]

    def _last(self, node: onnx.NodeProto) -> ir.Node | None:
        """The node whose result this one gives, or one that is certainly inside it."""
        for name in node.output:
            result = _known(name, self.by_result)
            if result is not None and self.by_result[result] not in self.done:
                return self.by_result[result]
        for names in (self.by_name, self.by_result):
            found = _known(node.name, names)
            if found is not None:
                return names[found]
        return None

    def _before(self, last: ir.Node) -> set[ir.Node]:
        """A node and those before it that no earlier node of the optimized graph stands for."""
        taken: set[ir.Node] = set()
        stack = [last]
        while stack:
            node = stack.pop()
            if node in self.done or node in taken:
                continue
            taken.add(node)
            stack += [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        return taken

    def _forwards(self, node: onnx.NodeProto, last: ir.Node, taken: set[ir.Node]) -> ir.Node:
        """Reach further: to an addition of something that it reads and nothing so far does, and to its activation."""
        wanted = next((a.s.decode() for a in node.attribute if a.name == "activation"), "")
        reads = {self.made[name] for name in node.input if name in self.made} - taken
        while True:
            used = {v.producer() for item in taken for v in item.inputs if v is not None}
            after = last.outputs[0].consumers()
            if len(after) != 1 or after[0] in self.done:
                return last
            follows = after[0]
            others = {v.producer() for v in follows.inputs if v is not None} - {last}
            adds = follows.op_type in ("Add", "Sum") and bool(others & (reads - used))
            if not adds and follows.op_type != wanted:
                return last
            wanted = "" if follows.op_type == wanted else wanted
            taken.add(follows)
            last = follows


def _known(name: str, names: Mapping[str, Any]) -> str | None:
    """The name that ONNX Runtime put something before or behind; the longest that fits."""
    if name in names:
        return name
    for start in ("InsertedPrecisionFreeCast_", "InsertedCast_", ""):
        text = name.removeprefix(start)
        while text:
            if text in names:
                return text
            text = _shorter(text)
    return None


def _shorter(text: str) -> str:
    """Without its last part: ``x/Conv_nchwc`` becomes ``x/Conv``, never ``x``."""
    for mark in ("_", "/duplicated"):
        head, found, _ = text.rpartition(mark)
        if found and "/" in head:
            return head
    return ""
