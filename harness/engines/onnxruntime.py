"""ONNX Runtime on the CPU: the engine of every machine without a GPU, and the second opinion on every lowering."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs

from .. import plugins
from ..errors import BuildError, EngineMissing, ExecutionError, OptionError
from ..operators.context import Fragment, Value
from . import onnxruntime_versions as versions
from .base import Array, BuildRequest, Session, check_known
from .layers import Layer, LayerTime

OPTIONS = {
    "threads": "threads of one run (default: all cores)",
    "optimization": "'all', 'extended', 'basic' or 'disable': ONNX Runtime's graph optimizations (default 'all')",
    "profile_to": "folder that receives ONNX Runtime's own trace",
}
_MOST_THREADS = 4096
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disable": "ORT_DISABLE_ALL",
}
_INLINE_LIMIT = 1 << 30  # protobuf ends at 2 GB; constants beyond this go to a file
_PREPACK_LIMIT = 256 << 20  # prepacking keeps a second copy of matrix weights; 15 % faster, not worth it beyond this

_OPEN = 2**31 - 1  # the last version of a kernel that has none

# Two roundings in a row become one; and int8 that is reshaped gets a type of which the next pass knows nothing.
_WRONG_ON_INTEGERS = ["DoubleQDQPairsRemover", "QDQPropagationTransformer"]
# A bias is rounded to the product of two scales, which float16 has not: 1e-7 has one bit there.
_WRONG_ON_NARROW_SCALES = ["WeightBiasQuantization"]

# ONNX Runtime runs float16 nodes for which it has no kernel in float32, with casts that it inserts itself.
_RUNS_AS = {"tensor(float16)": "tensor(float)"}


def create(name: str) -> OnnxRuntimeEngine:
    """The engine; EngineMissing if onnxruntime is not installed."""
    return OnnxRuntimeEngine(name)


class OnnxRuntimeEngine:
    """See :class:`~harness.engines.base.Engine`."""

    narrow_types = ("fp16",)

    def __init__(self, name: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineMissing(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from None
        self.name = name
        self.library = onnxruntime
        self.version = onnxruntime.__version__
        self.release = tuple(map(int, self.version.split(".")[:2]))

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_known(options, OPTIONS, self.name)
        threads = options.get("threads", 1)
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= _MOST_THREADS:
            raise OptionError(f"threads: {threads!r} is not a positive integer up to {_MOST_THREADS}")
        if options.get("optimization", "all") not in tuple(_LEVELS):
            raise OptionError(f"optimization: {options['optimization']!r} is none of {', '.join(_LEVELS)}")
        if not isinstance(options.get("profile_to", ""), (str, os.PathLike)):
            raise OptionError(f"profile_to: {options['profile_to']!r} is not the path of a folder")

    def refuse(self, fragment: Fragment) -> str | None:
        types = {name: _dtype_text(value.dtype) for name, value in fragment.values.items()}
        return self._refuse(fragment.nodes, types, fragment.values)

    def _refuse(
        self, nodes: Iterable[onnx.NodeProto], known: Mapping[str, str], values: Mapping[str, Value]
    ) -> str | None:
        """The same for nodes whose values have these types; bodies of control flow included."""
        for node in nodes:
            if plugins.is_plugin(node):
                return "onnxruntime runs no plugins"
            reason = versions.refuse(node, values, self.release)
            if reason:
                return reason
            types = tuple(known.get(name) for name in node.input)
            results = tuple(known.get(name) for name in node.output)
            if not _has_kernel(node.op_type, versions.opset(self.release), types, results):
                return (
                    f"onnxruntime {self.version} has no kernel for {node.op_type} of {', '.join(filter(None, types))}"
                )
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    body = attribute.g
                    inner = {info.name: _elem_text(info) for info in (*body.input, *body.output, *body.value_info)}
                    reason = self._refuse(body.node, {**known, **inner}, values)
                    if reason:
                        return reason
        return None

    def build(self, request: BuildRequest) -> Session:
        if plugins.in_model(request.model):  # cut for another engine, and now run or calibrated here
            from .python import PluginSession

            return PluginSession(request.model, request.name, request.options)
        return OnnxRuntimeSession(
            self._open(request), request.name, request.model, functools.partial(self._open, request)
        )

    def _open(self, request: BuildRequest, change: Callable[[Any], None] = lambda options: None) -> Any:
        """ONNX Runtime's own session, its options changed first."""
        options = self._session_options(request)
        change(options)
        try:
            payload, folder = serialise(request.model, functools.partial(versions.mend, release=self.release))
            if folder:
                options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
            return self.library.InferenceSession(
                payload,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_disabled(request.model, self.release),
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            raise BuildError(f"onnxruntime refuses segment {request.name}: {_first_line(error)}") from None

    def _session_options(self, request: BuildRequest) -> Any:
        options = self.library.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = request.options.get("threads", 0)
        level = _LEVELS[request.options.get("optimization", "all")]
        if _has_fp8(request.model) and level != "ORT_DISABLE_ALL":
            level = "ORT_ENABLE_BASIC"  # its Q/DQ fusions give wrong FP8 numbers (SQNR -10 dB instead of 25)
        options.graph_optimization_level = getattr(self.library.GraphOptimizationLevel, level)
        if _constant_bytes(request.model) > _PREPACK_LIMIT:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if "profile_to" in request.options:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(request.options["profile_to"]) / request.name)
        return options


