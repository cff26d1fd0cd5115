"""Plugins as layers of TensorRT's networks: a user's, through the V3 interfaces, and those that the library ships.

TensorRT finds a plugin by name, version and namespace in its registry, when it parses a model and when it loads a
plan. The version is that of the implementation, so a plan is never run by another one than it was built with.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import plugins
from ...dims import Dim, FloorDiv, Size
from ...errors import BuildError, ExecutionError
from ...graph import TensorType
from ..memory import DeviceArray
from .library import DTYPES, FROM_PLUGINS, Library

_NAMES = {dtype.name: kind for kind, dtype in DTYPES.items()}
_DTYPES = {dtype.name: dtype for dtype in DTYPES.values()}


def register(library: Library, model: ir.Model) -> None:
    """Make the plugins of a model known to the library.

    Raises:
        EngineMissing: one of a user's is not registered with mxtrt, or in another version.
        BuildError: the library does not take it.
    """
    if any(node.op_type in FROM_PLUGINS for node in model.graph):
        _ = library.shipped_plugins
    for node in plugins.in_model(model):
        _register(library, plugins.read_node(node).plugin)


def _register(library: Library, plugin: plugins.Plugin) -> None:
    key = (plugin.name, plugin.version)
    with _LOCK:
        if key in library.creators:
            library.creators[key].plugin = plugin  # the caller's word: the version is the same, and so is what it does
            return
        registry, creator = library.trt.get_plugin_registry(), _types(library.trt)[1](plugin)
        if not registry.register_creator(creator, plugins.NAMESPACE):
            raise BuildError(
                f"{library.label} does not take {plugin.label} (version {plugin.version}): the name is taken"
            )
        library.creators[key] = creator


_LOCK = threading.Lock()


# --- what went wrong -------------------------------------------------------------------------------------------------


class Problems:
    """Errors inside of plugins: TensorRT calls these from C++, and tells only that something failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: list[tuple[int, str, str, BaseException]] = []

    def note(self, call: plugins.Call, method: str, error: BaseException) -> None:
        """Keep an error and the place where it arose, without its frames.

        A frame keeps the ones that called it, which hold the network, the builder and this plugin.
        """
        places = [f" ({place.filename}:{place.lineno})" for place in traceback.extract_tb(error.__traceback__)]
        text = f"{call.where}: {method}: {type(error).__name__}: {error}" + "".join(places[-1:])
        _forget_frames(error)
        with self._lock:
            self._noted = [*self._noted[-49:], (threading.get_ident(), call.node, text, error)]

    def take(self, nodes: Collection[str] | None = None) -> tuple[str, BaseException] | None:
        """The first error of these MXNet nodes (None: of this thread), and its text; the others are forgotten."""
        with self._lock:
            me = threading.get_ident()
            mine = [item for item in self._noted if (item[0] == me if nodes is None else item[1] in nodes)]
            self._noted = [item for item in self._noted if item not in mine]
        return (mine[0][2], mine[0][3]) if mine else None


def _forget_frames(error: BaseException) -> None:
    """Of an error, and of those that it came from."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and not any(one is other for other in seen):
            one.__traceback__ = None
            seen.append(one)
            pending += (one.__cause__, one.__context__)


PROBLEMS = Problems()


@contextlib.contextmanager
def watched(model: ir.Model) -> Iterator[None]:
    """While a model is built: BuildError if one of its plugins fails, which says more than what TensorRT makes of it."""
    nodes = {plugins.read_node(node).node for node in plugins.in_model(model)}
    PROBLEMS.take(nodes)
    try:
        yield
    finally:
        found = PROBLEMS.take(nodes)
    if found is not None:
        text, error = found
        if not isinstance(error, Exception):
            raise error
        raise BuildError(text) from error


def check_run() -> None:
    """After a run: ExecutionError if a plugin of this thread failed in it; an interruption goes on."""
    found = PROBLEMS.take()
    if found is None:
        return
    text, error = found
    if not isinstance(error, Exception):
        raise error
    raise ExecutionError(text) from error


# --- TensorRT's interfaces -------------------------------------------------------------------------------------------


def _keep_for_ever(made: Any) -> None:
    """Give an object a reference that nobody takes back.

    A plugin belongs to TensorRT and to its Python object alike. Where TensorRT deletes it, the destructor in NVIDIA's
    bindings (10.6; python/src/infer/pyPlugin.cpp) drops one reference; if that was the last, the Python object deletes
    it once more, which ended processes with a broken heap. Mostly it is not the last, because each question for a
    capability leaks one, and the object stays anyway.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


