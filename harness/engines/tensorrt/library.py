"""Finding TensorRT or TensorRT-RTX, and telling by introspection what it can do."""

from __future__ import annotations

import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ...errors import BuildError, EngineMissing
from ...graph import BFLOAT16
from .. import memory
from ..onnxruntime import serialise

# The wheels' own modules come first; the bindings alone are enough where the libraries lie beside them.
_MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_REMEDIES = {
    "tensorrt": "pip install tensorrt-cu12 (or the one for your CUDA), or use engine='onnxruntime'",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13, or use engine='onnxruntime'",
}
DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32), "HALF": np.dtype(np.float16), "BF16": BFLOAT16, "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32), "INT64": np.dtype(np.int64), "BOOL": np.dtype(np.bool_), "UINT8": np.dtype(np.uint8),
}  # fmt: skip
# Operators that the parser builds from plugins that the library ships: operator -> plugin, "" where it has other means.
FROM_PLUGINS = {
    "RoiAlign": "ROIAlign_TRT", "InstanceNormalization": "", "NonMaxSuppression": "",
}  # fmt: skip
_LOGGERS: list[
    Any
] = []  # TensorRT keeps the first logger for the process, and may call any of them late: none is freed


@dataclass(frozen=True, eq=False)
class Library:
    """One TensorRT library.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx", as the caller asked for it.
        trt: its Python module.
        creators: what makes a user's plugins for it, by name and version.
    """

    name: str
    trt: Any
    creators: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    _operators: dict[str, bool] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def parser_version(self) -> str:
        return str(self.trt.get_nv_onnx_parser_version()) if hasattr(self.trt, "get_nv_onnx_parser_version") else ""

    @property
    def is_rtx(self) -> bool:
        """RTX builds for a list of compute capabilities without their GPUs; nothing else can."""
        return hasattr(self.trt.IBuilderConfig, "set_compute_capability")

    @property
    def label(self) -> str:
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"

    def flag(self, name: str) -> Any:
        """The builder flag of this name, None if this library has none."""
        return getattr(self.trt.BuilderFlag, name, None)

    def new_builder(self, log: Log) -> Any:
        """The library's builder; EngineMissing where it has none for this machine's GPU."""
        return self._new("Builder", log)

    def new_runtime(self, log: Log) -> Any:
        """What loads plans; EngineMissing where the library cannot."""
        return self._new("Runtime", log)

    def _new(self, kind: str, log: Log) -> Any:
        try:
            return getattr(self.trt, kind)(log.logger)
        except TypeError as error:  # what its bindings say where the library gives nothing; the log has the reason
            said = "; ".join(" ".join(text.split()) for text in log.take_errors()) or str(error)
            raise EngineMissing(
                f"{self.label} has no {kind.lower()} for this machine: {said}; install all of its libraries (there is "
                f"one for each GPU architecture): {_REMEDIES[self.name]}"
            ) from None

    def has_operator(self, op_type: str) -> bool:
        """Whether the library's ONNX parser knows an operator: asked once, for all of them, of the parser itself."""
        with self._lock:
            if not self._operators:
                log = Log(self)
                builder = self.new_builder(log)
                network = new_network(self, builder)
                parser = self.trt.OnnxParser(network, log.logger)
                names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
                self._operators.update((name, bool(parser.supports_operator(name))) for name in sorted(names))
                del parser, network, builder
            return self._operators.get(op_type, False)

    @functools.cached_property
    def shipped_plugins(self) -> frozenset[str]:
        """The names of the plugins that come with the library; once asked for, its parser finds them."""
        if hasattr(self.trt, "init_libnvinfer_plugins"):
            self.trt.init_libnvinfer_plugins(Log(self).logger, "")
        return frozenset(str(creator.name) for creator in self.trt.get_plugin_registry().all_creators)

    def lacks_plugin(self, op_type: str) -> str | None:
        """Why an operator that the parser builds from a shipped plugin cannot be built, or None."""
        name = FROM_PLUGINS.get(op_type)
        if not name or name in self.shipped_plugins:
            return None
        return f"{self.label} builds {op_type} from its plugin {name}, which is not there"

    @property
    def takes_plugins(self) -> bool:
        """Whether plugins can be written for it in Python."""
        return hasattr(self.trt, "IPluginCreatorV3One") and hasattr(self.trt.INetworkDefinition, "add_plugin_v3")