def _disabled(model: ir.Model, release: tuple[int, ...]) -> list[str] | None:
    """The optimizers that give wrong numbers on this model, or nodes that cannot be run."""
    found = versions.disabled(model, release)
    pairs = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if pairs:
        scales = (node.inputs[1] for node in pairs)
        narrow = any(scale is not None and scale.dtype != ir.DataType.FLOAT for scale in scales)
        found += [*_WRONG_ON_INTEGERS, *(_WRONG_ON_NARROW_SCALES if narrow else ())]
    return found or None


def _has_fp8(model: ir.Model) -> bool:
    return any(value.dtype == ir.DataType.FLOAT8E4M3FN for value in model.graph.initializers.values())


class OnnxRuntimeSession:
    """A built model; may be run from several threads at once.

    Args:
        session: ONNX Runtime's own.
        name: the part's name, for messages.
        model: what it was built from.
        again: makes ``session`` once more, with changed options.
    """

    def __init__(self, session: Any, name: str, model: ir.Model, again: Callable[..., Any]) -> None:
        self.session = session
        self.name, self._model, self._again = name, model, again
        self.input_names = [item.name for item in session.get_inputs()]
        self.output_names = [item.name for item in session.get_outputs()]
        self._run = session._sess.run  # the public method only adds checks that have been made already

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        try:
            found: list[Array] = self._run(self.output_names, dict(zip(self.input_names, inputs)), None)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            raise ExecutionError(f"onnxruntime failed in segment {self.name}: {_first_line(error)}") from None
        return found

    def layers(self) -> list[Layer]:
        """The nodes of ONNX Runtime's optimized graph, each with the MXNet nodes in it."""
        from .optimized import describe_layers

        return describe_layers(self._model, self._again)

    def profile(self, inputs: Sequence[Any], runs: int = 10) -> list[LayerTime]:
        """Milliseconds a run spends in each of them, measured by ONNX Runtime's own profiler."""
        from .optimized import measure_layers

        return measure_layers(self._model, self._again, dict(zip(self.input_names, inputs)), runs)


# --- constants -------------------------------------------------------------------------------------------------------


def _constant_bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def serialise(
    model: ir.Model, change: Callable[[onnx.ModelProto], None] = lambda proto: None
) -> tuple[bytes | str, str]:
    """The model as bytes, and the folder of the file its large constants stay in ("" if there is none).

    ONNX Runtime maps that file itself, so a network's parameters are in memory once. ``change`` is made to what is
    written, not to the model.
    """
    external = [
        value.const_value
        for value in model.graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    folders = {str(tensor.base_dir) for tensor in external}
    if len(folders) > 1 or _constant_bytes(model) - sum(tensor.nbytes for tensor in external) > _INLINE_LIMIT:
        return _spill(model, change), ""
    proto = ir.to_proto(model)
    change(proto)
    return proto.SerializeToString(), os.path.abspath(folders.pop()) if folders else ""


def _spill(model: ir.Model, change: Callable[[onnx.ModelProto], None]) -> str:
    """The model saved with all its constants in one file, in a folder that is gone with the process."""
    folder = tempfile.mkdtemp(prefix="mxtrt-")
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "model.onnx")
    ir.save(model, path, external_data="model.data")
    proto = onnx.load(path, load_external_data=False)
    change(proto)
    onnx.save(proto, path)
    return path


# --- capability ------------------------------------------------------------------------------------------------------


@functools.cache
def _kernels() -> dict[str, list[tuple[int, int, dict[str, frozenset[str]]]]]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    table: dict[str, list[tuple[int, int, dict[str, frozenset[str]]]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.domain == "" and kernel.provider == "CPUExecutionProvider":
            first, last = kernel.version_range
            constraints = {name: frozenset(types) for name, types in kernel.type_constraints.items()}
            table.setdefault(kernel.op_name, []).append((first, last, constraints))
    return table


@functools.cache
def _has_kernel(op_type: str, opset: int, inputs: tuple[str | None, ...], outputs: tuple[str | None, ...]) -> bool:
    schema: Any = defs.get_schema(op_type, opset, "")
    if schema.has_function or schema.has_context_dependent_function:
        return True  # ONNX Runtime expands what it has no kernel for
    bound = _bind(schema.inputs, inputs) + _bind(schema.outputs, outputs)
    for first, last, constraints in _kernels().get(op_type, ()):
        # a kernel without a last version serves only the version it was written for
        serves = first == schema.since_version or (first <= schema.since_version <= last and last != _OPEN)
        if serves and all(
            kind in constraints[name] or _RUNS_AS.get(kind) in constraints[name]
            for name, kind in bound
            if name in constraints
        ):
            return True
    return False


def _bind(formal: Sequence[Any], actual: Sequence[str | None]) -> list[tuple[str, str]]:
    """(type parameter, type) of each argument that is given; the last formal one may stand for many."""
    pairs = []
    for position, kind in enumerate(actual):
        if kind is not None and formal:
            pairs.append((formal[min(position, len(formal) - 1)].type_str, kind))
    return pairs


def _elem_text(info: onnx.ValueInfoProto) -> str:
    return f"tensor({onnx.TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()})"


@functools.cache
def _dtype_text(dtype: np.dtype[Any]) -> str:
    name = onnx.TensorProto.DataType.Name(onnx.helper.np_dtype_to_tensor_dtype(dtype)).lower()
    return f"tensor({name})"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
