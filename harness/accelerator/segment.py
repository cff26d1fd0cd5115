"""Running segments inside MXNet: engines are built at the first call, when the weights are there, and kept.

MXNet makes a state for each call unless ``static_alloc`` and ``static_shape`` are set, so engines belong to what the
node computes (a digest that the graph pass wrote), the shapes, and the bytes of the weights; not to the state. Whether
the weights are those of an earlier call is seen by where they lie, MXNet's counts of writes, and samples of the bytes,
hashed in C (shim.c), because 100 weights would take longer in Python than the call. Only when these are new are all bytes
read: the engine may be there already, for weights that were moved or written without a change.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiler import compile_graph
from ..errors import ModelError
from ..frontend.compat import mxnet
from ..frontend.symbol import parse_symbol
from ..graph import MXNET_DTYPES
from ..inputs import Input
from ..model import Model
from . import binding, library
from .binding import Block
from .graph_pass import engine_for

Array = npt.NDArray[Any]
Weights = tuple[int, int]  # hashes: where they are, and what is in them
Signature = tuple[tuple[Any, ...], ...]  # type and shape of each data input

_KEPT = 8  # engines kept for one computation: for other shapes, or for networks of the same form with other weights
_PLACES = 64  # places of weights remembered for one computation
_BOUND = 8  # bindings kept for one engine
_SAMPLE = 4096  # bytes of each weight on a GPU that are read to see whether it is the same
_DATA, _WEIGHT, _STATE = 0, 1, 2  # as in shim.c
_ATTRIBUTES = ("mxtrt_id", "mxtrt_inputs", "mxtrt_roles", "mxtrt_options", "subgraph_sym_json")
_NO_WEIGHTS: Weights = (0, 0)  # no place has this hash


@dataclass(frozen=True, slots=True)
class Memory:
    """What MXNet hands over with a call: C arrays of shapes, ranks, pointers, types and versions, and its stream."""

    shapes: int
    ranks: int
    pointers: int
    types: int
    versions: int
    stream: int

    def block(self, position: int) -> Block:
        """An input's memory."""
        rank = ctypes.c_int.from_address(self.ranks + 4 * position).value
        start = ctypes.c_uint64.from_address(self.shapes + 8 * position).value
        flag = ctypes.c_int.from_address(self.types + 4 * position).value
        address = ctypes.c_uint64.from_address(self.pointers + 8 * position).value
        return Block(address, MXNET_DTYPES[flag], struct.unpack(f"={rank}q", ctypes.string_at(start, 8 * rank)))

    def version(self, position: int) -> int:
        """How often MXNet has written an input."""
        return ctypes.c_size_t.from_address(self.versions + ctypes.sizeof(ctypes.c_size_t) * position).value


