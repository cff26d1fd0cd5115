"""The way of the data: read, lower, cut, convert, build. Each step is one function of one module."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from .engines.base import BuildRequest, Engine, Session, check_known, choose_engine, get_engine
from .engines.python import PluginSession
from .errors import OptionError
from .executor import Program, Step
from .frontend.mxnet import read_model
from .graph import Graph
from .inputs import Input, check_array, profile_of, read_inputs
from .lowering import assemble
from .model import Model
from .operators.context import Value
from .plan import HOST, Plan
from .planning import FALLBACKS, Draft, Piece, draft, input_values, lower_model, unique
from .precision import OPTIONS as CONVERSION_OPTIONS
from .precision import PRECISIONS, Request, Samples, check_excluded, convert, read_samples, split_options

Array = npt.NDArray[Any]
_LARGEST_MESSAGE = 2**31 - 2**20  # bytes of constants; protobuf's limit is 2 GB for a whole message


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
    library = get_engine(choose_engine(engine))
    settings = _settings(library, precision, fallback, min_segment_size, engine_options)
    notices: list[str] = []
    pieces = _draft(source, params, inputs, settings, notices)
    samples = read_samples(calibration, list(pieces.inputs)) if calibration is not None else None
    return _build(pieces, settings, samples, str(cache_dir) if cache_dir is not None else None, notices)


def compile_graph(
    graph: Graph, arrays: Mapping[str, Array], *arguments: Any, notices: Sequence[str] = (), **keywords: Any
) -> Model:
    """:func:`compile` for a graph and parameters that have been read already, and what was noticed while reading."""
    model = compile(graph, arrays, *arguments, **keywords)
    return Model(model._program, replace(model.plan, notices=(*notices, *model.plan.notices)))


def plan(
    source: Any,
    params: Any = None,
    inputs: Mapping[str, Any] | None = None,
    engine: str | Engine = "auto",
    precision: str = "fp32",
    fallback: str = "mxnet",
    min_segment_size: int = 1,
    **engine_options: Any,
) -> Plan:
    """What :func:`compile` would build with the same arguments; nothing is built or run.

    Args:
        engine: a name as for ``compile``, or an engine (which may be one that only judges).

    Raises:
        CalibrationError: int8 or fp8 without a ``calibration_table``: ranges need runs.
        HarnessError: as ``compile``, but for what only a build can find.
    """
    library = get_engine(choose_engine(engine)) if isinstance(engine, str) else engine
    settings = _settings(library, precision, fallback, min_segment_size, engine_options)
    notices: list[str] = []
    pieces = _draft(source, params, inputs, settings, notices)
    models = [_converted(piece, settings.conversion) for piece in pieces.pieces]
    return _plan(pieces, models, settings, notices)


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
    conversion, unknown = split_options(conversion_options)
    check_known(unknown, CONVERSION_OPTIONS, "conversion to ONNX")
    graph, arrays = read_model(source, params, [])
    check_excluded(conversion, [node.name for node in graph.nodes])
    specs = read_inputs(inputs)
    lowered = lower_model(graph, arrays, specs, None, "error")
    outputs = list(zip(unique(graph.output_names), lowered.outputs))
    fragments = [node.fragment for node in lowered.nodes.values() if node.fragment]
    model = assemble("mxtrt", fragments, list(input_values(specs).values()), outputs)
    samples = read_samples(calibration, list(specs)) if calibration is not None else None
    model = convert(model, Request(precision, samples, options=conversion))
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if path is None:
        if size > _LARGEST_MESSAGE:
            raise OptionError(f"path: the constants have {size} bytes, more than one message can hold; give a path")
        return ir.to_proto(_in_memory(model))
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"path: {path!r} is not the path of a file")
    target = Path(path)
    try:
        ir.save(_in_memory(model), target, external_data=f"{target.name}.data" if size > _LARGEST_MESSAGE else None)
    except (OSError, ValueError) as error:
        raise OptionError(f"path: {target} cannot be written: {error}") from None
    return str(target)


def _in_memory(model: ir.Model) -> ir.Model:
    """The model with tensors that lie in foreign files read in: the result must stand alone."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.Tensor(np.array(value.const_value.numpy()), name=value.name)
    return model


# --- arguments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Settings:
    """The arguments that say how, checked."""

    library: Engine
    conversion: Request
    fallback: str
    min_segment_size: int
    options: dict[str, Any]


