"""A lane: what one run of a plan needs, and how it runs. See :mod:`.session`, which hands lanes out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import ExecutionError, InputError
from ..memory import (
    Cuda,
    CudaError,
    DeviceArray,
    DeviceBuffer,
    HostBuffer,
    Scratch,
    is_device_array,
    read_device_array,
)
from .inspection import make_profiler
from .profiles import Shape, choose

if TYPE_CHECKING:
    from .session import TensorRTSession

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the plan."""

    name: str
    dtype: np.dtype[Any]


@dataclass(slots=True, eq=False)
class Pending:
    """A run that has been enqueued. Its outputs lie on the GPU and hold their content once ``wait`` returns, or for
    work that comes later on the same stream. It keeps the inputs alive, and waits when it is dropped."""

    outputs: list[DeviceArray]
    _cuda: Cuda
    _event: int
    _inputs: Any

    def done(self) -> bool:
        """Whether the run has ended; never waits."""
        if not self._event:
            return True
        self._cuda.use()
        if not self._cuda.finished(self._event):
            return False
        self._close()
        return True

    def wait(self) -> list[DeviceArray]:
        """Wait for the run; its outputs. ExecutionError if it failed."""
        if self._event:
            self._cuda.use()
            try:
                self._cuda.synchronize_event(self._event)
            finally:
                self._close()
        return self.outputs

    def numpy(self) -> list[Array]:
        """The outputs copied to the host, after the run."""
        return [copy_out(self._cuda, array) for array in self.wait()]

    def _close(self) -> None:
        event, self._event, self._inputs = self._event, 0, None
        self._cuda.destroy_event(event)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # nobody is left to tell
            self.wait()


def shapes_of(inputs: Sequence[Any]) -> list[Shape]:
    return [tuple(map(int, value.shape)) for value in inputs]


@dataclass(slots=True, eq=False)
class Slot:
    """One input or output of a lane: its device memory, and the pinned host memory beside it."""

    device: DeviceBuffer
    host: HostBuffer | None = None
    shape: Shape = ()
    nbytes: int = 0
    view: Array | None = None  # the host memory as an array of the present shape