@dataclass(slots=True)
class Built:
    """An engine for one set of shapes, and the weights it was built from (kept only while it calibrates)."""

    model: Model
    parameters: Mapping[str, Array] | None = None
    samples: list[Mapping[str, Array]] = field(default_factory=list)
    bound: dict[bytes, Callable[[], None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """What lay at one place of weights at the last call.

    Attributes:
        content: as shim.c hashes it; on a GPU, of the versions alone.
        seen: on a GPU, of the states' versions and of samples of all bytes.
        weights: a hash of all bytes of all weights and states.
    """

    content: int
    seen: tuple[tuple[int, ...], int]
    weights: int


@dataclass(slots=True)
class Node:
    """One segment of a partitioned graph: what the pass wrote, and the engines built from it."""

    text: str
    names: list[str]
    roles: bytes
    options: dict[str, Any]
    device: str
    device_id: int
    engines: dict[tuple[Signature, int], Built] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def positions(self, *roles: int) -> list[int]:
        """The inputs with one of these roles."""
        return [position for position, role in enumerate(self.roles) if role in roles]


@dataclass(slots=True)
class State:
    """What MXNet holds: a node, and what it ran last, which with static memory is what it will run next."""

    node: Node
    call: bytes = b""
    weights: Weights = _NO_WEIGHTS
    run: Callable[[], None] | None = None


_nodes: dict[str, Node] = {}
_states: dict[int, State] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def _forget() -> None:
    """In a forked child: the parent's engines have threads that are not there, and to free such an engine waits for them."""
    global _lock, _nodes, _states
    old_nodes, old_states = _nodes, _states
    for old in (old_nodes, old_states):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(old))  # not even at the end of the interpreter
    _lock = threading.Lock()
    _nodes = {key: Node(n.text, n.names, n.roles, n.options, n.device, n.device_id) for key, n in old_nodes.items()}
    keys = {id(node): key for key, node in old_nodes.items()}
    _states = {number: State(_nodes[keys[id(state.node)]]) for number, state in old_states.items()}


os.register_at_fork(after_in_child=_forget)


def clear() -> None:
    """Free all engines that no call is using; what still runs builds its own again."""
    with _lock:
        used = {id(state.node) for state in list(_states.values())}
        for state in list(_states.values()):
            state.run, state.call = None, b""
        for key, node in list(_nodes.items()):
            with node.lock:
                node.engines.clear()
                node.places.clear()
            if id(node) not in used:
                del _nodes[key]


def create(attributes: Mapping[str, str], device: str, device_id: int, inputs: int) -> tuple[int, bytes]:
    """A new state for a node: its number, and the role of each input."""
    missing = [name for name in _ATTRIBUTES if name not in attributes]
    if missing:
        raise ModelError(
            f"a segment without {', '.join(missing)}: the model was not written by this version of mxtrt; "
            f"partition the original network again"
        )
    if mxnet().autograd.is_training():
        raise ModelError(
            "a model partitioned for TensorRT only infers: call it without autograd.record() or train_mode()"
        )
    key = f"{attributes['mxtrt_id']}-{device}-{device_id}"
    node = _nodes.get(key)
    if node is None:
        with _lock:
            node = _nodes.setdefault(key, _read_node(attributes, device, device_id))
    if len(node.roles) != inputs:
        raise ModelError(f"a segment has {inputs} inputs, and was written with {len(node.roles)}; partition it again")
    number = next(_numbers)
    _states[number] = State(node)
    return number, node.roles


def _read_node(attributes: Mapping[str, str], device: str, device_id: int) -> Node:
    names = json.loads(attributes["mxtrt_inputs"])
    roles = bytes(json.loads(attributes["mxtrt_roles"]))
    options = json.loads(attributes["mxtrt_options"])
    return Node(attributes["subgraph_sym_json"], names, roles, options, device, device_id)


def destroy(number: int) -> None:
    """MXNet is done with a state."""
    _states.pop(number, None)


def forward(number: int, call: bytes, weights: Weights, memory: Memory) -> None:
    """Run a segment on MXNet's memory.

    Args:
        number: the state's.
        call: address, type, rank and sizes of each data input and each output, as int64.
        weights: see ``Weights``.
        memory: all inputs.
    """
    state = _states[number]
    run = state.run
    if run is not None and state.call == call and state.weights == weights:
        run()
        return
    node = state.node
    first = state.weights == _NO_WEIGHTS
    state.run, state.weights = None, weights  # what ran last may have had other weights, should this call fail
    blocks = _read_call(call)
    signature = tuple((block.dtype, block.shape) for block in blocks[: len(node.positions(_DATA))])
    built = _current(node, signature, weights, memory, first)
    if built.parameters is not None:
        _learn(node, built, _run_plain(built.model, blocks))
        return
    run = built.bound.pop(call, None)  # taken out while it runs: two threads must not share one
    if run is None:
        run = _bind(node, built.model, blocks, memory.stream)
    run()
    if node.device == "cpu":
        if len(built.bound) >= _BOUND:
            built.bound.clear()
        built.bound[call] = run
        state.run, state.call = run, call


def _read_call(call: bytes) -> list[Block]:
    """The memory of each data input and each output."""
    words = struct.unpack(f"={len(call) // 8}q", call)
    found, at = [], 0
    while at < len(words):
        address, flag, rank = words[at : at + 3]
        found.append(Block(address, MXNET_DTYPES[flag], words[at + 3 : at + 3 + rank]))
        at += 3 + rank
    return found


def _bind(node: Node, model: Model, blocks: Sequence[Block], stream: int) -> Callable[[], None]:
    """A call that reads and writes exactly this memory."""
    count = len(model.inputs)
    if node.device == "gpu":
        return binding.on_gpu(model, blocks[:count], blocks[count:], stream)
    direct = binding.on_cpu(model, blocks[:count], blocks[count:])
    if direct is not None:
        return direct

    def call() -> None:
        _run_plain(model, blocks)

    return call


def _run_plain(model: Model, blocks: Sequence[Block]) -> dict[str, Array]:
    """Run by NumPy arrays and copy the answers to MXNet's memory; the inputs."""
    inputs = {name: block.view() for name, block in zip(model.inputs, blocks)}
    for result, block in zip(model(**inputs), blocks[len(inputs) :]):
        binding.check_result(result, block)
        if result.size:
            np.copyto(block.view(), result)
    return inputs


def _current(node: Node, signature: Signature, weights: Weights, memory: Memory, first: bool) -> Built:
    """The engine for these shapes and weights; ``first`` is whether this is the state's first call."""
    with node.lock:
        key = (signature, _identified(node, weights, memory, first))
        built = node.engines.pop(key, None)
        if built is None:
            built = _build(node, signature, memory)
            while len(node.engines) >= _KEPT:
                node.engines.pop(next(iter(node.engines)))  # the one used longest ago
        node.engines[key] = built
        return built


def _identified(node: Node, weights: Weights, memory: Memory, first: bool) -> int:
    """A hash of all bytes of all weights, which are read only if their place is new or something there has changed."""
    place, content = weights
    known = node.places.pop(place, None)
    seen = _seen_on_gpu(node, known, memory, first) if node.device == "gpu" else ((), 0)
    same = known is not None and known.content == content and known.seen[1] == seen[1]
    if known is not None and same:
        found = Place(content, seen, known.weights)
    else:
        found = Place(content, seen, _hash_of(_weight(node, memory, i) for i in node.positions(_WEIGHT, _STATE)))
        if known is not None and known.weights not in (found.weights, *(p.weights for p in node.places.values())):
            for key in [key for key in node.engines if key[1] == known.weights]:
                del node.engines[key]  # nobody has these weights any more
        while len(node.places) >= _PLACES:
            node.places.pop(next(iter(node.places)))
    node.places[place] = found
    return found.weights


def _seen_on_gpu(node: Node, known: Place | None, memory: Memory, first: bool) -> tuple[tuple[int, ...], int]:
    """The versions of the states, and a hash of samples of all bytes: what shim.c does for memory of the host.

    Bytes are read, which waits for the stream, at the first call of a state, and where a state's version says that
    somebody other than this network wrote it.
    """
    versions = tuple(memory.version(i) for i in node.positions(_STATE))
    if known is not None and not first and versions == tuple(version + 1 for version in known.seen[0]):
        return versions, known.seen[1]
    blocks = [memory.block(i) for i in node.positions(_WEIGHT, _STATE)]
    return versions, _hash_of(binding.read_gpu(block.start(_SAMPLE), memory.stream, node.device_id) for block in blocks)


def _hash_of(arrays: Iterable[Array]) -> int:
    hash_bytes = library.load().mxtrt_hash
    found = 1
    for array in arrays:
        found = hash_bytes(ctypes.c_uint64(found), ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes))
    return found


def _build(node: Node, signature: Signature, memory: Memory) -> Built:
    """A new engine; one for int8 or fp8 starts in float32 and collects samples."""
    data = node.positions(_DATA)
    inputs = {node.names[i]: Input(shape, dtype) for i, (dtype, shape) in zip(data, signature)}
    parameters = {node.names[i]: np.array(_weight(node, memory, i)) for i in node.positions(_WEIGHT, _STATE)}
    precision = node.options["precision"]
    if precision not in ("int8", "fp8"):
        return Built(_compile(node, inputs, parameters, precision))
    return Built(_compile(node, inputs, parameters, "fp32"), parameters)


def _weight(node: Node, memory: Memory, position: int) -> Array:
    """A weight; a copy if it lies on a GPU."""
    block = memory.block(position)
    return binding.read_gpu(block, memory.stream, node.device_id) if node.device == "gpu" else block.view()


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
