"""MXNet itself, for the parts that nothing lowers: it tells their types and runs them. The only engine that needs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..dims import Dim, evaluate
from ..errors import EngineMissing, ExecutionError, ModelError
from ..frontend import compat
from ..graph import MXNET_DTYPES, VARIABLE, Graph, Node, TensorType
from ..operators.context import Missing, Untyped, Value
from .base import Array

_FLAGS = {dtype: flag for flag, dtype in MXNET_DTYPES.items()}


def symbol_of(nodes: Sequence[tuple[Node, Sequence[str]]], heads: Sequence[tuple[str, int]], np_shape: bool) -> Any:
    """An MXNet symbol of some nodes.

    Args:
        nodes: in order, each with the name of what each of its inputs reads: ``node:output`` of an earlier node here,
            or any other text, which becomes a variable.
        heads: (node name, output) of the outputs.
    """
    mx = compat.mxnet()
    items: list[dict[str, Any]] = []
    places: dict[str, int] = {}

    def place(source: str) -> list[int]:
        name, _, output = source.rpartition(":")
        if name in places and output.isdigit():
            return [places[name], int(output), 0]
        if source not in places:
            places[source] = len(items)
            items.append({"op": VARIABLE, "name": source, "inputs": []})
        return [places[source], 0, 0]

    for node, sources in nodes:
        inputs = [place(source) for source in sources]
        places[node.name] = len(items)
        item: dict[str, Any] = {"op": node.operator, "name": node.name, "inputs": inputs}
        if node.attributes:
            item["attrs"] = dict(node.attributes)
        if node.subgraphs:
            item["subgraphs"] = [graph_json(graph) for graph in node.subgraphs]
        items.append(item)
    document = _document(items, [[places[name], output, 0] for name, output in heads], np_shape)
    text = json.dumps(document, ensure_ascii=False)  # MXNet reads no \u
    try:
        return mx.sym.load_json(text)
    except Exception as error:  # noqa: BLE001 - MXNetError, but its own base is RuntimeError in some builds
        raise ModelError(f"MXNet cannot load {', '.join(n.name for n, _ in nodes)}: {first_line(error)}") from None


def graph_json(graph: Graph) -> dict[str, Any]:
    """Our graph as MXNet's JSON."""
    items = []
    for node in graph.nodes:
        item: dict[str, Any] = {"op": node.operator, "name": node.name, "inputs": [[*e, 0] for e in node.inputs]}
        if node.attributes:
            item["attrs"] = dict(node.attributes)
        if node.subgraphs:
            item["subgraphs"] = [graph_json(sub) for sub in node.subgraphs]
        items.append(item)
    return _document(items, [[*entry, 0] for entry in graph.heads], graph.np_shape)


def _document(items: list[dict[str, Any]], heads: list[list[int]], np_shape: bool) -> dict[str, Any]:
    attrs: dict[str, Any] = {"mxnet_version": ["int", 10901]}
    if np_shape:
        attrs["is_np_shape"] = ["int", 1]
    variables = [index for index, item in enumerate(items) if item["op"] == VARIABLE]
    return {
        "nodes": items,
        "arg_nodes": variables,
        "node_row_ptr": list(range(len(items) + 1)),
        "heads": heads,
        "attrs": attrs,
    }


# --- types -----------------------------------------------------------------------------------------------------------


class Inference:
    """Types of the outputs of one node, asked of MXNet."""

    def __init__(self, np_shape: bool, dims: dict[str, Dim]) -> None:
        self.np_shape, self.dims = np_shape, dims

    def __call__(self, node: Node, inputs: Sequence[Value]) -> Sequence[TensorType] | None:
        """None where MXNet is not installed or cannot tell.

        With symbolic sizes MXNet is asked twice, with two sets of sizes; what differs is a new symbol.
        """
        if not compat.available():
            return None
        typed = [value for value in inputs if not isinstance(value, (Missing, Untyped))]
        dims = [size for value in typed for size in value.shape if isinstance(size, Dim)]
        symbols = sorted({symbol for size in dims for symbol in size.symbols})
        first = self._infer(node, inputs, dict.fromkeys(symbols, 64))
        if not symbols or first is None:
            return first
        second = self._infer(node, inputs, dict.fromkeys(symbols, 96))
        if second is None or [t.rank for t in first] != [t.rank for t in second]:
            return None
        known = {evaluate(size, dict.fromkeys(symbols, 64)): size for size in dims}
        found = []
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            pairs = enumerate(zip(a.shape, b.shape, strict=True))
            shape = (x if x == y else self._symbol(node, known.get(evaluate(x, {})), i, axis) for axis, (x, y) in pairs)
            found.append(TensorType(a.dtype, tuple(shape)))
        return found

    def _symbol(self, node: Node, known: Dim | None, output: int, axis: int) -> Dim:
        dim = known or Dim.symbol(f"{node.name}_{output}_{axis}")
        self.dims[str(dim)] = dim
        return dim

    def _infer(self, node: Node, inputs: Sequence[Value], sizes: Mapping[str, int]) -> list[TensorType] | None:
        mx = compat.mxnet()
        names = [f"in{i}" for i in range(len(inputs))]
        known = {n: v for n, v in zip(names, inputs, strict=True) if not isinstance(v, (Missing, Untyped))}
        shapes = {n: tuple(evaluate(d, sizes) for d in v.shape) for n, v in known.items()}
        with mx.util.np_shape(self.np_shape):
            symbol = symbol_of([(node, names)], [(node.name, 0)], self.np_shape)[0].get_internals()
            outputs = [i for i, n in enumerate(symbol.list_outputs()) if n not in names]
            try:
                _, found_shapes, _ = symbol.infer_shape_partial(**shapes)
                _, found_types, _ = symbol.infer_type_partial(**{n: v.dtype for n, v in known.items()})
            except Exception as error:  # noqa: BLE001 - the reason why MXNet itself refuses the node
                raise ModelError(f"MXNet itself refuses it: {first_line(error)}") from None
        if found_shapes is None or any(found_types[i] is None for i in outputs):
            return None
        return [TensorType(np.dtype(found_types[i]), tuple(found_shapes[i])) for i in outputs]


