"""What an engine is: it says what it cannot run, builds a model, and runs what it built."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt
import onnx_ir as ir

from ..errors import EngineMissing, OptionError
from ..operators.context import Fragment

Array = npt.NDArray[Any]
Range = tuple[int, int, int]  # smallest, best, largest size
Profile = Mapping[str, Mapping[int, Range]]  # input -> axis -> range, for the dynamic axes


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Everything that decides what is built.

    Attributes:
        name: the segment's name, for messages.
        model: typed ONNX; precision is in its types.
        profile: the ranges of the dynamic axes of its inputs.
        options: the engine's own options, checked by ``Engine.options``.
        cache_dir: where plans are kept, or None for the default place.
        precision: what was asked for; the model's types hold it but for "tf32", which lets float32 run in TF32.
    """

    name: str
    model: ir.Model
    profile: Profile = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    cache_dir: str | None = None
    precision: str = "fp32"


class Session(Protocol):
    """A built model."""

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Fresh arrays, one per output of the model, in order."""
        ...


class Engine(Protocol):
    """One library that runs ONNX models."""

    name: str
    narrow_types: tuple[str, ...]  # of "fp16" and "bf16", those it has kernels for

    def check_options(self, options: Mapping[str, Any]) -> None:
        """OptionError, with the list of options, for one that is unknown or has an impossible value."""
        ...

    def refuse(self, fragment: Fragment) -> str | None:
        """Why the engine cannot run these nodes, or None if it can; cheap, before anything is built."""
        ...

    def build(self, request: BuildRequest) -> Session:
        """Build; BuildError if the engine refuses the model, EngineMissing if it is not there."""
        ...


_MODULES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt"}


@functools.cache
def get_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        OptionError: there is no such engine.
        EngineMissing: its library or its device is not there.
    """
    if name not in _MODULES:
        raise OptionError(f"engine: {name!r} is none of auto, {', '.join(_MODULES)}")
    module = importlib.import_module(f"{__package__}.{_MODULES[name]}")
    engine: Engine = module.create(name)
    return engine


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


def check_known(options: Mapping[str, Any], known: Mapping[str, str], engine: str) -> None:
    """OptionError for an option that is not in ``known`` (name -> what it does)."""
    for name in options:
        if name not in known:
            listing = "; ".join(f"{key}: {text}" for key, text in known.items())
            raise OptionError(f"{name!r} is not an option of the engine {engine}. Options: {listing}")
