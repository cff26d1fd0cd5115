"""The double of TensorRT's Python module: RTX's real parser and builder, ONNX Runtime in place of the GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import onnx

from . import plugins
from .cuda import DoubleCuda
from .runtime import MAGIC, Engine, ParserRefitter, Refitter, Runtime

_NOT_WITHOUT_GPU = ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE")  # RTX's builder refuses them here


class DoubleTensorRT:
    """Stands for the module ``tensorrt``.

    Attributes:
        failures: what to fail next: "parse", "build" (the builder returns nothing), "deserialize", "context",
            "address" (it is set nevertheless), "enqueue", "capture", "refit"; with the message that is then logged, or
            what is raised instead (KeyboardInterrupt: somebody presses Ctrl-C there).
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
        self.INetworkDefinition = real.INetworkDefinition if rtx else _TakesPlugins
        shipped = [creator.name for creator in real.get_plugin_registry().all_creators] if rtx else plugins.SHIPPED
        self.registry, self.DimsExprs = plugins.Registry(shipped), plugins.Dimensions
        bind = lambda kind: lambda *given: kind(self, *given)  # noqa: E731
        self.Builder, self.OnnxParser, self.Runtime = bind(Builder), bind(Parser), bind(Runtime)
        self.Refitter, self.OnnxParserRefitter = bind(Refitter), bind(ParserRefitter)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_hidden", ()):
            raise AttributeError(name)
        return getattr(self.__dict__["real"], name)

    def get_plugin_registry(self) -> plugins.Registry:
        return self.registry

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        return True

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


class _TakesPlugins:
    """Standing for TensorRT's INetworkDefinition, which has what RTX's lacks."""

    def add_plugin_v3(self) -> None:
        raise AssertionError("the parser does this")


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

    def get_plugin_registry(self) -> plugins.Registry:
        return self.trt.registry

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        if self.trt.build_delay is not None:
            self.trt.build_delay()
        if self.trt.fails("build", self.logger):
            return None
        described = self._add_plugins(network, config)
        if described is None:
            return None
        plan = b"" if network.is_empty else self.real.build_serialized_network(network.real, config.real)
        if plan is None:
            return None
        self.trt.builds += 1
        device = self.trt.cuda.device
        head = {
            "version": self.trt.__version__, "capability": device.compute_capability, "flags": sorted(config.flags),
            "profiles": config.profiles, "folder": network.folder, "model": len(network.model), "plugins": described,
        }  # fmt: skip
        if config.timing is not None:
            config.timing.known.add(f"tactic of {len(network.model)} bytes")
        return b"".join((MAGIC, json.dumps(head).encode(), b"\n", network.model, bytes(plan)))

    def _add_plugins(self, network: Network, config: Config) -> list[dict[str, Any]] | None:
        """Ask the plugins what the builder asks them, and time each once; what the plan holds of them."""
        if not network.layers:
            return []
        engine = Engine(self.trt, self.logger, {"folder": network.folder, "profiles": config.profiles}, network.model)
        engine.layers = network.layers
        try:
            for number, profile in enumerate(config.profiles or [engine.fixed()]):
                points = [engine.tensors({name: sizes[k] for name, sizes in profile.items()}) for k in range(3)]
                if config.real_profiles:  # a plugin's outputs are inputs of what RTX builds
                    for name in (name for layer in network.layers.values() for name in layer.outputs):
                        config.real_profiles[number].set_shape(name, *(point[name] for point in points))
                for layer in network.layers.values():
                    problem = plugins.configure(self.trt, layer, engine.types, points)
                    if problem:
                        self.trt.report(self.logger, problem)
                        return None
            engine.create_execution_context(self.trt.real.ExecutionContextAllocationStrategy.STATIC).time(points[1])
        except BaseException as error:  # noqa: BLE001 - C++ prints it, and tells only that something failed
            self.trt.report(self.logger, f"Error Code 2: Internal Error ({type(error).__name__} in a plugin)")
            return None
        return [plugins.serialized(layer) for layer in network.layers.values()]


class Network:
    def __init__(self, real: Any) -> None:
        self.real, self.model, self.folder = real, b"", ""
        self.layers: dict[str, plugins.Layer] = {}
        self.is_empty = False


class Config:
    def __init__(self, trt: DoubleTensorRT, real: Any) -> None:
        real.num_compute_capabilities = 1
        real.set_compute_capability(trt.real.ComputeCapability.SM89, 0)
        self.__dict__.update(trt=trt, real=real, flags={"TF32"}, profiles=[], timing=None, real_profiles=[])

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
        self.real_profiles.append(profile.real)
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
        folder = os.path.dirname(path) if path else ""
        self.network.model, self.network.folder = bytes(model), folder
        proto = onnx.load_from_string(model)
        if not plugins.plugin_nodes(proto):
            return bool(self.real.parse(model, path))
        for node in plugins.plugin_nodes(proto):
            made, problem = plugins.create(self.trt, self.trt.registry, node)
            if made is None:
                self.trt.report(self.logger, problem)
                return False
            self.network.layers[node.name] = plugins.Layer(node, made, list(node.input), list(node.output))
        rest = plugins.cut(proto)
        self.network.is_empty = not rest.graph.node  # then there is nothing for RTX to judge
        return self.network.is_empty or bool(self.real.parse(rest.SerializeToString(), path))

    def parse_from_file(self, path: str) -> bool:
        with open(path, "rb") as file:
            self.network.model, self.network.folder = file.read(), os.path.dirname(path)
        return bool(self.real.parse_from_file(path))