@functools.cache
def _types(trt: Any) -> tuple[Any, Any]:
    """(plugin, creator): subclasses of this library's own classes, which it asks for."""

    class Layer(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        """One node's plugin."""

        def __init__(self, call: plugins.Call) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            _keep_for_ever(self)
            self.call = call
            self.plugin_name, self.plugin_version = call.plugin.name, call.plugin.version
            self.plugin_namespace, self.num_outputs = plugins.NAMESPACE, len(call.outputs)
            self.text = np.frombuffer(call.text().encode(), np.int8)  # the field only points there
            self.fields = trt.PluginFieldCollection([trt.PluginField("call", self.text, trt.PluginFieldType.CHAR)])

        def destroy(self) -> None:
            """TensorRT deletes it: what is left is an empty object."""
            self.__dict__.clear()

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Layer(self.call)

        def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
            return [getattr(trt.DataType, _NAMES[dtype]) for dtype, _ in self.call.outputs]

        def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], expr_builder: Any) -> list[Any]:
            try:
                return _shapes(trt, self.call, inputs, expr_builder)
            except BaseException as error:  # noqa: BLE001 - raised by its readers
                PROBLEMS.note(self.call, "infer", error)
                raise RuntimeError("noted") from None

        def supports_format_combination(self, pos: int, in_out: Sequence[Any], num_inputs: int) -> bool:
            desc = in_out[pos].desc
            dtype, _ = (*self.call.inputs, *self.call.outputs)[pos]
            return bool(desc.format == trt.TensorFormat.LINEAR and desc.type == getattr(trt.DataType, _NAMES[dtype]))

        def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            """Nothing: all is known from the node."""

        def get_workspace_size(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
            implementation = self.call.plugin.implementation
            if not hasattr(implementation, "workspace"):
                return 0
            types = [TensorType(_DTYPES[dtype], tuple(i.max)) for (dtype, _), i in zip(self.call.inputs, inputs)]
            try:
                return int(implementation.workspace(self.call.attributes, *types))
            except BaseException as error:  # noqa: BLE001 - raised by its readers
                PROBLEMS.note(self.call, "workspace", error)
                raise RuntimeError("noted") from None

        def get_fields_to_serialize(self) -> Any:
            return self.fields

        def attach_to_context(self, resource_context: Any) -> Any:
            return self.clone()

        def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            """Nothing: a run is told its shapes."""

        def set_tactic(self, tactic: int) -> None:
            """Nothing: there is one way."""

        def enqueue(
            self,
            input_desc: Sequence[Any],
            output_desc: Sequence[Any],
            inputs: Sequence[int],
            outputs: Sequence[int],
            workspace: int,
            stream: int,
        ) -> None:
            try:
                read = _arrays(self.call.inputs, input_desc, inputs)
                written = _arrays(self.call.outputs, output_desc, outputs)
                self.call.plugin.implementation.cuda(
                    self.call.attributes, read, written, int(stream), int(workspace or 0)
                )
            except BaseException as error:  # noqa: BLE001 - raised by its readers: to hear of it breaks 10.6's heap
                PROBLEMS.note(self.call, "cuda", error)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        """Makes the plugins of one implementation, from what their nodes hold."""

        def __init__(self, plugin: plugins.Plugin) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = plugin.name, plugin.version, plugins.NAMESPACE
            self.plugin = plugin
            self.empty = np.array([], np.int8)
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField("call", self.empty, trt.PluginFieldType.CHAR)]
            )

        def create_plugin(self, name: str, field_collection: Any, phase: Any) -> Any:
            text = next(bytes(field.data) for field in field_collection if field.name == "call")
            return Layer(plugins.read_call(text.rstrip(b"\0").decode(), self.plugin.version, self.plugin))

    return Layer, Creator


def _arrays(types: Sequence[tuple[str, Any]], descs: Sequence[Any], addresses: Sequence[int]) -> list[DeviceArray]:
    return [
        DeviceArray(int(address), tuple(map(int, desc.dims)), _DTYPES[dtype])
        for (dtype, _), desc, address in zip(types, descs, addresses)
    ]


def _shapes(trt: Any, call: plugins.Call, inputs: Sequence[Any], builder: Any) -> list[Any]:
    """The outputs' shapes as TensorRT's expressions: by the plugin's ``infer`` over named sizes, or as they were known."""
    if not call.plugin.has_infer:
        return [_expressions(trt, shape, {}, builder) for _, shape in call.outputs]
    known: dict[str, Any] = {}
    types = []
    for number, ((dtype, _), sizes) in enumerate(zip(call.inputs, inputs)):
        shape: list[Size] = []
        for axis in range(len(sizes)):
            size = sizes[axis]
            if size.is_constant():
                shape.append(int(size.get_constant_value()))
            else:
                symbol = f"i{number}_{axis}"
                known[symbol] = size
                shape.append(Dim.symbol(symbol))
        types.append(TensorType(_DTYPES[dtype], tuple(shape)))
    return [_expressions(trt, kind.shape, known, builder) for kind in call.infer(types)]


def _expressions(trt: Any, shape: Sequence[Size], known: Mapping[str, Any], builder: Any) -> Any:
    made = trt.DimsExprs(len(shape))
    for axis, size in enumerate(shape):
        made[axis] = _expression(trt, size, known, builder)
    return made


def _expression(trt: Any, size: Size, known: Mapping[str, Any], builder: Any) -> Any:
    """A size as TensorRT's expression; ``known`` has those of the inputs' sizes."""
    if isinstance(size, int):
        return builder.constant(size)
    total = builder.constant(0)
    for monomial, coefficient in size.terms.items():
        term = builder.constant(abs(coefficient))
        for atom in monomial:
            if isinstance(atom, FloorDiv):
                over, under = (_expression(trt, part, known, builder) for part in atom)
                factor = builder.operation(trt.DimensionOperation.FLOOR_DIV, over, under)
            else:
                factor = known[atom]
            term = builder.operation(trt.DimensionOperation.PROD, term, factor)
        added = trt.DimensionOperation.SUM if coefficient > 0 else trt.DimensionOperation.SUB
        total = builder.operation(added, total, term)
    return total
