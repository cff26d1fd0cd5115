"""Running segments inside MXNet: engines are built at the first call, when the weights are there, and kept.

MXNet makes a state for each call unless ``static_alloc`` and ``static_shape`` are set, so engines belong to the
node's id (which the graph pass gave it) and the shapes, not to the state. A weight is known to be the same while its
address and its version stay (MXNet counts writes); a new state also compares samples of the weights' bytes, because
another network's array may have come to lie at the same address.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiler import compile_graph
from ..errors import EngineError, ModelError
from ..frontend.symbol import parse_symbol
from ..graph import MXNET_DTYPES
from ..inputs import Input
from ..model import Model
from .graph_pass import engine_for

Array = npt.NDArray[Any]
Signature = tuple[tuple[int, ...], ...]

_SAMPLED = 16  # elements of each weight that a new state compares


def view(pointer: int, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """MXNet's memory as an array, without a copy."""
    size = prod(shape) * dtype.itemsize
    if not size:
        return np.zeros(shape, dtype)
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype).reshape(shape)


@dataclass(slots=True)
class Built:
    """An engine for one set of shapes, and the weights it was built from (kept only while it calibrates)."""

    model: Model
    weights: tuple[int, ...]  # addresses and versions
    fingerprint: bytes
    parameters: Mapping[str, Array] | None = None
    samples: list[Mapping[str, Array]] = field(default_factory=list)


@dataclass(slots=True)
class Node:
    """One segment of a partitioned graph: what the pass wrote, and the engines built from it."""

    text: str
    names: list[str]
    data: list[int]
    weights: list[int]
    options: dict[str, Any]
    device: str
    engines: dict[Signature, Built] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class State:
    """What MXNet holds: a node, the number of its inputs, and whether the weights were compared."""

    node: Node
    unpack: struct.Struct
    checked: set[Signature] = field(default_factory=set)


_nodes: dict[str, Node] = {}
_states: dict[int, State] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: the parent's engines have threads that are not there."""
    global _lock
    _lock = threading.Lock()
    for node in _nodes.values():
        node.engines.clear()
        node.lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)


def create(attributes: Mapping[str, str], device: str, device_id: int, inputs: int) -> int:
    """A new state for a node; its number."""
    identity = attributes.get("mxtrt_id")
    if identity is None:
        raise ModelError("a segment without an id: the model was not written by this version of mxtrt")
    key = f"{identity}-{device}-{device_id}"
    node = _nodes.get(key)
    if node is None:
        with _lock:
            node = _nodes.setdefault(key, _read_node(attributes, device))
    number = next(_numbers)
    _states[number] = State(node, struct.Struct(f"={inputs}Q"))
    return number


def _read_node(attributes: Mapping[str, str], device: str) -> Node:
    names = json.loads(attributes["mxtrt_inputs"])
    weights = json.loads(attributes["mxtrt_weights"])
    data = [i for i in range(len(names)) if i not in set(weights)]
    return Node(attributes["subgraph_sym_json"], names, data, weights, json.loads(attributes["mxtrt_options"]), device)


def destroy(number: int) -> None:
    """MXNet is done with a state."""
    _states.pop(number, None)


def forward(
    number: int, in_shapes: int, in_dims: int, in_data: int, in_types: int, in_versions: int, out_data: int
) -> None:
    """Run a segment on MXNet's memory."""
    state = _states[number]
    node = state.node
    if node.device != "cpu":
        raise EngineError("segments on a GPU context need an MXNet that was built for this GPU's CUDA; use a CPU context")
    size = state.unpack.size
    pointers = state.unpack.unpack(ctypes.string_at(in_data, size))
    versions = state.unpack.unpack(ctypes.string_at(in_versions, size))
    shapes = _shapes(node.data, in_shapes, in_dims)
    built = node.engines.get(shapes)
    weights = _weights_key(node.weights, pointers, versions)
    if built is None or built.weights != weights or shapes not in state.checked:
        built = _current(state, shapes, weights, pointers, in_shapes, in_dims, in_types)
    model = built.model
    arrays = {
        name: view(pointers[i], spec.dtype, shape)
        for (name, spec), i, shape in zip(model.inputs.items(), node.data, shapes)
    }
    results = model(**arrays)
    targets = struct.unpack(f"={len(results)}Q", ctypes.string_at(out_data, 8 * len(results)))
    for pointer, array in zip(targets, results):
        if array.size:
            ctypes.memmove(pointer, np.ascontiguousarray(array).ctypes.data, array.nbytes)
    if built.parameters is not None:
        _learn(node, built, arrays)