@dataclass(slots=True, eq=False)
class Lane:
    """What one run needs. Used by one thread at a time."""

    session: TensorRTSession
    scratch: Scratch | None
    context: Any = None
    stream: int = 0
    shapes: list[Shape] = field(default_factory=list)
    profile: int = 0
    graph: int = 0
    graph_key: tuple[int, ...] = ()
    graph_problem: str = ""
    _seen: tuple[int, ...] = ()
    _bound: tuple[int, ...] = ()
    _inputs: list[Slot] = field(default_factory=list)
    _outputs: list[Slot] = field(default_factory=list)
    _allocators: dict[str, Any] = field(default_factory=dict)
    _events: dict[str, int] = field(default_factory=dict)
    _scratch_size: int = 0
    _scratch_bound: tuple[int, int] = (0, 0)
    _busy_on: int | None = None  # the stream of an enqueued run that may not have ended

    def __post_init__(self) -> None:
        session, cuda = self.session, self.session.cuda
        self.stream = cuda.create_stream()
        try:
            self.context = self._create_context()
        except BaseException:
            self.release()
            raise
        self._inputs = [Slot(DeviceBuffer(cuda, 0)) for _ in session.inputs]
        self._outputs = [Slot(DeviceBuffer(cuda, 0)) for _ in session.outputs]

    def _create_context(self) -> Any:
        session = self.session
        strategies = session.library.trt.ExecutionContextAllocationStrategy
        strategy = strategies.USER_MANAGED if self.scratch is not None else strategies.STATIC
        context = session.engine.create_execution_context(strategy)
        if context is None:
            said = "; ".join(session.log.take_errors()) or "no reason given"
            raise CudaError(
                "CUDA_ERROR_OUT_OF_MEMORY",
                f"no execution context for part {session.name}: {said}; {session.cuda.free_memory()} bytes of GPU memory "
                f"are free, the plan needs {session.device_memory}: use a smaller profile or scratch='shared'",
            )
        return context

    # --- one run -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """Copy in, run, copy out, wait."""
        cuda, stream = self.session.cuda, self.stream
        try:
            self._follow(stream)
            self._prepare(shapes_of(inputs))
            addresses = self._stage(inputs, stream)
            addresses += [slot.device.address for slot in self._outputs]
            self._launch(addresses, stream)
            if self._allocators:
                return self._collect_unknown()
            for slot in self._outputs:
                if slot.nbytes:
                    cuda.copy_out(slot.host.address, slot.device.address, slot.nbytes, stream)  # type: ignore[union-attr]
            cuda.synchronize(stream)
        except ExecutionError:
            self._forget()
            raise
        self._busy_on = None
        return [np.array(slot.view) for slot in self._outputs]

    def enqueue(self, inputs: Sequence[Any], outputs: Sequence[Any] | None, stream: int | None) -> Pending:
        """Bind the caller's arrays, start the run, and note an event behind it."""
        cuda = self.session.cuda
        on = self.stream if stream is None else stream
        try:
            self._follow(on)
            self._prepare(shapes_of(inputs))
            if self._allocators:
                names = ", ".join(self._allocators)
                raise InputError(f"the shape of {names} depends on data; enqueue cannot give it out, call run")
            results = self._results(outputs, on)
            self._launch(self._stage(inputs, on) + [array.address for array in results], on)
            event = cuda.create_event()
            cuda.record(event, on)
            cuda.record(self._event("busy"), on)
        except ExecutionError:
            self._forget()
            raise
        self._busy_on = on
        for array in results:
            array.stream = on
        return Pending(results, cuda, event, inputs)

    def _follow(self, stream: int) -> None:
        """After an ``enqueue``: let its run end before this lane's context and memory are used on another stream."""
        if self._busy_on is not None and self._busy_on != stream:
            self.session.cuda.wait(stream, self._event("busy"))

    def _await_copies(self) -> None:
        """The pinned memory of an enqueued run must not be written before its copy has been read."""
        if self._busy_on is not None:
            self.session.cuda.synchronize_event(self._event("busy"))
            self._busy_on = None

    def measure(self, inputs: Sequence[Any], runs: int) -> dict[str, float]:
        """Milliseconds in each layer, summed over some runs outside any graph."""
        cuda, stream, trt = self.session.cuda, self.stream, self.session.library.trt
        self._follow(stream)
        self._prepare(shapes_of(inputs))
        addresses = self._stage(inputs, stream) + [slot.device.address for slot in self._outputs]
        warm_up, profiler = make_profiler(trt), make_profiler(trt)
        try:
            for run in range(runs + 1):
                self.context.profiler = profiler if run else warm_up  # the first run loads kernels
                with self._scratch_block(stream) as scratch:
                    self._bind_scratch(scratch)
                    self._enqueue(addresses, stream)
                cuda.synchronize(stream)
        finally:
            self._renew_context()  # a profiler cannot be taken off a context
        return dict(profiler.milliseconds)

    # --- shapes and memory -------------------------------------------------------------------------------------------

    def _prepare(self, shapes: list[Shape]) -> None:
        """Tell the context the input shapes, and make memory for them and for the outputs."""
        if shapes == self.shapes:
            return
        session = self.session
        self._drop_graph()
        self._await_copies()
        self.shapes = []
        named = {tensor.name: shape for tensor, shape in zip(session.inputs, shapes)}
        if session.profiles:
            self._select(choose(session.profiles, named))
        for name, shape in named.items():
            if not self.context.set_input_shape(name, shape):
                raise InputError(
                    f"input {name!r}: TensorRT refuses the shape {shape}; it was built for {self._built(name)}"
                )
        missing = self.context.infer_shapes()
        if missing:
            raise ExecutionError(f"the shapes of {', '.join(missing)} are not known")
        for slot, tensor, shape in zip(self._inputs, session.inputs, shapes):
            self._reserve(slot, tensor, shape)
        for slot, tensor in zip(self._outputs, session.outputs):
            self._prepare_output(slot, tensor)
        if self.scratch is not None:
            self._scratch_size = self._needed_scratch()
        self.shapes = shapes

    def _select(self, profile: int) -> None:
        if profile == self.profile:
            return
        if not self.context.set_optimization_profile_async(profile, self.stream):
            raise ExecutionError(f"TensorRT refuses to switch to profile {profile}")
        self.session.cuda.synchronize(self.stream)
        self.profile = profile
        self._bound = ()

    def _built(self, name: str) -> str:
        engine = self.session.engine
        low, _, high = engine.get_tensor_profile_shape(name, self.profile)
        return f"{tuple(low)} to {tuple(high)}"

    def _prepare_output(self, slot: Slot, tensor: Tensor) -> None:
        shape = tuple(int(size) for size in self.context.get_tensor_shape(tensor.name))
        if any(size < 0 for size in shape):  # the run will tell: TensorRT then asks for memory itself
            allocator = self._allocators.get(tensor.name)
            if allocator is None:
                allocator = self._allocators[tensor.name] = _make_allocator(self.session.library.trt, slot.device)
            if not self.context.set_output_allocator(tensor.name, allocator):
                raise ExecutionError(f"TensorRT refuses an output allocator for {tensor.name!r}")
            slot.device.reserve(max(int(self.context.get_max_output_size(tensor.name)), 1))
            return
        self._reserve(slot, tensor, shape)

    def _reserve(self, slot: Slot, tensor: Tensor, shape: Shape) -> None:
        slot.shape = shape
        slot.nbytes = int(np.prod(shape, dtype=np.int64)) * tensor.dtype.itemsize
        slot.device.reserve(slot.nbytes)
        if slot.host is None or slot.host.size < slot.nbytes:
            slot.host = HostBuffer(self.session.cuda, slot.nbytes)
        slot.view = slot.host.view(shape, tensor.dtype)

    def _needed_scratch(self) -> int:
        if hasattr(self.context, "update_device_memory_size_for_shapes"):
            return int(self.context.update_device_memory_size_for_shapes())
        return self.session.device_memory

    def _stage(self, inputs: Sequence[Any], stream: int) -> list[int]:
        """The device address of each input: its own if it lies there, else a copy's."""
        addresses = []
        cuda = self.session.cuda
        for slot, tensor, value in zip(self._inputs, self.session.inputs, inputs):
            if is_device_array(value):
                addresses.append(self._place(tensor, value, stream))
                continue
            if slot.nbytes:
                self._await_copies()
                np.copyto(slot.view, value, casting="no")  # type: ignore[arg-type]
                cuda.copy_in(slot.device.address, slot.host.address, slot.nbytes, stream)  # type: ignore[union-attr]
            addresses.append(slot.device.address)
        return addresses

    def _place(self, tensor: Tensor, value: Any, stream: int) -> int:
        array = read_device_array(tensor.name, value, stream)
        self._check_place(f"input {tensor.name!r}", array, tensor.dtype)
        if array.stream is not None and array.stream != stream:
            event = self._event("input")
            self.session.cuda.record(event, array.stream)
            self.session.cuda.wait(stream, event)
        return array.address

    def _check_place(self, what: str, array: DeviceArray, dtype: np.dtype[Any]) -> None:
        if array.dtype != dtype:
            raise InputError(f"{what}: the type is {array.dtype}, built for {dtype}; convert it first")
        if array.nbytes and not self.session.cuda.is_ours(array.address):
            raise InputError(
                f"{what} lies on another GPU, or in another CUDA context than {self.session.cuda.device.name} number "
                f"{self.session.cuda.device.ordinal}'s primary one; with PyCUDA use pycuda.autoprimaryctx"
            )

    def _results(self, outputs: Sequence[Any] | None, stream: int) -> list[DeviceArray]:
        tensors, cuda = self.session.outputs, self.session.cuda
        if outputs is None:
            made = []
            for tensor, slot in zip(tensors, self._outputs):
                buffer = DeviceBuffer(cuda, slot.nbytes)
                made.append(DeviceArray(buffer.address, slot.shape, tensor.dtype, buffer))
            return made
        if len(outputs) != len(tensors):
            raise InputError(f"{len(outputs)} output arrays are given, the part has {len(tensors)} outputs")
        given = []
        for tensor, slot, value in zip(tensors, self._outputs, outputs):
            if not is_device_array(value):
                raise InputError(f"output {tensor.name!r}: a {type(value).__name__} does not lie on the GPU")
            array = read_device_array(tensor.name, value, stream)
            self._check_place(f"output {tensor.name!r}", array, tensor.dtype)
            if array.shape != slot.shape:
                raise InputError(f"output {tensor.name!r}: the shape is {array.shape}, the run gives {slot.shape}")
            given.append(DeviceArray(array.address, array.shape, array.dtype, (value, array.owner)))
        return given

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
                self.session.cuda.launch(self.graph, stream)
                return
            self._bind_scratch(scratch)
            if key == self._seen and self._may_capture() and self._capture(key, addresses):
                self.session.cuda.launch(self.graph, stream)
                return
            self._enqueue(addresses, stream)
            self._seen = key

    def _enqueue(self, addresses: Sequence[int], stream: int) -> None:
        tensors = [*self.session.inputs, *self.session.outputs]
        for position, (tensor, address) in enumerate(zip(tensors, addresses)):
            if tensor.name in self._allocators or self._bound[position : position + 1] == (address,):
                continue
            if not self.context.set_tensor_address(tensor.name, address):
                raise ExecutionError(f"TensorRT refuses the address of {tensor.name!r}")
        self._bound = tuple(addresses)
        if not self.context.execute_async_v3(stream):
            raise ExecutionError("the run could not be enqueued")

    def _may_capture(self) -> bool:
        return self.session.cuda_graphs and not self._allocators and not self.graph_problem

    def _capture(self, key: tuple[int, ...], addresses: Sequence[int]) -> bool:
        """Record the run as a CUDA graph; a plan that cannot be captured is enqueued from then on.

        TensorRT asks for one ordinary run with these shapes before; the second time a key is seen, that has happened.
        """
        cuda = self.session.cuda
        self._drop_graph()
        cuda.synchronize(self.stream)
        cuda.begin_capture(self.stream)
        problem = ""
        try:
            self._enqueue(addresses, self.stream)
        except ExecutionError as error:
            problem = str(error)
        try:
            graph = cuda.end_capture(self.stream)
        except CudaError as error:
            self.graph_problem = problem or str(error)
        else:
            if problem:
                cuda.destroy_graph(graph)
                self.graph_problem = problem
            else:
                self.graph, self.graph_key = graph, key
        self.session.log.take_errors()
        return not self.graph_problem

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def _collect_unknown(self) -> list[Array]:
        """Outputs whose shapes the run has told."""
        cuda = self.session.cuda
        cuda.synchronize(self.stream)
        results = []
        for slot, tensor in zip(self._outputs, self.session.outputs):
            allocator = self._allocators.get(tensor.name)
            shape = slot.shape if allocator is None else allocator.shape
            results.append(copy_out(cuda, DeviceArray(slot.device.address, shape, tensor.dtype, stream=self.stream)))
        return results

    def _event(self, name: str) -> int:
        if name not in self._events:
            self._events[name] = self.session.cuda.create_event()
        return self._events[name]

    def _drop_graph(self) -> None:
        if self.graph:
            self.session.cuda.synchronize(self.stream)
            self.session.cuda.destroy_graph(self.graph)
        self.graph, self.graph_key, self._seen = 0, (), ()

    def _renew_context(self) -> None:
        self._drop_graph()
        self.context = None
        self.context = self._create_context()
        self.shapes, self._bound, self._scratch_bound, self.profile = [], (), (0, 0), 0

    def _forget(self) -> None:
        """After a failure: the next run sets everything anew."""
        self._bound = self._seen = ()
        self.shapes = []
        with contextlib.suppress(CudaError):
            self._drop_graph()

    def release(self) -> None:
        """Free everything; the lane is not used again."""
        with contextlib.suppress(CudaError):
            self._drop_graph()
        self.context = None
        for slot in (*self._inputs, *self._outputs):
            slot.device.release()
            slot.view = slot.host = None
        for event in self._events.values():
            self.session.cuda.destroy_event(event)
        self._events = {}
        stream, self.stream = self.stream, 0
        if stream:
            self.session.cuda.destroy_stream(stream)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            self.session.cuda.use()
            self.release()


class OutputAllocator(Protocol):
    """TensorRT's way of asking for the memory of an output whose size the run tells."""

    shape: Shape


def _make_allocator(trt: Any, buffer: DeviceBuffer) -> OutputAllocator:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shape: Shape = ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            buffer.reserve(int(size))
            return buffer.address

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(int(size) for size in shape)

    return Allocator()


def copy_out(cuda: Cuda, array: DeviceArray) -> Array:
    """A device array on the host, once everything on its stream is done."""
    result = np.empty(array.shape, array.dtype)
    if not result.nbytes:
        return result
    stream = array.stream or 0
    cuda.use()
    cuda.copy_out(result.ctypes.data, array.address, result.nbytes, stream)
    cuda.synchronize(stream)
    return result
