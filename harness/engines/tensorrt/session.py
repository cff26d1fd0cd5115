"""Running a plan: contexts, memory, CUDA graphs and threads.

A *lane* is an execution context with a stream and its own memory: what one run needs. Runs from several threads take
free lanes, or wait for one; a new lane is made while there are fewer than ``contexts``. A lane whose last shapes were
the same is taken first, because its CUDA graph can be launched again. TensorRT wants one context per captured graph,
so a lane keeps one graph, made when the same shapes and addresses come a second time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ExecutionError, InputError
from ...graph import BFLOAT16
from ..memory import (
    Cuda,
    CudaError,
    shared_scratch,
)
from . import options as opts
from .inspection import Layer, LayerTime, describe_layers, layer_times
from .lane import Lane, Pending, Tensor, shapes_of
from .library import Library, Log
from .profiles import Ranges, Shape

Array = npt.NDArray[Any]
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32), "HALF": np.dtype(np.float16), "BF16": BFLOAT16, "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32), "INT64": np.dtype(np.int64), "BOOL": np.dtype(np.bool_), "UINT8": np.dtype(np.uint8),
}  # fmt: skip


class TensorRTSession:
    """A plan that is ready to run; see :class:`~harness.engines.base.Session`. Safe between threads.

    Args:
        library: the library that built the plan.
        cuda: the GPU.
        engine: the deserialized plan.
        name: the part's name, for messages.
        names: the inputs and outputs in the model's order.
        profiles: the ranges of the dynamic axes.
        options: the engine's options.
        log: where the library reports to.
        outcome: how the plan was come by, as the plan cache says it.
        nodes: the ONNX nodes' names, by which layers are traced back.
        keep: what the engine reads from: the runtime and the plan; and what ``plan_bytes`` puts before the plan.
    """

    accepts_device_arrays = True

    def __init__(
        self,
        library: Library,
        cuda: Cuda,
        engine: Any,
        name: str,
        names: tuple[Sequence[str], Sequence[str]],
        profiles: Sequence[Ranges],
        options: Mapping[str, Any],
        log: Log,
        outcome: str = "",
        nodes: Sequence[str] = (),
        keep: tuple[Any, Any, bytes] = (None, b"", b""),
    ) -> None:
        self.library, self.cuda, self.engine, self.name = library, cuda, engine, name
        self.profiles, self.log, self.outcome = list(profiles), log, outcome
        self.inputs = [self._tensor(n) for n in names[0]]
        self.outputs = [self._tensor(n) for n in names[1]]
        self.input_names, self.output_names = list(names[0]), list(names[1])
        self.cuda_graphs: bool = opts.value_of(options, "cuda_graphs")
        self._scratch = shared_scratch(cuda) if opts.value_of(options, "scratch") == "shared" else None
        self._limit: int = opts.value_of(options, "contexts")
        self._nodes, self._keep = tuple(nodes), keep
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._change = threading.Condition()
        self._closed = False
        self._give(self._new_lane())  # so that a GPU without enough memory is noticed now

    def _tensor(self, name: str) -> Tensor:
        kind = str(self.engine.get_tensor_dtype(name)).rpartition(".")[2]
        if kind not in _DTYPES:
            raise ExecutionError(
                f"{self.library.label}: {name!r} of part {self.name} has the type {kind}, unknown here"
            )
        return Tensor(name, _DTYPES[kind])

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Fresh host arrays. Inputs are host arrays, or arrays on the GPU, which are read in place.

        Raises:
            InputError: a shape is outside the profiles.
            ExecutionError: TensorRT or CUDA failed; the session stays usable where CUDA does.
        """
        with self._guard(), self._lane(inputs) as lane:
            return lane.run(inputs)

    def enqueue(
        self, inputs: Sequence[Any], outputs: Sequence[Any] | None = None, stream: int | None = None
    ) -> Pending:
        """Start a run and return at once.

        Args:
            inputs: as ``run``; host arrays are copied before this returns.
            outputs: contiguous arrays on the GPU to write to, of the right types and shapes; None makes new ones.
            stream: a CUDA stream's handle, on which the run is enqueued; without one it has its own, which waits for
                what the inputs say they wait for.

        Raises:
            InputError: a shape is outside the profiles, or an output does not fit.
            ExecutionError: TensorRT or CUDA refused the run.
        """
        with self._guard(), self._lane(inputs) as lane:
            return lane.enqueue(inputs, outputs, stream)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Errors that name the part, and TensorRT's own words with them."""
        if self._closed:
            raise ExecutionError(f"part {self.name} has been closed; compile the model again")
        self.cuda.use()
        try:
            yield
        except InputError as error:
            raise InputError(f"part {self.name}: {error}") from None
        except ExecutionError as error:
            said = "; ".join(" ".join(text.split()) for text in self.log.take_errors()[-3:])
            text = f"{self.library.label} failed in part {self.name}: {error}" + (f" ({said})" if said else "")
            if isinstance(error, CudaError):
                raise CudaError(error.code, text) from None
            raise ExecutionError(text) from None

    # --- lanes -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lane(self, inputs: Sequence[Any]) -> Iterator[Lane]:
        lane = self._take(shapes_of(inputs))
        try:
            yield lane
        finally:
            self._give(lane)

    def _take(self, shapes: list[Shape]) -> Lane:
        with self._change:
            while True:
                lane = self._pick(shapes)
                if lane is not None:
                    return lane
                self._change.wait()

    def _pick(self, shapes: list[Shape]) -> Lane | None:
        """A free lane of these shapes, else a fresh one, else a new one, else the one given back longest ago."""
        for wanted in (shapes, []):
            for lane in self._free:
                if lane.shapes == wanted:
                    self._free.remove(lane)
                    return lane
        if len(self._lanes) < self._limit:
            try:
                return self._new_lane()
            except CudaError:
                if not self._lanes:
                    raise
                self._limit = len(self._lanes)  # no memory for one more: those that there are must do
        return self._free.pop(0) if self._free else None

    def _new_lane(self) -> Lane:
        lane = Lane(self, self._scratch)
        self._lanes.append(lane)
        return lane

    def _give(self, lane: Lane) -> None:
        with self._change:
            self._free.append(lane)
            self._change.notify()

    # --- looking in --------------------------------------------------------------------------------------------------

    def layers(self) -> list[Layer]:
        """The layers of the plan, each with the MXNet nodes in it; all there is needs ``profiling="detailed"``."""
        return describe_layers(self.library.trt, self.engine, self._nodes)

    def profile(self, inputs: Sequence[Any], runs: int = 10) -> list[LayerTime]:
        """Milliseconds a run spends in each layer, measured by TensorRT's own profiler.

        The sum is above the time of a run without a profiler: layers no longer overlap.
        """
        with self._guard(), self._lane(inputs) as lane:
            return layer_times(lane.measure(inputs, runs), runs, self._nodes)

    def plan_bytes(self) -> bytes:
        """The plan with the key of what it was built from: what the engine's ``load_plan`` takes."""
        _, plan, head = self._keep
        return head + bytes(plan)

    @property
    def device_memory(self) -> int:
        """Bytes of GPU memory that one context needs for activations."""
        return _memory_size(self.engine)

    def close(self) -> None:
        """Free the GPU's memory now; runs under way are awaited."""
        with self._change:
            self._closed = True
            while len(self._free) < len(self._lanes):
                self._change.wait()
            self.cuda.use()
            for lane in self._lanes:
                lane.release()
            self._lanes, self._free = [], []
            self.engine, self._keep = None, (None, b"", b"")


def _memory_size(engine: Any) -> int:
    return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)


def open_plan(
    library: Library,
    cuda: Cuda,
    plan: Any,
    log: Log,
    options: Mapping[str, Any],
) -> tuple[Any, Any]:
    """(runtime, engine) of a plan's bytes; the engine is None if the library refuses them."""
    from .build import load_plugins

    cuda.use()
    runtime = library.trt.Runtime(log.logger)
    load_plugins(library, runtime.get_plugin_registry(), opts.value_of(options, "plugins"), log)
    if opts.value_of(options, "version_compatible"):
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    budget = opts.value_of(options, "weight_streaming_budget")
    if engine is not None and budget is not None:
        engine.weight_streaming_budget_v2 = min(budget, engine.streamable_weights_size)
    return runtime, engine
