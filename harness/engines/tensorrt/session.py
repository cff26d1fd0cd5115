"""Running a plan: contexts, memory, CUDA graphs and threads.

A *lane* is an execution context with a stream and its own memory: what one run needs. Runs from several threads take
free lanes, or wait for one; a new lane is made while there are fewer than ``contexts``. A lane whose last shapes were
the same is taken first, because its CUDA graph can be launched again. TensorRT wants one context per captured graph,
so a lane keeps one graph, made when the same shapes and addresses come a second time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from ...errors import ExecutionError, InputError
from ..layers import Layer, LayerTime, Owners
from ..memory import CudaError, shared_scratch
from .inspection import describe_layers, layer_times
from .lane import Lane, shapes_of
from .loaded import Loaded
from .pending import Pending
from .profiles import Shape

Array = npt.NDArray[Any]


class TensorRTSession:
    """A plan that is ready to run; see :class:`~harness.engines.base.Session`. Safe between threads.

    Args:
        loaded: the plan on the GPU.
        contexts: how many runs may be under way at once.
        share_scratch: whether activations lie in the memory that all engines of the device share.
        outcome: how the plan was come by, as the plan cache says it.
        owners: the ONNX nodes and whose they are, by which layers are traced back.
        head: what ``plan_bytes`` puts before the plan.
    """

    accepts_device_arrays = True

    def __init__(
        self,
        loaded: Loaded,
        contexts: int = 2,
        share_scratch: bool = False,
        outcome: str = "",
        owners: Owners | None = None,
        head: bytes = b"",
    ) -> None:
        self.loaded: Loaded | None = loaded
        self.library, self.cuda, self.engine, self.name = loaded.library, loaded.cuda, loaded.engine, loaded.name
        self.inputs, self.outputs, self.profiles = loaded.inputs, loaded.outputs, loaded.profiles
        self.input_names, self.output_names = [t.name for t in loaded.inputs], [t.name for t in loaded.outputs]
        self.outcome = outcome
        self._scratch = shared_scratch(loaded.cuda) if share_scratch else None
        self._limit = contexts
        self._owners, self._head = dict(owners or {}), head
        self._lanes: list[Lane] = []  # those that were given back longest ago first
        self._change = threading.Condition()
        self._give(self._new_lane(loaded))  # so that a GPU without enough memory is noticed now

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Fresh host arrays. Inputs are host arrays, or arrays on the GPU, which are read in place.

        Raises:
            InputError: a shape is outside the profiles.
            ExecutionError: TensorRT or CUDA failed; the session stays usable where CUDA does.
        """
        with self._lane(inputs) as lane:
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
        with self._lane(inputs) as lane:
            return lane.enqueue(inputs, outputs, stream)

    def _opened(self) -> Loaded:
        if self.loaded is None:
            raise ExecutionError(f"part {self.name} has been closed; compile the model again")
        return self.loaded

    # --- lanes -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lane(self, inputs: Sequence[Any]) -> Iterator[Lane]:
        """A lane for one run; errors name the part, with TensorRT's own words."""
        loaded = self._opened()
        loaded.cuda.use()
        try:
            lane = self._take(loaded, shapes_of(inputs))
            try:
                yield lane
            finally:
                self._give(lane)
        except InputError as error:
            raise InputError(f"part {self.name}: {error}") from None
        except ExecutionError as error:
            said = "; ".join(" ".join(text.split()) for text in loaded.log.take_errors()[-3:])
            text = f"{self.library.label} failed in part {self.name}: {error}" + (f" ({said})" if said else "")
            if isinstance(error, CudaError):
                raise CudaError(error.code, text) from None
            raise ExecutionError(text) from None

    def _take(self, loaded: Loaded, shapes: list[Shape]) -> Lane:
        with self._change:
            while True:
                lane = self._pick(loaded, shapes)
                if lane is not None:
                    return lane
                self._change.wait()

    def _pick(self, loaded: Loaded, shapes: list[Shape]) -> Lane | None:
        """A free lane of these shapes, else a fresh one, else a new one, else the one given back longest ago.

        A lane that this thread seems to hold already was lost where an interruption (Ctrl-C) fell between two
        statements: it is free.
        """
        me = threading.get_ident()
        free = [lane for lane in self._lanes if lane.owner in (0, me)]
        lane = next((lane for wanted in (shapes, []) for lane in free if lane.shapes == wanted), None)
        if lane is None and len(self._lanes) < self._limit:
            try:
                lane = self._new_lane(loaded)
            except CudaError:
                if not self._lanes:
                    raise
                self._limit = len(self._lanes)  # no memory for one more: those that there are must do
        lane = lane or (free[0] if free else None)
        if lane is not None:
            lane.owner = me
        return lane

    def _new_lane(self, loaded: Loaded) -> Lane:
        lane = Lane(loaded, self._scratch)
        self._lanes.append(lane)
        return lane

    def _give(self, lane: Lane) -> None:
        with self._change:
            lane.owner = 0
            if len(self._lanes) > 1:
                self._lanes.remove(lane)
                self._lanes.append(lane)
            self._change.notify()

    # --- looking in --------------------------------------------------------------------------------------------------

    def layers(self) -> list[Layer]:
        """The layers of the plan, each with the MXNet nodes in it; all there is needs ``profiling="detailed"``."""
        return describe_layers(self.library.trt, self._opened().engine, self._owners)

    def profile(self, inputs: Sequence[Any], runs: int = 10) -> list[LayerTime]:
        """Milliseconds a run spends in each layer, measured by TensorRT's own profiler.

        The sum is above the time of a run without a profiler: layers no longer overlap.
        """
        with self._lane(inputs) as lane:
            return layer_times(lane.measure(inputs, runs), runs, self._owners)

    def plan_bytes(self) -> bytes:
        """The plan with the key of what it was built from: what the engine's ``load_plan`` takes."""
        return self._head + bytes(self._opened().keep[1])

    @property
    def device_memory(self) -> int:
        """Bytes of GPU memory that one context needs for activations."""
        return self.loaded.device_memory if self.loaded is not None else 0

    def close(self) -> None:
        """Free the GPU's memory now; runs under way are awaited."""
        with self._change:
            self.loaded = None
            me = threading.get_ident()
            while any(lane.owner not in (0, me) for lane in self._lanes):
                self._change.wait()
            self.cuda.use()
            for lane in self._lanes:
                lane.release()
            self._lanes, self.engine = [], None
