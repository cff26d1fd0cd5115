"""A plan on a GPU: what everything that runs it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ExecutionError
from ..memory import Cuda
from . import options as opts
from .library import DTYPES, Library, Log, load_plugins
from .profiles import Ranges


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a plan."""

    name: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A plan that has been loaded.

    Attributes:
        library: the library that built the plan.
        cuda: the GPU.
        engine: the library's own object.
        name: the part's name, for messages.
        inputs, outputs: in the model's order.
        profiles: the ranges of the dynamic axes.
        log: where the library reports to.
        cuda_graphs: whether runs may be captured as CUDA graphs.
        has_plugins: whether some of its layers are a user's plugins.
        keep: what the engine reads from: the runtime and the plan's bytes.
    """

    library: Library
    cuda: Cuda
    engine: Any
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    profiles: tuple[Ranges, ...]
    log: Log
    cuda_graphs: bool
    has_plugins: bool
    keep: tuple[Any, Any]

    @property
    def device_memory(self) -> int:
        """Bytes of GPU memory that one context needs for activations."""
        engine = self.engine
        return int(
            engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        )


def load(
    library: Library,
    cuda: Cuda,
    plan: Any,
    name: str,
    names: tuple[Sequence[str], Sequence[str]],
    profiles: Sequence[Ranges],
    options: Mapping[str, Any],
    has_plugins: bool = False,
) -> Loaded | None:
    """A plan's bytes on the GPU; None if the library refuses them.

    Args:
        library: what built the plan.
        cuda: the GPU.
        plan: the bytes, which must outlive what is loaded.
        name: the part's name, for messages.
        names: the names of the inputs and of the outputs, in the model's order.
        profiles: the ranges of the dynamic axes that it was built for.
        options: the engine's options.
        has_plugins: whether some of its layers are a user's plugins.

    Raises:
        BuildError: a plugin library cannot be loaded.
        ExecutionError: an input or output has a type that is not known here.
    """
    log = Log(library)
    cuda.use()
    runtime = library.new_runtime(log)
    load_plugins(runtime.get_plugin_registry(), opts.value_of(options, "plugins"), log)
    if opts.value_of(options, "version_compatible"):
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    budget = opts.value_of(options, "weight_streaming_budget")
    if budget is not None:
        engine.weight_streaming_budget_v2 = min(budget, engine.streamable_weights_size)

    def tensor(of: str) -> Tensor:
        kind = str(engine.get_tensor_dtype(of)).rpartition(".")[2]
        if kind not in DTYPES:
            raise ExecutionError(f"{library.label}: {of!r} of part {name} has the type {kind}, unknown here")
        return Tensor(of, DTYPES[kind])

    inputs, outputs = (tuple(map(tensor, group)) for group in names)
    graphs: bool = opts.value_of(options, "cuda_graphs")
    return Loaded(
        library, cuda, engine, name, inputs, outputs, tuple(profiles), log, graphs, has_plugins, (runtime, plan)
    )
