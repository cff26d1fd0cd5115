"""The double of TensorRT's runtime: plans, contexts and runs, with ONNX Runtime in place of the GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from harness.engines import base, onnxruntime_versions

from . import plugins
from .cuda import DoubleCuda

if TYPE_CHECKING:
    from .trt import DoubleTensorRT

MAGIC = b"DOUBLE OF A TENSORRT PLAN\n"


class Runtime:
    def __init__(self, trt: DoubleTensorRT, logger: Any) -> None:
        self.trt, self.logger, self.engine_host_code_allowed = trt, logger, False

    def get_plugin_registry(self) -> plugins.Registry:
        return self.trt.registry

    def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
        if self.trt.fails("deserialize", self.logger):
            return None
        data = bytes(plan)
        if not data.startswith(MAGIC):
            self.trt.report(self.logger, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        head, _, rest = data[len(MAGIC) :].partition(b"\n")
        about = json.loads(head)
        if about["version"] != self.trt.__version__:
            self.trt.report(self.logger, f"Version tag does not match: {about['version']}, {self.trt.__version__}")
            return None
        if tuple(about["capability"]) != self.trt.cuda.device.compute_capability:
            self.trt.report(self.logger, "The engine plan file is generated on an incompatible device")
            return None
        engine = Engine(self.trt, self.logger, about, rest[: about["model"]])
        nodes = {node.name: node for node in plugins.plugin_nodes(engine.model)}
        for item in about["plugins"]:
            plugin, node = plugins.deserialized(self.trt, self.trt.registry, item), nodes[item["node"]]
            if plugin is None:
                self.trt.report(
                    self.logger, f"getCreator could not find plugin {item['name']} version {item['version']}"
                )
                return None
            engine.layers[node.name] = plugins.Layer(
                node, plugin, list(node.input), list(node.output), item["workspace"]
            )
        return engine


class Engine:
    """A plan that has been loaded. Without plugins one model runs; with them parts of it, one after the other."""

    def __init__(self, trt: DoubleTensorRT, logger: Any, about: dict[str, Any], model: bytes) -> None:
        self.trt, self.logger, self.about = trt, logger, about
        self.device_memory_size_v2 = 4096
        self.streamable_weights_size, self.weight_streaming_budget_v2 = len(model), 0
        self.layers: dict[str, plugins.Layer] = {}
        self.load(model, about["folder"])

    def load(self, model: bytes, folder: str) -> None:
        self.model = onnx.load_from_string(model)
        graph = self.model.graph
        described = (*graph.input, *graph.output, *graph.value_info)
        self.types = {value.name: value.type.tensor_type.elem_type for value in described}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.depends_on_data = any(node.op_type in ("NonZero", "Compress", "Unique") for node in graph.node)
        self.nodes = [node.name for node in graph.node]
        self._shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
        with_plugins = plugins.plugin_nodes(self.model)
        pieces = plugins.parts(self.model) if with_plugins else [model]
        self.steps = [
            piece if isinstance(piece, onnx.NodeProto) else Runner(piece, folder) for piece in pieces
        ]  # fmt: skip

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.trt.real.DataType, plugins.KINDS[self.types[name]])

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.about["profiles"][profile][name]

    def create_execution_context(self, strategy: Any) -> Context | None:
        return None if self.trt.fails("context", self.logger) else Context(self, strategy)

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)

    def fixed(self) -> dict[str, Any]:
        """The shapes of inputs that do not vary, as a profile."""
        sizes = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in self.model.graph.input}
        return {name: (shape,) * 3 for name, shape in sizes.items()}

    def tensors(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs and of everything between the steps."""
        key = tuple(sorted(shapes.items()))
        if key not in self._shapes:
            values = {name: np.zeros(shape, self.numpy_type(name)) for name, shape in shapes.items()}
            values |= {n: onnx.numpy_helper.to_array(t) for n, t in self.constants.items() if self.layers}
            for step in self.steps:
                if isinstance(step, onnx.NodeProto):
                    layer = self.layers[step.name]
                    sizes = plugins.output_shapes(layer, [values[name].shape for name in layer.inputs], self.trt)
                    values |= {n: np.zeros(s, self.numpy_type(n)) for n, s in zip(layer.outputs, sizes)}
                else:
                    found = dict(zip(step.names, step.run({name: values[name] for name in step.reads})))
                    values |= found
                    kind = onnx.helper.np_dtype_to_tensor_dtype
                    self.types = {name: kind(value.dtype) for name, value in found.items()} | self.types
            self._shapes[key] = {name: value.shape for name, value in values.items()}
        return self._shapes[key]

    def numpy_type(self, name: str) -> np.dtype[Any]:
        return onnx.helper.tensor_dtype_to_np_dtype(self.types[name])


