"""From a graph to parts that can be built: nodes lowered, the graph cut, each part typed ONNX; nothing is built yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from .collection import without_collection
from .dims import Dim
from .engines.base import Engine, Range
from .errors import Blocked, InputError, OptionError, UnsupportedOperator
from .frontend import compat
from .graph import Graph, TensorType
from .inputs import Input
from .lowering import Infer, LoweredGraph, assemble, lower, names_used
from .operators.context import Fragment, Missing, Untyped, Value
from .partition import Part, partition
from .plan import HOST, MXNET, Segment
from .plugins import asks_mxnet

Array = npt.NDArray[Any]
FALLBACKS = ("mxnet", "error")


@dataclass(frozen=True, slots=True)
class Piece:
    """One part before it is built.

    Attributes:
        nodes: positions in the graph.
        reads, writes: the values that it takes from outside, and those that somebody outside reads.
        model: typed ONNX in the graph's own types; None if MXNet runs the part.
    """

    segment: Segment
    nodes: tuple[int, ...]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    model: ir.Model | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A graph in pieces, in an order in which they can run.

    Attributes:
        computed: the names of all values that a node computes.
    """

    inputs: dict[str, Input]
    lowered: LoweredGraph
    pieces: tuple[Piece, ...]
    computed: frozenset[str]

    @property
    def outputs(self) -> dict[str, Input]:
        """Name -> what is known of it, of the graph's outputs."""
        names = unique(self.lowered.graph.output_names)
        return {name: _describe(value, self.inputs) for name, value in zip(names, self.lowered.outputs)}

    @property
    def fallbacks(self) -> tuple[Blocked, ...]:
        return _blocked(self.lowered)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the caller should know of plugins that the engine does not run."""
        return tuple(
            f"{n.node.name} ({n.node.operator}) is run by its plugin's NumPy function: {n.on_host}"
            for n in self.lowered.nodes.values()
            if n.on_host
        )


def draft(
    graph: Graph,
    params: Mapping[str, Array],
    inputs: dict[str, Input],
    library: Engine,
    fallback: str,
    min_segment_size: int,
) -> Draft:
    """Lower, cut, and assemble each part.

    Args:
        graph, params: the model.
        inputs: its inputs.
        library: the engine that says what it cannot run.
        fallback: "mxnet" leaves the rest to MXNet; "error" raises.
        min_segment_size: parts with fewer nodes are left to MXNet.

    Raises:
        UnsupportedOperator: nodes have no lowering, and MXNet may not run them.
        ModelError, InputError, OptionError: the model and the arguments do not fit each other.
    """
    lowered = lower_model(graph, params, inputs, library, fallback)
    parts = _cut(lowered, library.name, fallback, min_segment_size)
    producers = _producers(lowered)
    reads = [_reads(lowered, part, producers) for part in parts]
    read = {value.name for found in reads for value in found} | {value.name for value in lowered.outputs}
    pieces = []
    for number, (part, taken) in enumerate(zip(parts, reads)):
        writes = [value for index in part.nodes for value in _results(lowered, index) if value.name in read]
        nodes = [lowered.nodes[index].node for index in part.nodes]
        segment = Segment(part.engine, tuple(n.operator for n in nodes), tuple(n.name for n in nodes))
        model = None if part.engine == MXNET else _assemble(lowered, part, taken, writes, f"segment{number}")
        pieces.append(Piece(segment, part.nodes, tuple(taken), tuple(writes), model))
    return Draft(inputs, lowered, tuple(pieces), frozenset(producers))


# --- lowering --------------------------------------------------------------------------------------------------------


@without_collection
def lower_model(
    graph: Graph, params: Mapping[str, Array], inputs: Mapping[str, Input], library: Engine | None, fallback: str
) -> LoweredGraph:
    """Every node that the outputs need, lowered or with the reason why not.

    Args:
        library: the engine that says what it cannot run; None if all of ONNX is welcome.
        fallback: "error" raises if a node is not lowered; "mxnet" does where MXNet is not installed.

    Raises:
        UnsupportedOperator: nodes have no lowering, and MXNet may not run them.
        ModelError, InputError: the graph, its parameters and its inputs do not fit each other.
    """
    variables = {node.name for node in graph.variables}
    for name in inputs:
        if name not in variables:
            known = [n for n in sorted(variables) if n not in params]
            raise InputError(f"inputs: {name!r} is not a variable of the model; without a value are {', '.join(known)}")
    dims: dict[str, Dim] = {}
    values = {name: Value(name, TensorType(a.dtype, a.shape), a) for name, a in params.items() if name in variables}
    for name, value in input_values(inputs).items():
        values[name] = value
        dims.update({str(size): size for size in value.shape if isinstance(size, Dim)})
    infer: Infer = _no_inference
    if (fallback == "mxnet" or asks_mxnet(graph)) and compat.available():
        from .engines.mxnet import Inference

        infer = Inference(graph.np_shape, dims)
    lowered = lower(graph, values, infer, library.refuse if library else _no_refusal, dims)
    _check_blocked(_blocked(lowered), fallback, library)
    for output in lowered.outputs:
        if isinstance(output, Missing):
            _ = output.type  # an output that is a variable without a value: raises, and names it
    return lowered


def _check_blocked(blocked: Sequence[Blocked], fallback: str, library: Engine | None) -> None:
    if not blocked or (fallback == "mxnet" and compat.available()):
        return
    own = [item for item in blocked if not item.reason.startswith("the type of its input ")]
    if library is None:
        advice = "one ONNX file cannot hold them; harness.compile (`mxtrt compile`) leaves them to MXNet"
    elif fallback == "error":
        advice = "fallback='mxnet' would leave them to MXNet"
    else:
        advice = "MXNet could run them, and is not installed: pip install 'mxtrt[mxnet]'"
    raise UnsupportedOperator(own or blocked, advice)


def _blocked(lowered: LoweredGraph) -> tuple[Blocked, ...]:
    nodes = lowered.nodes.values()
    return tuple(Blocked(n.node.name, n.node.operator, n.reason) for n in nodes if n.reason is not None)


def _no_inference(node: Any, inputs: Any) -> None:
    return None


def _no_refusal(fragment: Fragment) -> None:
    return None


def input_values(inputs: Mapping[str, Input]) -> dict[str, Value]:
    """Name -> the value that stands for an input, a named dimension for each size that may vary."""
    return {name: Value(name, TensorType(spec.dtype, spec.symbolic(name))) for name, spec in inputs.items()}


# --- cutting ---------------------------------------------------------------------------------------------------------


@without_collection
def _cut(lowered: LoweredGraph, engine: str, fallback: str, min_segment_size: int) -> list[Part]:
    producers = _producers(lowered)
    sources = {
        index: [producers[value.name] for value in node.inputs if value.name in producers]
        for index, node in lowered.nodes.items()
    }
    colours = {}
    for index, node in lowered.nodes.items():
        if node.node.is_variable or (node.fragment is not None and not node.fragment.nodes):
            continue
        colours[index] = MXNET if node.fragment is None else HOST if node.on_host else engine
    parts = partition(colours, sources)
    small = {n for part in parts if part.engine == engine and len(part.nodes) < min_segment_size for n in part.nodes}
    if not small:
        return parts
    for index in [n for n in small if lowered.nodes[n].plugin]:
        lowered.nodes[index].on_host = f"its part has fewer than min_segment_size={min_segment_size} nodes"
        colours[index] = HOST
        small.discard(index)
    if small and (fallback == "error" or not compat.available()):
        raise OptionError(
            f"min_segment_size: {len(small)} nodes are in smaller parts, and MXNet may not run them "
            f"({'fallback is error' if fallback == 'error' else 'it is not installed'})"
        )
    for index in small:
        node = lowered.nodes[index]
        node.fragment, node.reason = None, f"its part has fewer than min_segment_size={min_segment_size} nodes"
    return partition({n: MXNET if n in small else c for n, c in colours.items()}, sources)


def _producers(lowered: LoweredGraph) -> dict[str, int]:
    """Value name -> position of the node that computes it."""
    producers = {}
    for index, node in lowered.nodes.items():
        if node.fragment is not None:
            for proto in node.fragment.nodes:
                producers.update(dict.fromkeys(proto.output, index))
        elif not node.node.is_variable:
            producers.update({value.name: index for value in node.outputs})
    return producers


def _results(lowered: LoweredGraph, index: int) -> list[Value]:
    """The distinct values that a node computes and somebody may read."""
    node = lowered.nodes[index]
    values = {value.name: value for value in node.outputs}
    if node.fragment is not None:
        own = {name for proto in node.fragment.nodes for name in proto.output}
        return [value for name, value in values.items() if name in own]
    return list(values.values())


def _reads(lowered: LoweredGraph, part: Part, producers: Mapping[str, int]) -> list[Value]:
    """What a part takes from outside, constants of lowered nodes excepted."""
    inside = set(part.nodes)
    found: dict[str, Value] = {}
    for index in part.nodes:
        node = lowered.nodes[index]
        if node.fragment is None:
            candidates: Iterable[Value] = node.inputs
        else:
            used = {name for proto in node.fragment.nodes for name in names_used(proto)}
            candidates = [v for v in node.fragment.values.values() if v.name in used and v.const is None]
        for value in candidates:
            outside = value.name not in producers or producers[value.name] not in inside
            if outside and not isinstance(value, Missing) and (value.const is None or node.fragment is None):
                found.setdefault(value.name, value)
    return list(found.values())


def _assemble(
    lowered: LoweredGraph, part: Part, reads: Sequence[Value], writes: Sequence[Value], name: str
) -> ir.Model:
    fragments = [lowered.nodes[index].fragment for index in part.nodes]
    heads = dict(zip((v.name for v in lowered.outputs), unique(lowered.graph.output_names)))
    taken = {value.name for value in reads}
    outputs = [(n if (n := heads.get(v.name, v.name)) not in taken else v.name, v) for v in writes]
    return assemble(name, [f for f in fragments if f is not None], reads, outputs)


# --- names and types -------------------------------------------------------------------------------------------------


def _describe(value: Value, inputs: Mapping[str, Input]) -> Input:
    if isinstance(value, Untyped):
        return Input(("...",))
    ranges = {f"{name}_{axis}": size for name, spec in inputs.items() for axis, size in spec.ranges.items()}
    shape: list[int | Range | str] = []
    for size in value.shape:
        if isinstance(size, int):
            shape.append(size)
        elif size.symbols <= set(ranges):
            low, best, high = (size.evaluate({s: ranges[s][k] for s in size.symbols}) for k in range(3))
            shape.append((low, best, high) if 0 <= low <= best <= high else str(size))
        else:
            shape.append(str(size))
    return Input(tuple(shape), value.dtype)


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that has occurred before."""
    taken, seen = set(names), set[str]()
    numbers: dict[str, int] = {}
    result = []
    for name in names:
        chosen = name
        while chosen in seen or (chosen != name and chosen in taken):
            numbers[name] = numbers.get(name, 0) + 1
            chosen = f"{name}_{numbers[name]}"
        seen.add(chosen)
        result.append(chosen)
    return result