def _settings(
    library: Engine, precision: str, fallback: str, min_segment_size: int, engine_options: Mapping[str, Any]
) -> _Settings:
    _check_choice("precision", precision, PRECISIONS)
    _check_choice("fallback", fallback, FALLBACKS)
    if not isinstance(min_segment_size, int) or isinstance(min_segment_size, bool) or min_segment_size < 1:
        raise OptionError(f"min_segment_size: {min_segment_size!r} is not a positive integer")
    conversion, options = split_options(engine_options)
    library.check_options(options)
    request = Request(precision, None, library.narrow_types, conversion)
    return _Settings(library, request, fallback, min_segment_size, options)


def _check_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise OptionError(f"{what}: {value!r} is none of {', '.join(choices)}")


def _draft(
    source: Any, params: Any, inputs: Mapping[str, Any] | None, settings: _Settings, notices: list[str]
) -> Draft:
    graph, arrays = read_model(source, params, notices)
    check_excluded(settings.conversion.options, [node.name for node in graph.nodes])
    return draft(graph, arrays, read_inputs(inputs), settings.library, settings.fallback, settings.min_segment_size)


# --- building --------------------------------------------------------------------------------------------------------


def _build(
    pieces: Draft, settings: _Settings, samples: Samples | None, cache_dir: str | None, notices: Sequence[str]
) -> Model:
    """Slots for values, a session for each part, a step for each session."""
    specs = pieces.inputs
    slots = {name: slot for slot, name in enumerate(specs)}
    constants: dict[int, Array] = {}
    steps: list[Step] = []
    models: list[ir.Model | None] = []

    def slot_of(value: Value) -> int:
        slot = slots.setdefault(value.name, len(slots))
        if value.const is not None and value.name not in pieces.computed and value.name not in specs:
            constants[slot] = value.const
        return slot

    for number, piece in enumerate(pieces.pieces):
        own = _samples_of(samples, specs, steps, slots, piece.reads)
        model = _converted(piece, replace(settings.conversion, samples=own))
        session: Session
        if model is None:
            session = _mxnet_session(pieces, piece)
        elif piece.segment.engine == HOST:
            session = PluginSession(model, f"segment{number}")
        else:
            precision, profile = settings.conversion.precision, profile_of(specs)
            request = BuildRequest(f"segment{number}", model, profile, settings.options, cache_dir, precision)
            session = settings.library.build(request)
        steps.append(Step(session, tuple(map(slot_of, piece.reads)), tuple(map(slot_of, piece.writes))))
        models.append(model)
    outputs = tuple(map(slot_of, pieces.lowered.outputs))
    program = Program(len(specs), len(slots), constants, tuple(_with_last_uses(steps, outputs)), outputs)
    return Model(program, _plan(pieces, models, settings, notices))


def _plan(pieces: Draft, models: Sequence[ir.Model | None], settings: _Settings, notices: Sequence[str]) -> Plan:
    segments = tuple(piece.segment for piece in pieces.pieces)
    return Plan(
        pieces.inputs, pieces.outputs, segments, pieces.fallbacks, tuple(models), settings.library.name,
        settings.conversion.precision, settings.options, (*notices, *pieces.notices), tuple(pieces.lowered.removed),
    )  # fmt: skip


def _converted(piece: Piece, conversion: Request) -> ir.Model | None:
    """Its model in the precision asked for; what no engine runs keeps MXNet's types."""
    return piece.model if piece.model is None or piece.segment.engine == HOST else convert(piece.model, conversion)


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


def _mxnet_session(pieces: Draft, piece: Piece) -> Session:
    from .engines.mxnet import MXNetSession

    graph, lowered = pieces.lowered.graph, pieces.lowered.nodes
    owners = {v.name: (lowered[i].node.name, k) for i in piece.nodes for k, v in enumerate(lowered[i].outputs)}
    # A node that was lowered before its part proved too small has outputs with ONNX names.
    sources = {name: f"{node}:{output}" for name, (node, output) in owners.items()}
    nodes = [(lowered[i].node, [sources.get(v.name, v.name) for v in lowered[i].inputs]) for i in piece.nodes]
    constants = {value.name: value.const for value in piece.reads if value.const is not None}
    heads = [owners[value.name] for value in piece.writes]
    return MXNetSession(nodes, heads, [value.name for value in piece.reads], constants, graph.np_shape)


def _with_last_uses(steps: Sequence[Step], outputs: Sequence[int]) -> list[Step]:
    """Each step with the slots that nothing reads after it."""
    seen = set(outputs)
    result = []
    for step in reversed(steps):
        last = tuple(slot for slot in {*step.reads, *step.writes} if slot not in seen)
        seen.update(step.reads)
        result.append(Step(step.session, step.reads, step.writes, last))
    return result[::-1]