@functools.cache
def find(name: str) -> Library:
    """The library of this name.

    Raises:
        EngineMissing: it cannot be imported.
    """
    problems = []
    for module in _MODULES[name]:
        try:
            trt = importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a missing package, or one whose shared libraries cannot be loaded
            problems.append(f"{module}: {_first_line(error)}")
        else:
            if hasattr(trt, "Builder"):
                return Library(name, trt)
            problems.append(f"{module}: has no Builder")
    raise EngineMissing(f"engine {name!r} cannot be imported ({'; '.join(problems)}); {_REMEDIES[name]}")


def open_device(ordinal: int = 0) -> memory.Cuda:
    """The GPU; replaced in tests by a double."""
    return memory.open_device(ordinal)


class Log:
    """Keeps what TensorRT logs, so that a failure can say why; errors and warnings never go to the terminal.

    A message belongs to the thread that caused it only by chance (builders have their own threads), so one ``Log``
    serves one build or one engine.
    """

    def __init__(self, library: Library, listener: Callable[[str, str], None] | None = None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.logger = _logger_type(library.trt)(self._take, listener)
        _LOGGERS.append(self.logger)

    def _take(self, severity: str, message: str) -> None:
        if severity in ("INTERNAL_ERROR", "ERROR"):
            self.errors.append(message)
            del self.errors[:-50]
        elif severity == "WARNING":
            self.warnings.append(message)
            del self.warnings[:-50]

    def take_errors(self) -> list[str]:
        """The errors so far, which are then forgotten."""
        errors, self.errors = self.errors, []
        return errors


@functools.cache
def _logger_type(trt: Any) -> Any:
    """A logger class for this library; TensorRT asks for a subclass of its own."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self, take: Callable[[str, str], None], listener: Callable[[str, str], None] | None) -> None:
            trt.ILogger.__init__(self)
            self._take, self._listener = take, listener

        def log(self, severity: Any, message: str) -> None:
            name = str(severity).rpartition(".")[2]
            self._take(name, message)
            if self._listener is not None:
                self._listener(name, message)

    return Logger


def new_network(library: Library, builder: Any) -> Any:
    """An empty strongly typed network; TensorRT 11 and RTX know no other and ignore the flag."""
    flag = getattr(library.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def hand_over(
    model: ir.Model, from_bytes: Callable[[bytes, str | None], Any], from_file: Callable[[str], Any]
) -> tuple[bool, bytes | str]:
    """Give a model to one of the library's parsers: as bytes, or as a file where it is too large for a message.

    Args:
        model: typed ONNX.
        from_bytes: takes the bytes and, where constants lie in files, the path of a model beside them.
        from_file: takes a path.

    Returns:
        Whether the parser took it, and what it was given: constants are read from there until the build is done.
    """
    payload, folder = serialise(model)
    if isinstance(payload, str):
        return bool(from_file(payload)), payload
    return bool(from_bytes(payload, os.path.join(folder, "model.onnx") if folder else None)), payload


def load_plugins(registry: Any, paths: Iterable[str], log: Log) -> None:
    """Load plugin libraries; BuildError, with the path, for one that cannot be loaded."""
    for path in paths:
        try:
            loaded = registry.load_library(os.path.abspath(path)) if os.path.exists(path) else None
        except Exception as error:  # noqa: BLE001 - pybind's own exceptions have no common base
            raise BuildError(f"plugins: {path} cannot be loaded: {error}") from None
        if loaded is None:
            raise BuildError(f"plugins: {path} cannot be loaded: {'; '.join(log.take_errors()) or 'no such file'}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