# --- running ---------------------------------------------------------------------------------------------------------


class MXNetSession:
    """Runs some nodes imperatively through a CachedOp-free executor: each call binds nothing new.

    Attributes:
        text: the nodes as MXNet's JSON.
        input_names: the variables that a call gives, in order, those that are constants included.
        constants: variable -> array; what a call gives for them is not read.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[Node, Sequence[str]]],
        heads: Sequence[tuple[str, int]],
        input_names: Sequence[str],
        constants: Mapping[str, Array],
        np_shape: bool,
    ) -> None:
        symbol = symbol_of(nodes, heads, np_shape)
        self._set_up(symbol, input_names, constants, np_shape, ", ".join(node.name for node, _ in nodes[:3]))

    @classmethod
    def from_json(
        cls, text: str, input_names: Sequence[str], constants: Mapping[str, Array], np_shape: bool, name: str
    ) -> MXNetSession:
        """The session again, of its own attributes; ModelError if MXNet cannot load the JSON."""
        session = cls.__new__(cls)
        try:
            symbol = compat.mxnet().sym.load_json(text)
        except Exception as error:  # noqa: BLE001 - MXNetError, but its own base is RuntimeError in some builds
            raise ModelError(f"MXNet cannot load the part of {name}: {first_line(error)}") from None
        session._set_up(symbol, input_names, constants, np_shape, name)
        return session

    def _set_up(
        self, symbol: Any, input_names: Sequence[str], constants: Mapping[str, Array], np_shape: bool, name: str
    ) -> None:
        mx = compat.mxnet()
        self.text, self.input_names, self.constants = str(symbol.tojson()), tuple(input_names), dict(constants)
        self.np_shape, self.name = np_shape, name
        self._operator = as_function(symbol)
        self._constants = {key: _to_mxnet(mx, array) for key, array in constants.items()}
        self._symbol, self._order = symbol, symbol.list_inputs()
        self._places = {n: place for place, n in enumerate(self.input_names) if n not in constants}

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        mx = compat.mxnet()
        try:
            with mx.util.np_shape(self.np_shape):
                given = {n: _to_mxnet(mx, np.asarray(inputs[place])) for n, place in self._places.items()}
                known = {**given, **self._constants}
                known |= self._unvalued(mx, known)
                arguments = [known[name] for name in self._order]
                found = self._operator(*arguments)
                return [array.asnumpy() for array in (found if isinstance(found, (list, tuple)) else [found])]
        except EngineMissing:
            raise
        except Exception as error:  # noqa: BLE001 - MXNetError, and whatever a custom operator raises
            raise ExecutionError(f"MXNet failed in the segment of {self.name}: {first_line(error)}") from None

    def _unvalued(self, mx: Any, known: Mapping[str, Any]) -> dict[str, Any]:
        """Zeros for labels of loss layers, which have no value and which no answer depends on."""
        return {name: mx.nd.zeros(self._shape_of(name, known)) for name in self._order if name not in known}

    def _shape_of(self, name: str, known: Mapping[str, Any]) -> tuple[int, ...]:
        """A variable's shape, asked of the first node that reads it: not every operator bears open shapes."""
        for output in self._symbol.get_internals():
            if name in (inputs := output.list_inputs()) and len(inputs) > 1:
                shapes, _, _ = output.infer_shape_partial(**{n: known[n].shape for n in inputs if n in known})
                found = dict(zip(output.list_arguments(), shapes or ()))
                if found.get(name):
                    return tuple(found[name])
        raise ModelError(f"the shape of {name!r} does not follow from the others: add it to inputs=")


def as_function(symbol: Any) -> Callable[..., Any]:
    """The symbol as a function of its inputs, in the order of ``list_inputs``."""
    mx = compat.mxnet()
    try:
        operator: Callable[..., Any] = mx.ndarray.CachedOp(symbol)
        return operator
    except mx.MXNetError:  # it wants the gradient of every node, and not every operator has one
        pass
    arguments, states = set(symbol.list_arguments()), set(symbol.list_auxiliary_states())

    def run(*arrays: Any) -> Any:
        known = dict(zip(symbol.list_inputs(), arrays))
        given = {name: array for name, array in known.items() if name in arguments}
        aux = {name: array for name, array in known.items() if name in states}
        return symbol.bind(mx.cpu(), given, aux_states=aux, grad_req="null").forward(is_train=False)

    return run


def _to_mxnet(mx: Any, array: Array) -> Any:
    return mx.nd.array(array, dtype=array.dtype)


def first_line(error: BaseException) -> str:
    """MXNet's message without its stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    return (lines[-1] if lines and "Error" in lines[-1] else lines[0] if lines else type(error).__name__).strip()