class Runner:
    """ONNX Runtime's session of a model."""

    def __init__(self, model: bytes | onnx.ModelProto, folder: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        if folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
        engine: Any = base.get_engine("onnxruntime")
        onnxruntime_versions.mend(proto, engine.release)
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.reads = [item.name for item in self._session.get_inputs()]
        self.names = [item.name for item in self._session.get_outputs()]

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        return self._session.run(self.names, feeds)  # type: ignore[no-any-return]


class Inspector:
    """Speaks both schemas: names alone as TensorRT 10 does, objects as it does for detailed profiling."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def get_engine_information(self, form: Any) -> str:
        nodes = self.engine.nodes
        fused = [" + ".join(nodes[i : i + 2]) for i in range(0, len(nodes), 2)]
        return json.dumps({"Layers": fused, "Bindings": [*self.engine.inputs, *self.engine.outputs]})


class Context:
    def __init__(self, engine: Engine, strategy: Any) -> None:
        self.engine, self.trt = engine, engine.trt
        self.user_managed = strategy.name == "USER_MANAGED"
        self.device_memory: tuple[int, int] = (0, 0)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.profile, self.profiler = 0, None
        core = lambda layer: layer.plugin.get_capability_interface(self.trt.PluginCapabilityType.RUNTIME)  # noqa: E731
        self.plugins = {name: core(layer).attach_to_context(None) for name, layer in engine.layers.items()}
        self._between: dict[str, tuple[int, int]] = {}  # memory of what lies between the steps: address, size
        self._told: Any = None

    def __del__(self) -> None:
        for address, _ in self._between.values():
            self.trt.cuda.free(address)

    def time(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """What the builder does to find out how fast a plugin is: it runs it."""
        cuda = self.trt.cuda
        self.shapes = {name: shapes[name] for name in self.engine.inputs}
        names = [*self.engine.inputs, *self.engine.outputs]
        sizes = [int(np.prod(shapes[n])) * self.engine.numpy_type(n).itemsize for n in names]
        self.addresses = {name: cuda.malloc(size) for name, size in zip(names, sizes)}
        stream = cuda.create_stream()
        try:
            self._enqueue_steps(stream, self.device_memory)
            cuda.synchronize(stream)
        finally:
            cuda.destroy_stream(stream)
            for address in self.addresses.values():
                cuda.free(address)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile, self.shapes = profile, {}
        return profile < max(len(self.engine.about["profiles"]), 1)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        profiles = self.engine.about["profiles"]
        if profiles:
            low, _, high = profiles[self.profile][name]
            if not all(a <= b <= c for a, b, c in zip(low, shape, high)):
                return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.engine.tensors(self.shapes)[name]
        return tuple(-1 for _ in shape) if self.engine.depends_on_data else shape

    def get_max_output_size(self, name: str) -> int:
        return 64

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * max((int(np.prod(shape)) for shape in self.shapes.values()), default=1)

    def set_device_memory(self, address: int, size: int) -> None:
        self.trt.cuda.host_address(address, size)
        self.device_memory = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not self.trt.fails("address", self.engine.logger)

    def execute_async_v3(self, stream: int) -> bool:
        capturing = self.trt.cuda._streams[stream].capture is not None
        if self.trt.fails("capture" if capturing else "enqueue", self.engine.logger):
            return False
        if self.user_managed and self.device_memory[1] < self.update_device_memory_size_for_shapes():
            self.trt.report(self.engine.logger, "Device memory is not set, or too small")
            return False
        missing = [n for n in (*self.engine.inputs, *self.engine.outputs) if n not in self.addresses | self.allocators]
        if missing:
            self.trt.report(self.engine.logger, f"Address is not set for {missing}")
            return False
        try:
            self._enqueue_steps(stream, self.device_memory)
        except BaseException as error:  # noqa: BLE001 - C++ prints it, and tells only that something failed
            self.trt.report(self.engine.logger, f"enqueue: Error Code 2: Internal Error ({type(error).__name__})")
            return False
        if self.profiler is not None:
            for node in self.engine.nodes:
                self.profiler.report_layer_time(node, 0.5)
        return True

    def _enqueue_steps(self, stream: int, scratch: tuple[int, int]) -> None:
        engine, cuda = self.engine, self.trt.cuda
        if len(engine.steps) == 1 and not engine.layers:
            (step,), shapes, addresses = engine.steps, dict(self.shapes), dict(self.addresses)
            cuda.push(stream, lambda: self._execute(step, shapes, addresses, scratch))
            return
        shapes = engine.tensors(self.shapes)
        addresses = self._places(shapes, stream)
        for step in engine.steps:
            if isinstance(step, onnx.NodeProto):
                self._call(engine.layers[step.name], shapes, addresses, stream)
            else:
                read = {name: shapes[name] for name in step.reads}
                cuda.push(stream, lambda step=step, read=read: self._execute(step, read, addresses, scratch))  # type: ignore[misc]

    def _places(self, shapes: dict[str, tuple[int, ...]], stream: int) -> dict[str, int]:
        """Where everything lies: as TensorRT's own, what is between the steps stays at its place from run to run."""
        engine, cuda = self.engine, self.trt.cuda
        addresses = dict(self.addresses)
        between = {name for layer in engine.layers.values() for name in (*layer.inputs, *layer.outputs)}
        between |= {n for step in engine.steps if isinstance(step, Runner) for n in (*step.reads, *step.names)}
        for name in sorted(between - set(addresses)):
            size = int(np.prod(shapes[name])) * engine.numpy_type(name).itemsize
            address, room = self._between.get(name, (0, -1))
            if size > room:
                if address:
                    cuda.free(address)
                address = cuda.malloc(size)
                self._between[name] = (address, size)
                if name in engine.constants:
                    write(cuda, address, onnx.numpy_helper.to_array(engine.constants[name]))
            addresses[name] = address
        return addresses

    def _call(
        self, layer: plugins.Layer, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], stream: int
    ) -> None:
        """The plugin enqueues its work at once, on the host."""
        trt, types, plugin = self.trt, self.engine.types, self.plugins[layer.node.name]
        read = [plugins.descriptor(trt, shapes[name], types[name]) for name in layer.inputs]
        written = [plugins.descriptor(trt, shapes[name], types[name]) for name in layer.outputs]
        if self._told != (layer.node.name, shapes):
            plugin.on_shape_change(read, written)
            self._told = (layer.node.name, shapes)
        plugin.set_tactic(0)
        if layer.workspace and layer.node.name not in self._between:
            self._between[layer.node.name] = (self.trt.cuda.malloc(layer.workspace), layer.workspace)
        workspace, _ = self._between.get(layer.node.name, (0, 0))
        places = ([addresses[name] for name in names] for names in (layer.inputs, layer.outputs))
        plugin.enqueue(read, written, *places, workspace, stream)

    def _execute(
        self, step: Runner, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: tuple[int, int]
    ) -> None:
        cuda, engine = self.trt.cuda, self.engine
        if scratch[1]:
            ctypes_fill(cuda.host_address(*scratch), scratch[1])
        feeds = {name: read(cuda, addresses[name], shape, engine.numpy_type(name)) for name, shape in shapes.items()}
        for name, result in zip(step.names, step.run(feeds)):
            address = addresses.get(name, 0)
            if name in self.allocators:
                address = self.allocators[name].reallocate_output_async(name, 0, result.nbytes, 256, 0)
                self.allocators[name].notify_shape(name, result.shape)
            if result.nbytes:
                write(cuda, address, result)