def _shapes(positions: Sequence[int], in_shapes: int, in_dims: int) -> Signature:
    """The shapes of the inputs at these positions."""
    found = []
    for i in positions:
        rank = ctypes.c_int.from_address(in_dims + 4 * i).value
        start = ctypes.c_uint64.from_address(in_shapes + 8 * i).value
        found.append(struct.unpack(f"={rank}q", ctypes.string_at(start, 8 * rank)))
    return tuple(found)


def _weights_key(positions: Sequence[int], pointers: Sequence[int], versions: Sequence[int]) -> tuple[int, ...]:
    if not positions:
        return ()
    if len(positions) == 1:
        return (pointers[positions[0]], versions[positions[0]])
    pick = itemgetter(*positions)
    key: tuple[int, ...] = pick(pointers) + pick(versions)
    return key


def _current(
    state: State, shapes: Signature, weights: tuple[int, ...], pointers: Sequence[int],
    in_shapes: int, in_dims: int, in_types: int,
) -> Built:  # fmt: skip
    """The engine for these shapes and weights, built anew if the weights are not those it was built from."""
    node = state.node
    with node.lock:
        arrays = _weight_views(node, pointers, in_shapes, in_dims, in_types)
        fingerprint = _fingerprint(arrays)
        built = node.engines.get(shapes)
        if built is None or built.weights != weights or built.fingerprint != fingerprint:
            inputs = {node.names[i]: Input(shape, _dtype(in_types, i)) for i, shape in zip(node.data, shapes)}
            built = _build(node, inputs, {name: np.array(array) for name, array in arrays.items()}, weights, fingerprint)
            node.engines[shapes] = built
        state.checked.add(shapes)
        return built


def _weight_views(
    node: Node, pointers: Sequence[int], in_shapes: int, in_dims: int, in_types: int
) -> dict[str, Array]:
    shapes = _shapes(node.weights, in_shapes, in_dims)
    return {
        node.names[i]: view(pointers[i], _dtype(in_types, i), shape) for i, shape in zip(node.weights, shapes)
    }


def _dtype(in_types: int, position: int) -> np.dtype[Any]:
    flag = ctypes.c_int.from_address(in_types + 4 * position).value
    return MXNET_DTYPES[flag]


def _fingerprint(arrays: Mapping[str, Array]) -> bytes:
    parts = []
    for array in arrays.values():
        flat = array.reshape(-1)
        parts.append(flat[:: max(1, flat.size // _SAMPLED)][:_SAMPLED].tobytes())
    return b"".join(parts)


def _build(
    node: Node, inputs: Mapping[str, Input], parameters: Mapping[str, Array], weights: tuple[int, ...], fingerprint: bytes
) -> Built:
    """A new engine; one for int8 or fp8 starts in float32 and collects samples."""
    precision = node.options["precision"]
    if precision not in ("int8", "fp8"):
        return Built(_compile(node, inputs, parameters, precision), weights, fingerprint)
    return Built(_compile(node, inputs, parameters, "fp32"), weights, fingerprint, parameters)


def _compile(
    node: Node,
    inputs: Mapping[str, Input],
    parameters: Mapping[str, Array],
    precision: str,
    samples: Sequence[Mapping[str, Array]] | None = None,
) -> Model:
    options = node.options
    return compile_graph(
        parse_symbol(node.text, "a partitioned segment"),
        parameters,
        inputs,
        engine=engine_for(options["engine"], node.device),
        precision=precision,
        fallback="error",
        calibration=samples,
        cache_dir=options["cache_dir"],
        **options["engine_options"],
    )


def _learn(node: Node, built: Built, arrays: Mapping[str, Array]) -> None:
    """Keep a sample; with ``calibration_iters`` of them, build the quantized engine."""
    with node.lock:
        if built.parameters is None:
            return
        built.samples.append({name: np.array(array) for name, array in arrays.items()})
        if len(built.samples) >= node.options["calibration_iters"]:
            model = built.model
            built.model = _compile(node, model.inputs, built.parameters, node.options["precision"], built.samples)
            built.parameters, built.samples = None, []
