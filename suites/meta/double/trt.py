"""The double of TensorRT's Python module: RTX's real parser and builder, ONNX Runtime in place of the GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from .cuda import DoubleCuda

_MAGIC = b"DOUBLE OF A TENSORRT PLAN\n"
_NOT_WITHOUT_GPU = ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE")  # RTX's builder refuses them here
_TYPES = {1: "FLOAT", 10: "HALF", 16: "BF16", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}


class DoubleTensorRT:
    """Stands for the module ``tensorrt``.

    Attributes:
        failures: what to fail next: "parse", "build" (the builder returns nothing), "deserialize", "context",
            "address" (it is set nevertheless), "enqueue", "capture", "refit"; with the message that is then logged, or what is raised instead
            (KeyboardInterrupt: somebody presses Ctrl-C there).
        builds: how many plans have been built.
        build_delay: called in each build, for tests of waiting.
    """

    def __init__(
        self, cuda: DoubleCuda, version: str = "10.6.0", rtx: bool = False, hidden: Sequence[str] = ()
    ) -> None:
        import tensorrt_rtx_bindings as real

        self.real, self.cuda, self.__version__, self._hidden = real, cuda, version, frozenset(hidden)
        self.failures: dict[str, str | BaseException] = {}
        self.builds = 0
        self.build_delay: Any = None
        self.IBuilderConfig = real.IBuilderConfig if rtx else _Standard
        bind = lambda kind: lambda *given: kind(self, *given)  # noqa: E731
        self.Builder, self.OnnxParser, self.Runtime = bind(Builder), bind(Parser), bind(Runtime)
        self.Refitter, self.OnnxParserRefitter = bind(Refitter), bind(ParserRefitter)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_hidden", ()):
            raise AttributeError(name)
        return getattr(self.__dict__["real"], name)

    def fails(self, what: str, logger: Any) -> bool:
        message = self.failures.pop(what, None)
        if isinstance(message, BaseException):
            raise message
        if message is None:
            return False
        self.report(logger, message)
        return True

    def report(self, logger: Any, message: str) -> None:
        if message:
            logger.log(self.real.ILogger.Severity.ERROR, message)


class _Standard:
    """Standing for TensorRT's IBuilderConfig: without RTX's compute capabilities."""


# --- building --------------------------------------------------------------------------------------------------------


class Builder:
    def __init__(self, trt: DoubleTensorRT, logger: Any) -> None:
        self.trt, self.logger, self.real = trt, logger, trt.real.Builder(logger)

    def create_network(self, flags: int) -> Network:
        return Network(self.real.create_network(flags))

    def create_builder_config(self) -> Config:
        return Config(self.trt, self.real.create_builder_config())

    def create_optimization_profile(self) -> Profile:
        return Profile(self.real.create_optimization_profile())

    def get_plugin_registry(self) -> Registry:
        return Registry()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        if self.trt.build_delay is not None:
            self.trt.build_delay()
        if self.trt.fails("build", self.logger):
            return None
        plan = self.real.build_serialized_network(network.real, config.real)
        if plan is None:
            return None
        self.trt.builds += 1
        device = self.trt.cuda.device
        head = {
            "version": self.trt.__version__, "capability": device.compute_capability, "flags": sorted(config.flags),
            "profiles": config.profiles, "folder": network.folder, "model": len(network.model),
        }  # fmt: skip
        if config.timing is not None:
            config.timing.known.add(f"tactic of {len(network.model)} bytes")
        return b"".join((_MAGIC, json.dumps(head).encode(), b"\n", network.model, bytes(plan)))


class Network:
    def __init__(self, real: Any) -> None:
        self.real, self.model, self.folder = real, b"", ""


class Registry:
    def load_library(self, path: str) -> Any:
        return object() if path.endswith(".so") else None


class Config:
    def __init__(self, trt: DoubleTensorRT, real: Any) -> None:
        real.num_compute_capabilities = 1
        real.set_compute_capability(trt.real.ComputeCapability.SM89, 0)
        self.__dict__.update(trt=trt, real=real, flags={"TF32"}, profiles=[], timing=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "timing":
            self.__dict__[name] = value
        elif name != "num_compute_capabilities":
            setattr(self.real, name, value)

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        return True

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)
        if flag.name not in _NOT_WITHOUT_GPU:
            self.real.set_flag(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)
        self.real.clear_flag(flag)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile.shapes)
        return int(self.real.add_optimization_profile(profile.real))

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        try:
            return TimingCache(set(json.loads(content))) if content else TimingCache(set())
        except ValueError:
            return None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.timing = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing  # type: ignore[no-any-return]


class TimingCache:
    def __init__(self, known: set[str]) -> None:
        self.known = known

    def combine(self, other: TimingCache, ignore_mismatch: bool) -> bool:
        self.known |= other.known
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.known)).encode()


class Profile:
    def __init__(self, real: Any) -> None:
        self.real, self.shapes = real, {}

    def set_shape(self, name: str, low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> None:
        self.real.set_shape(name, low, best, high)
        self.shapes[name] = (low, best, high)


class Parser:
    def __init__(self, trt: DoubleTensorRT, network: Network, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        self.network, self.real = network, trt.real.OnnxParser(network.real, logger)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if self.trt.fails("parse", self.logger):
            return False
        self.network.model, self.network.folder = bytes(model), os.path.dirname(path) if path else ""
        return bool(self.real.parse(model, path))

    def parse_from_file(self, path: str) -> bool:
        with open(path, "rb") as file:
            self.network.model, self.network.folder = file.read(), os.path.dirname(path)
        return bool(self.real.parse_from_file(path))


# --- running ---------------------------------------------------------------------------------------------------------


class Runtime:
    def __init__(self, trt: DoubleTensorRT, logger: Any) -> None:
        self.trt, self.logger, self.engine_host_code_allowed = trt, logger, False

    def get_plugin_registry(self) -> Registry:
        return Registry()

    def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
        if self.trt.fails("deserialize", self.logger):
            return None
        data = bytes(plan)
        if not data.startswith(_MAGIC):
            self.trt.report(self.logger, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        head, _, rest = data[len(_MAGIC) :].partition(b"\n")
        about = json.loads(head)
        if about["version"] != self.trt.__version__:
            self.trt.report(self.logger, f"Version tag does not match: {about['version']}, {self.trt.__version__}")
            return None
        if tuple(about["capability"]) != self.trt.cuda.device.compute_capability:
            self.trt.report(self.logger, "The engine plan file is generated on an incompatible device")
            return None
        return Engine(self.trt, self.logger, about, rest[: about["model"]])


class Engine:
    def __init__(self, trt: DoubleTensorRT, logger: Any, about: dict[str, Any], model: bytes) -> None:
        self.trt, self.logger, self.about = trt, logger, about
        self.device_memory_size_v2 = 4096
        self.streamable_weights_size, self.weight_streaming_budget_v2 = len(model), 0
        self.load(model, about["folder"])

    def load(self, model: bytes, folder: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        if folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.model = onnx.load_from_string(model)
        graph = self.model.graph
        self.types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.depends_on_data = any(node.op_type in ("NonZero", "Compress", "Unique") for node in graph.node)
        self.nodes = [node.name for node in graph.node]
        self._shapes: dict[Any, dict[str, tuple[int, ...]]] = {}

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.trt.real.DataType, _TYPES[self.types[name]])

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.about["profiles"][profile][name]

    def create_execution_context(self, strategy: Any) -> Context | None:
        return None if self.trt.fails("context", self.logger) else Context(self, strategy)

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self)

    def shapes_for(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        key = tuple(sorted(shapes.items()))
        if key not in self._shapes:
            zeros = {name: np.zeros(shape, self.numpy_type(name)) for name, shape in shapes.items()}
            self._shapes[key] = {n: r.shape for n, r in zip(self.outputs, self.session.run(self.outputs, zeros))}
        return self._shapes[key]

    def numpy_type(self, name: str) -> np.dtype[Any]:
        return onnx.helper.tensor_dtype_to_np_dtype(self.types[name])


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
        shape = self.engine.shapes_for(self.shapes)[name]
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
        shapes, addresses, scratch = dict(self.shapes), dict(self.addresses), self.device_memory
        self.trt.cuda.push(stream, lambda: self._execute(shapes, addresses, scratch))
        if self.profiler is not None:
            for node in self.engine.nodes:
                self.profiler.report_layer_time(node, 0.5)
        return True

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: tuple[int, int]) -> None:
        cuda, engine = self.trt.cuda, self.engine
        if scratch[1]:
            ctypes_fill(cuda.host_address(*scratch), scratch[1])
        feeds = {n: read(cuda, addresses[n], shape, engine.numpy_type(n)) for n, shape in shapes.items()}
        for name, result in zip(engine.outputs, engine.session.run(engine.outputs, feeds)):
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