def ctypes_fill(address: int, size: int) -> None:
    """Scratch memory is written to by a run, so that two runs sharing it at once would be noticed."""
    import ctypes

    ctypes.memset(address, 0x5A, size)


def read(cuda: DoubleCuda, address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    import ctypes

    size = int(np.prod(shape)) * dtype.itemsize
    data = ctypes.string_at(cuda.host_address(address, size), size) if size else b""
    return np.frombuffer(data, dtype).reshape(shape)


def write(cuda: DoubleCuda, address: int, array: Any) -> None:
    import ctypes

    data = np.ascontiguousarray(array)
    ctypes.memmove(cuda.host_address(address, data.nbytes), data.ctypes.data, data.nbytes)


# --- refitting -------------------------------------------------------------------------------------------------------


class Refitter:
    def __init__(self, trt: DoubleTensorRT, engine: Engine, logger: Any) -> None:
        self.trt, self.engine, self.logger, self.model = trt, engine, logger, None

    def refit_cuda_engine(self) -> bool:
        if self.trt.fails("refit", self.logger) or self.model is None:
            return False
        self.engine.load(*self.model)
        return True

    def get_missing_weights(self) -> list[str]:
        return []


class ParserRefitter:
    num_errors = 0

    def __init__(self, trt: DoubleTensorRT, refitter: Refitter, logger: Any) -> None:
        self.refitter = refitter

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        flags = self.refitter.engine.about["flags"]
        if not {"REFIT", "REFIT_IDENTICAL"} & set(flags):
            return False
        self.refitter.model = (bytes(model), os.path.dirname(path) if path else "")
        return True
