"""A lane: what one run of a plan needs, and how it runs. See :mod:`.session`, which hands lanes out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ExecutionError, InputError
from ..memory import CudaError, DeviceArray, Event, Scratch
from .inspection import make_profiler
from .loaded import Loaded, Tensor
from .pending import Pending, copy_out
from .plugins import check_run
from .profiles import Shape, choose
from .staging import OutputAllocator, Slot, Staging, make_allocator

Array = npt.NDArray[Any]


def shapes_of(inputs: Sequence[Any]) -> list[Shape]:
    return [tuple(map(int, value.shape)) for value in inputs]


@dataclass(slots=True, eq=False)
class Lane:
    """An execution context with a stream and its own memory. Used by one thread at a time.

    Attributes:
        owner: the thread that uses it, 0 if none does.
        graph: the CUDA graph of the run with the addresses ``graph_key``, 0 if there is none.
        graph_problem: why this plan cannot be captured, "" if nothing is known against it.
    """

    loaded: Loaded
    scratch: Scratch | None
    owner: int = 0
    context: Any = None
    stream: int = 0
    shapes: list[Shape] = field(default_factory=list)
    profile: int = 0
    graph: int = 0
    graph_key: tuple[int, ...] = ()
    graph_problem: str = ""
    _seen: tuple[int, ...] = ()
    _bound: tuple[int, ...] = ()
    _staging: Staging = field(init=False)
    _allocators: dict[str, OutputAllocator] = field(default_factory=dict)
    _busy: Event | None = None  # behind the last enqueued run, which has it too
    _busy_on: int | None = None  # the stream of an enqueued run that may not have ended
    _scratch_size: int = 0
    _scratch_bound: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._staging = Staging(self.loaded)
        try:
            self.stream = self.loaded.cuda.create_stream()
            self.context = self._create_context()
        except BaseException:
            self.release()
            raise

    def _create_context(self) -> Any:
        loaded = self.loaded
        strategies = loaded.library.trt.ExecutionContextAllocationStrategy
        strategy = strategies.USER_MANAGED if self.scratch is not None else strategies.STATIC
        context = loaded.engine.create_execution_context(strategy)
        if context is None:
            said = "; ".join(loaded.log.take_errors()) or "no reason given"
            raise CudaError(
                "CUDA_ERROR_OUT_OF_MEMORY",
                f"no execution context for part {loaded.name}: {said}; {loaded.cuda.free_memory()} bytes of GPU memory "
                f"are free, the plan needs {loaded.device_memory}: use a smaller profile or scratch='shared'",
            )
        return context

    # --- one run -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Copy in, run, copy out, wait."""
        stream, staging = self.stream, self._staging
        try:
            self._follow(stream)
            self._prepare(shapes_of(inputs))
            addresses = staging.stage(inputs, stream, self._await_copies)
            addresses += [slot.device.address for slot in staging.outputs]
            self._launch(addresses, stream)
            if self._allocators:
                return self._collect_unknown()
            staging.copy_out(stream)
            self.loaded.cuda.synchronize(stream)
        except InputError:
            raise
        except BaseException:
            self._forget(stream)
            raise
        self._busy_on = None
        return [np.array(slot.view) for slot in staging.outputs]

    def enqueue(self, inputs: Sequence[Any], outputs: Sequence[Any] | None, stream: int | None) -> Pending:
        """Bind the caller's arrays, start the run, and note an event behind it."""
        cuda = self.loaded.cuda
        on = self.stream if stream is None else stream
        try:
            self._follow(on)
            self._prepare(shapes_of(inputs))
            if self._allocators:
                names = ", ".join(self._allocators)
                raise InputError(f"the shape of {names} depends on data; enqueue cannot give it out, call run")
            results = self._staging.results(outputs, on)
            addresses = self._staging.stage(inputs, on, self._await_copies)
            self._launch(addresses + [array.address for array in results], on)
            event = Event(cuda)
            cuda.record(event.handle, on)
        except InputError:
            raise
        except BaseException:
            self._forget(on)
            raise
        self._busy, self._busy_on = event, on
        for array in results:
            array.stream = on
        return Pending(results, cuda, event, inputs)

    def _follow(self, stream: int) -> None:
        """After an ``enqueue``: let its run end before this lane's context and memory are used on another stream."""
        if self._busy is not None and self._busy_on not in (None, stream):
            self.loaded.cuda.wait(stream, self._busy.handle)

    def _await_copies(self) -> None:
        """The pinned memory of an enqueued run must not be written before its copy has been read."""
        if self._busy is not None and self._busy_on is not None:
            self.loaded.cuda.synchronize_event(self._busy.handle)
            self._busy_on = None

    def measure(self, inputs: Sequence[Any], runs: int) -> dict[str, float]:
        """Milliseconds in each layer, summed over some runs outside any graph."""
        cuda, stream, trt = self.loaded.cuda, self.stream, self.loaded.library.trt
        try:
            self._follow(stream)
            self._prepare(shapes_of(inputs))
            addresses = self._staging.stage(inputs, stream, self._await_copies)
            addresses += [slot.device.address for slot in self._staging.outputs]
            warm_up, profiler = make_profiler(trt), make_profiler(trt)
            for run in range(runs + 1):
                self.context.profiler = profiler if run else warm_up  # the first run loads kernels
                with self._scratch_block(stream) as scratch:
                    self._bind_scratch(scratch)
                    self._enqueue(addresses, stream)
                cuda.synchronize(stream)
        finally:
            self._forget(stream)
            self._renew_context()  # a profiler cannot be taken off a context
        return dict(profiler.milliseconds)

    # --- shapes ------------------------------------------------------------------------------------------------------

    def _prepare(self, shapes: list[Shape]) -> None:
        """Tell the context the input shapes, and make memory for them and for the outputs."""
        if shapes == self.shapes:
            return
        loaded, staging = self.loaded, self._staging
        self._drop_graph()
        self._await_copies()
        self.shapes = []
        if self.context is None:  # a new one could not be made after a measurement
            self._renew_context()
        named = {tensor.name: shape for tensor, shape in zip(loaded.inputs, shapes)}
        if loaded.profiles:
            self._select(choose(loaded.profiles, named))
        for name, shape in named.items():
            if not self.context.set_input_shape(name, shape):
                raise InputError(
                    f"input {name!r}: TensorRT refuses the shape {shape}; it was built for {self._built(name)}"
                )
        missing = self.context.infer_shapes()
        if missing:
            raise ExecutionError(f"the shapes of {', '.join(missing)} are not known")
        for slot, tensor, shape in zip(staging.inputs, loaded.inputs, shapes):
            staging.reserve(slot, tensor, shape)
        for slot, tensor in zip(staging.outputs, loaded.outputs):
            self._prepare_output(slot, tensor)
        if self.scratch is not None:
            self._scratch_size = self._needed_scratch()
        self.shapes = shapes

    def _select(self, profile: int) -> None:
        if profile == self.profile:
            return
        if not self.context.set_optimization_profile_async(profile, self.stream):
            raise ExecutionError(f"TensorRT refuses to switch to profile {profile}")
        self.loaded.cuda.synchronize(self.stream)
        self.profile = profile
        self._bound = ()

    def _built(self, name: str) -> str:
        engine = self.loaded.engine
        low, _, high = engine.get_tensor_profile_shape(name, self.profile)
        return f"{tuple(low)} to {tuple(high)}"

    def _prepare_output(self, slot: Slot, tensor: Tensor) -> None:
        shape = tuple(int(size) for size in self.context.get_tensor_shape(tensor.name))
        if any(size < 0 for size in shape):  # the run will tell: TensorRT then asks for memory itself
            allocator = self._allocators.get(tensor.name)
            if allocator is None:
                allocator = self._allocators[tensor.name] = make_allocator(self.loaded.library.trt, slot.device)
            if not self.context.set_output_allocator(tensor.name, allocator):
                raise ExecutionError(f"TensorRT refuses an output allocator for {tensor.name!r}")
            slot.device.reserve(max(int(self.context.get_max_output_size(tensor.name)), 1))
            return
        self._staging.reserve(slot, tensor, shape)

    def _needed_scratch(self) -> int:
        if hasattr(self.context, "update_device_memory_size_for_shapes"):
            return int(self.context.update_device_memory_size_for_shapes())
        return self.loaded.device_memory

    # --- launching ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _scratch_block(self, stream: int) -> Iterator[int]:
        """The address of the activations' memory for one run; 0 where the context has its own."""
        if self.scratch is None:
            yield 0
            return
        with self.scratch.lease(self._scratch_size, stream) as block:
            yield block.address

    def _bind_scratch(self, address: int) -> None:
        if address and self._scratch_bound != (address, self._scratch_size):
            self.context.set_device_memory(address, self._scratch_size)
            self._scratch_bound = (address, self._scratch_size)

    def _launch(self, addresses: list[int], stream: int) -> None:
        with self._scratch_block(stream) as scratch:
            key = (*addresses, scratch)
            if self.graph and key == self.graph_key:
                self.loaded.cuda.launch(self.graph, stream)
                return
            self._bind_scratch(scratch)
            if key == self._seen and self._may_capture() and self._capture(key, addresses):
                self.loaded.cuda.launch(self.graph, stream)
                return
            self._enqueue(addresses, stream)
            self._seen = key

    def _enqueue(self, addresses: Sequence[int], stream: int) -> None:
        tensors = (*self.loaded.inputs, *self.loaded.outputs)
        for position, (tensor, address) in enumerate(zip(tensors, addresses)):
            if tensor.name in self._allocators or self._bound[position : position + 1] == (address,):
                continue
            if not self.context.set_tensor_address(tensor.name, address):
                raise ExecutionError(f"TensorRT refuses the address of {tensor.name!r}")
        self._bound = tuple(addresses)
        done = self.context.execute_async_v3(stream)
        if self.loaded.has_plugins:
            check_run()
        if not done:
            raise ExecutionError("the run could not be enqueued")

    def _may_capture(self) -> bool:
        return self.loaded.cuda_graphs and not self._allocators and not self.graph_problem

    def _capture(self, key: tuple[int, ...], addresses: Sequence[int]) -> bool:
        """Record the run as a CUDA graph; a plan that cannot be captured is enqueued from then on.

        TensorRT asks for one ordinary run with these shapes before; the second time a key is seen, that has happened.
        """
        cuda = self.loaded.cuda
        self._drop_graph()
        cuda.synchronize(self.stream)
        cuda.begin_capture(self.stream)
        graph, problem = 0, "it was interrupted"
        try:
            self._enqueue(addresses, self.stream)
            problem = ""
        except ExecutionError as error:
            problem = str(error)
        finally:  # also after an interruption: a stream that stays in capture is of no use
            try:
                graph = cuda.end_capture(self.stream)
            except CudaError as error:
                problem = problem or str(error)
            if graph and problem:
                cuda.destroy_graph(graph)
        self.graph_problem = problem
        if not problem:
            self.graph, self.graph_key = graph, key
        self.loaded.log.take_errors()
        return not problem

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def _collect_unknown(self) -> list[Array]:
        """Outputs whose shapes the run has told."""
        cuda = self.loaded.cuda
        cuda.synchronize(self.stream)
        self._busy_on = None
        results = []
        for slot, tensor in zip(self._staging.outputs, self.loaded.outputs):
            allocator = self._allocators.get(tensor.name)
            shape = slot.shape if allocator is None else allocator.shape
            results.append(copy_out(cuda, DeviceArray(slot.device.address, shape, tensor.dtype, stream=self.stream)))
        return results

    def _drop_graph(self) -> None:
        graph, self.graph, self.graph_key, self._seen = self.graph, 0, (), ()
        if graph:
            self.loaded.cuda.synchronize(self.stream)
            self.loaded.cuda.destroy_graph(graph)

    def _renew_context(self) -> None:
        self._drop_graph()
        self.context = None
        self.shapes, self._bound, self._scratch_bound, self.profile = [], (), (0, 0), 0
        self.context = self._create_context()

    def _forget(self, stream: int) -> None:
        """After a failure or an interruption: nothing is under way, and the next run sets everything anew."""
        self._bound = self._seen = ()
        self.shapes = []
        for one in {stream, self.stream}:
            with contextlib.suppress(CudaError):
                self.loaded.cuda.synchronize(one)
        self._busy_on = None
        with contextlib.suppress(CudaError):
            self._drop_graph()

    def release(self) -> None:
        """Free everything; the lane is not used again."""
        cuda = self.loaded.cuda
        with contextlib.suppress(CudaError):
            self._drop_graph()
        self.context = None
        self._staging.release()
        self._busy = None
        stream, self.stream = self.stream, 0
        if stream:
            cuda.destroy_stream(stream)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            self.loaded.cuda.use()
            self.release()
