"""The way of the data: read, lower, cut, build. Each step is one function of one module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from .collection import without_collection
from .dims import Dim
from .engines.base import BuildRequest, Engine, Profile, Range, Session, check_known, get_engine
from .engines.python import PluginSession
from .errors import Blocked, EngineMissing, InputError, OptionError, UnsupportedOperator
from .executor import Program, Step
from .frontend import compat
from .frontend.mxnet import read_model
from .graph import Graph, TensorType
from .inputs import Input, check_array, read_inputs
from .lowering import Infer, LoweredGraph, assemble, lower, names_used
from .model import Model, Plan, Segment
from .operators.context import Fragment, Missing, Untyped, Value
from .partition import Part, partition
from .plugins import asks_mxnet
from .precision import OPTIONS as CONVERSION_OPTIONS
from .precision import Request, Samples, convert, read_samples, split_options

Array = npt.NDArray[Any]
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
FALLBACKS = ("mxnet", "error")


def compile(
    source: Any,
    params: Any = None,
    inputs: Mapping[str, Any] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    fallback: str = "mxnet",
    calibration: Iterable[Mapping[str, Any]] | None = None,
    cache_dir: str | Path | None = None,
    min_segment_size: int = 1,
    **engine_options: Any,
) -> Model:
    """Compile an MXNet model.

    Args:
        source: a Symbol, a HybridBlock, a Module, ``"path/prefix"`` of prefix-symbol.json and prefix-0000.params, or
            the path of a symbol.json.
        params: name -> array (``arg:`` and ``aux:`` allowed), the path of a .params file, or an epoch number; None
            takes the files beside the symbol, or the Block's own.
        inputs: name -> shape, in which a size may be (min, opt, max); or name -> :class:`harness.Input`.
        engine: "auto" (TensorRT where there is a GPU for it, else ONNX Runtime), "onnxruntime", "tensorrt" or
            "tensorrt_rtx".
        precision: "fp32", "tf32", "fp16", "bf16", "int8" or "fp8".
        fallback: "mxnet" runs what cannot be lowered there; "error" raises UnsupportedOperator naming all of it.
        calibration: samples {input: array} for int8 and fp8.
        cache_dir: where built plans are kept.
        min_segment_size: parts with fewer nodes are left to MXNet.
        engine_options: the engine's own and those of the conversion (:data:`harness.precision.OPTIONS`); an unknown one
            is refused with the list.

    Raises:
        HarnessError: see :mod:`harness.errors`; the message names the cause.
    """
    notices: list[str] = []
    graph, arrays = read_model(source, params, notices)
    return compile_graph(
        graph, arrays, inputs, engine, precision, fallback, calibration, cache_dir, min_segment_size, notices,
        **engine_options,
    )  # fmt: skip


def compile_graph(
    graph: Graph,
    arrays: Mapping[str, Array],
    inputs: Mapping[str, Any] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    fallback: str = "mxnet",
    calibration: Iterable[Mapping[str, Any]] | None = None,
    cache_dir: str | Path | None = None,
    min_segment_size: int = 1,
    notices: Sequence[str] = (),
    **engine_options: Any,
) -> Model:
    """``compile`` for a graph and parameters that have been read already."""
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("fallback", fallback, FALLBACKS)
    if not isinstance(min_segment_size, int) or isinstance(min_segment_size, bool) or min_segment_size < 1:
        raise OptionError(f"min_segment_size: {min_segment_size!r} is not a positive integer")
    library = get_engine(choose_engine(engine))
    conversion, options = split_options(engine_options)
    library.check_options(options)
    specs = read_inputs(inputs)
    lowered = _lower(graph, arrays, specs, library, fallback)
    parts = _cut(lowered, library.name, fallback, min_segment_size)
    samples = read_samples(calibration, list(specs)) if calibration is not None else None
    request = _Requests(library, Request(precision, samples, options=conversion), _profile(specs), options, cache_dir)
    return _link(lowered, parts, specs, request, notices)


def to_onnx(
    source: Any,
    params: Any = None,
    inputs: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    path: str | Path | None = None,
    calibration: Iterable[Mapping[str, Any]] | None = None,
    **conversion_options: Any,
) -> onnx.ModelProto | str:
    """The whole model as one typed ONNX model.

    Returns:
        A ``ModelProto``; or, with ``path``, the path of the file written (constants beside it above 2 GB).

    Raises:
        UnsupportedOperator: a part has no lowering.
        HarnessError: as ``compile``.
    """
    _check_choice("precision", precision, PRECISIONS)
    graph, arrays = read_model(source, params, [])
    specs = read_inputs(inputs)
    lowered = _lower(graph, arrays, specs, None, "error")
    values = _input_values(specs)
    names = _unique(graph.output_names)
    fragments = [node.fragment for node in lowered.nodes.values() if node.fragment]
    model = assemble("mxtrt", fragments, list(values.values()), list(zip(names, lowered.outputs)))
    conversion, unknown = split_options(conversion_options)
    check_known(unknown, CONVERSION_OPTIONS, "conversion to ONNX")
    samples = read_samples(calibration, list(specs)) if calibration is not None else None
    model = convert(model, Request(precision, samples, options=conversion))
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if path is None:
        if size > 2**31 - 2**20:
            raise OptionError(f"path: the constants have {size} bytes, more than one message can hold; give a path")
        return ir.to_proto(_in_memory(model))
    target = Path(path)
    try:
        ir.save(_in_memory(model), target, external_data=f"{target.name}.data" if size > 2**31 - 2**20 else None)
    except OSError as error:
        raise OptionError(f"path: {target} cannot be written: {error}") from None
    return str(target)


def choose_engine(engine: str) -> str:
    """ "auto" resolved to the name of an engine that is there; OptionError for what is no name."""
    if not isinstance(engine, str):
        raise OptionError(f"engine: {engine!r} is not the name of an engine")
    if engine != "auto":
        return engine
    try:
        return get_engine("tensorrt").name
    except EngineMissing:
        return "onnxruntime"


# --- lowering --------------------------------------------------------------------------------------------------------


@without_collection
def _lower(
    graph: Graph, params: Mapping[str, Array], specs: Mapping[str, Input], library: Engine | None, fallback: str
) -> LoweredGraph:
    variables = {node.name for node in graph.variables}
    for name in specs:
        if name not in variables:
            known = [n for n in sorted(variables) if n not in params]
            raise InputError(f"inputs: {name!r} is not a variable of the model; without a value are {', '.join(known)}")
    dims: dict[str, Dim] = {}
    values = {name: Value(name, TensorType(a.dtype, a.shape), a) for name, a in params.items() if name in variables}
    for name, value in _input_values(specs).items():
        values[name] = value
        dims.update({str(size): size for size in value.shape if isinstance(size, Dim)})
    infer: Infer = _no_inference
    if (fallback == "mxnet" or asks_mxnet(graph)) and compat.available():
        from .engines.mxnet import Inference

        infer = Inference(graph.np_shape, dims)
    lowered = lower(graph, values, infer, library.refuse if library else _no_refusal, dims)
    blocked = [Blocked(n.node.name, n.node.operator, n.reason) for n in lowered.nodes.values() if n.reason is not None]
    if blocked and fallback == "error":
        own = [b for b in blocked if not b.reason.startswith("the type of its input ")]
        raise UnsupportedOperator(own or blocked, "fallback='mxnet' would leave them to MXNet")
    if blocked and not compat.available():
        own = [b for b in blocked if not b.reason.startswith("the type of its input ")]
        raise UnsupportedOperator(
            own or blocked, "MXNet could run them, and is not installed: pip install 'mxtrt[mxnet]'"
        )
    for output in lowered.outputs:
        if isinstance(output, Missing):
            _ = output.type  # an output that is a variable without a value: raises, and names it
    return lowered


def _no_inference(node: Any, inputs: Any) -> None:
    return None


def _no_refusal(fragment: Fragment) -> None:
    return None


def _input_values(specs: Mapping[str, Input]) -> dict[str, Value]:
    return {name: Value(name, TensorType(spec.dtype, spec.symbolic(name))) for name, spec in specs.items()}


def _profile(specs: Mapping[str, Input]) -> Profile:
    return {name: spec.ranges for name, spec in specs.items() if spec.ranges}


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
        colours[index] = "mxnet" if node.fragment is None else "python" if node.on_host else engine
    parts = partition(colours, sources)
    small = {n for part in parts if part.engine == engine and len(part.nodes) < min_segment_size for n in part.nodes}
    if not small:
        return parts
    for index in [n for n in small if lowered.nodes[n].plugin]:
        lowered.nodes[index].on_host = f"its part has fewer than min_segment_size={min_segment_size} nodes"
        colours[index] = "python"
        small.discard(index)
    if small and (fallback == "error" or not compat.available()):
        raise OptionError(
            f"min_segment_size: {len(small)} nodes are in smaller parts, and MXNet may not run them "
            f"({'fallback is error' if fallback == 'error' else 'it is not installed'})"
        )
    for index in small:
        node = lowered.nodes[index]
        node.fragment, node.reason = None, f"its part has fewer than min_segment_size={min_segment_size} nodes"
    return partition({n: "mxnet" if n in small else c for n, c in colours.items()}, sources)


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


# --- linking ---------------------------------------------------------------------------------------------------------


class _Requests:
    """Builds one segment after the other, all with the same options."""

    def __init__(
        self,
        library: Engine,
        conversion: Request,
        profile: Profile,
        options: Mapping[str, Any],
        cache_dir: str | Path | None,
    ) -> None:
        self.library, self.conversion = library, replace(conversion, narrow_types=library.narrow_types)
        self.profile, self.options = profile, dict(options)
        self.cache_dir = str(cache_dir) if cache_dir is not None else None

    def build(self, name: str, model: ir.Model, samples: Samples | None) -> tuple[Session, ir.Model]:
        converted = convert(model, replace(self.conversion, samples=samples))
        request = BuildRequest(name, converted, self.profile, self.options, self.cache_dir, self.conversion.precision)
        return self.library.build(request), converted


def _link(
    lowered: LoweredGraph,
    parts: Sequence[Part],
    specs: Mapping[str, Input],
    requests: _Requests,
    notices: Sequence[str],
) -> Model:
    """Slots for values, a session for each part, a step for each session."""
    producers = _producers(lowered)
    outputs = lowered.outputs
    reads = [_reads(lowered, part, producers) for part in parts]
    readers = {value.name for part_reads in reads for value in part_reads} | {value.name for value in outputs}
    slots = {name: slot for slot, name in enumerate(specs)}
    constants: dict[int, Array] = {}
    steps: list[Step] = []
    segments: list[Segment] = []
    models: list[ir.Model | None] = []

    def slot_of(value: Value) -> int:
        slot = slots.setdefault(value.name, len(slots))
        if value.const is not None and value.name not in producers and value.name not in specs:
            constants[slot] = value.const
        return slot

    for number, (part, part_reads) in enumerate(zip(parts, reads)):
        produced = [v for i in part.nodes for v in _results(lowered, i) if v.name in readers]
        samples = _samples_of(requests.conversion.samples, specs, steps, slots, part_reads)
        session, model = _session(lowered, part, part_reads, produced, f"segment{number}", requests, samples)
        steps.append(Step(session, tuple(map(slot_of, part_reads)), tuple(map(slot_of, produced))))
        models.append(model)
        nodes = [lowered.nodes[index].node for index in part.nodes]
        segments.append(Segment(part.engine, tuple(n.operator for n in nodes), tuple(n.name for n in nodes)))
    output_slots = tuple(map(slot_of, outputs))
    program = Program(len(specs), len(slots), constants, tuple(_with_last_uses(steps, output_slots)), output_slots)
    names = _unique(lowered.graph.output_names)
    described = [(name, _describe(value, specs)) for name, value in zip(names, outputs)]
    fallbacks = [
        Blocked(n.node.name, n.node.operator, n.reason) for n in lowered.nodes.values() if n.reason is not None
    ]
    plan = Plan(
        tuple(models), requests.profile, requests.library.name, requests.conversion.precision, requests.options,
        (*notices, *_on_host(lowered)), tuple(lowered.removed),
    )  # fmt: skip
    return Model(program, dict(specs), described, segments, fallbacks, plan)


def _on_host(lowered: LoweredGraph) -> Iterable[str]:
    """What the caller should know of plugins that the engine does not run."""
    for node in lowered.nodes.values():
        if node.on_host:
            yield f"{node.node.name} ({node.node.operator}) is run by its plugin's NumPy function: {node.on_host}"


def _samples_of(
    samples: Samples | None,
    specs: Mapping[str, Input],
    steps: Sequence[Step],
    slots: Mapping[str, int],
    reads: Sequence[Value],
) -> Samples | None:
    """The calibration samples as a part sees them: what it reads, after the parts before it have run."""
    if samples is None:
        return None
    before, known = tuple(steps), dict(slots)

    def run() -> Iterable[Mapping[str, Array]]:
        for sample in samples():
            values = {known[name]: check_array(name, sample[name], spec) for name, spec in specs.items()}
            for step in before:
                values.update(zip(step.writes, step.session.run([values[slot] for slot in step.reads])))
            yield {value.name: values[known[value.name]] for value in reads}

    return run


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


def _session(
    lowered: LoweredGraph,
    part: Part,
    reads: Sequence[Value],
    produced: Sequence[Value],
    name: str,
    requests: _Requests,
    samples: Samples | None,
) -> tuple[Session, ir.Model | None]:
    if part.engine != "mxnet":
        fragments = [lowered.nodes[index].fragment for index in part.nodes]
        head_names = dict(zip((v.name for v in lowered.outputs), _unique(lowered.graph.output_names)))
        taken = {value.name for value in reads}
        outputs = [(n if (n := head_names.get(v.name, v.name)) not in taken else v.name, v) for v in produced]
        model = assemble(name, [f for f in fragments if f is not None], reads, outputs)
        if part.engine == "python":
            return PluginSession(model, name), model
        return requests.build(name, model, samples)
    from .engines.mxnet import MXNetSession

    owners = {
        v.name: (lowered.nodes[i].node.name, k) for i in part.nodes for k, v in enumerate(lowered.nodes[i].outputs)
    }
    # A node that was lowered before its part proved too small has outputs with ONNX names.
    sources = {name: f"{node}:{output}" for name, (node, output) in owners.items()}
    nodes = [
        (lowered.nodes[i].node, [sources.get(v.name, v.name) for v in lowered.nodes[i].inputs]) for i in part.nodes
    ]
    constants = {v.name: v.const for v in reads if v.const is not None}
    heads = [owners[value.name] for value in produced]
    session = MXNetSession(nodes, heads, [v.name for v in reads], constants, lowered.graph.np_shape)
    return session, None


def _with_last_uses(steps: Sequence[Step], outputs: Sequence[int]) -> list[Step]:
    """Each step with the slots that nothing reads after it."""
    seen = set(outputs)
    result = []
    for step in reversed(steps):
        last = tuple(slot for slot in {*step.reads, *step.writes} if slot not in seen)
        seen.update(step.reads)
        result.append(Step(step.session, step.reads, step.writes, last))
    return result[::-1]


def _describe(value: Value, specs: Mapping[str, Input]) -> Input:
    if isinstance(value, Untyped):
        return Input(("...",))
    ranges = {f"{name}_{axis}": size for name, spec in specs.items() for axis, size in spec.ranges.items()}
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


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that has occurred before."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def _in_memory(model: ir.Model) -> ir.Model:
    """The model with tensors that lie in foreign files read in: the result must stand alone."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)
    return model


def _check_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise OptionError(f"{what}: {value!r} is none of {', '.join(choices)}")
