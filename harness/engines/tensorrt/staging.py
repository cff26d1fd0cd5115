"""Memory for a lane's inputs and outputs, and how arrays of the host and of the GPU come to lie there."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..memory import DeviceArray, DeviceBuffer, Event, HostBuffer, follow, is_device_array, read_device_array
from .loaded import Loaded, Tensor
from .profiles import Shape

Array = npt.NDArray[Any]

# A large array is copied in pieces of so many bytes, by some threads, and each goes on to the GPU at once: one core moves
# 7 GB/s, PCIe 25.
PIECE, COPIERS = 2 << 20, 4


@dataclass(slots=True, eq=False)
class Slot:
    """One input or output: its device memory, and the pinned host memory beside it."""

    device: DeviceBuffer
    host: HostBuffer | None = None
    shape: Shape = ()
    nbytes: int = 0
    view: Array | None = None  # the host memory as an array of the present shape


@functools.cache
def _copiers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COPIERS, "mxtrt-copy")


class Staging:
    """The slots of one lane. Addresses stay the same until larger shapes come, so that CUDA graphs can be reused."""

    __slots__ = ("_event", "_loaded", "inputs", "outputs")

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.inputs = [Slot(DeviceBuffer(loaded.cuda)) for _ in loaded.inputs]
        self.outputs = [Slot(DeviceBuffer(loaded.cuda)) for _ in loaded.outputs]
        self._event: Event | None = None

    def reserve(self, slot: Slot, tensor: Tensor, shape: Shape) -> None:
        """Memory for an array of this shape, on the GPU and pinned on the host."""
        slot.shape = shape
        slot.nbytes = math.prod(shape) * tensor.dtype.itemsize
        slot.device.reserve(slot.nbytes)
        if slot.host is None or slot.host.size < slot.nbytes:
            slot.host = HostBuffer(self._loaded.cuda, slot.nbytes)
        slot.view = slot.host.view(shape, tensor.dtype)

    def stage(self, inputs: Sequence[Any], stream: int, await_copies: Callable[[], None]) -> list[int]:
        """The device address of each input: its own if it lies there, else a copy's.

        ``await_copies`` is called before pinned memory is written that an earlier run may still read.
        """
        addresses = []
        for slot, tensor, value in zip(self.inputs, self._loaded.inputs, inputs):
            if is_device_array(value):
                addresses.append(self._place(tensor, value, stream))
                continue
            if slot.nbytes:
                await_copies()
                self._copy_in(slot, value, stream)
            addresses.append(slot.device.address)
        return addresses

    def _copy_in(self, slot: Slot, value: Array, stream: int) -> None:
        """Through pinned memory, from which the GPU reads while the host goes on."""
        assert slot.host is not None and slot.view is not None
        is_plain = isinstance(value, np.ndarray) and value.flags.c_contiguous and value.dtype == slot.view.dtype
        if slot.nbytes <= PIECE or not is_plain:
            np.copyto(slot.view, value, casting="no")
            self._loaded.cuda.copy_in(slot.device.address, slot.host.address, slot.nbytes, stream)
            return
        source, pinned = value.reshape(-1).view(np.uint8), slot.host.bytes
        pieces = [slice(start, min(start + PIECE, slot.nbytes)) for start in range(0, slot.nbytes, PIECE)]
        copies = [_copiers().submit(np.copyto, pinned[piece], source[piece]) for piece in pieces]
        try:
            for piece, copy in zip(pieces, copies):
                copy.result()
                place, size = piece.start, piece.stop - piece.start
                self._loaded.cuda.copy_in(slot.device.address + place, slot.host.address + place, size, stream)
        finally:
            wait(copies)  # after an interruption, too, nobody may still write there

    def copy_out(self, stream: int) -> None:
        """Enqueue the copies of all outputs to pinned memory."""
        for slot in self.outputs:
            if slot.nbytes:
                self._loaded.cuda.copy_out(slot.host.address, slot.device.address, slot.nbytes, stream)  # type: ignore[union-attr]

    def results(self, outputs: Sequence[Any] | None, stream: int) -> list[DeviceArray]:
        """The caller's arrays to write to, checked, once what is under way with them has ended; or new ones.

        Raises:
            InputError: an array does not lie on the GPU, or has another type or shape than the run gives.
        """
        tensors, cuda = self._loaded.outputs, self._loaded.cuda
        if outputs is None:
            made = []
            for tensor, slot in zip(tensors, self.outputs):
                buffer = DeviceBuffer(cuda, slot.nbytes)
                made.append(DeviceArray(buffer.address, slot.shape, tensor.dtype, buffer))
            return made
        if len(outputs) != len(tensors):
            raise InputError(f"{len(outputs)} output arrays are given, the part has {len(tensors)} outputs")
        given = []
        for tensor, slot, value in zip(tensors, self.outputs, outputs):
            if not is_device_array(value):
                raise InputError(f"output {tensor.name!r}: a {type(value).__name__} does not lie on the GPU")
            array = read_device_array(tensor.name, value, stream)
            self._check(f"output {tensor.name!r}", array, tensor.dtype)
            self._follow(array, stream)
            if array.shape != slot.shape:
                raise InputError(f"output {tensor.name!r}: the shape is {array.shape}, the run gives {slot.shape}")
            given.append(DeviceArray(array.address, array.shape, array.dtype, (value, array.owner)))
        return given

    def release(self) -> None:
        """Free everything; not used again."""
        for slot in (*self.inputs, *self.outputs):
            slot.device.release()
            slot.view = slot.host = None
        self._event = None

    def _place(self, tensor: Tensor, value: Any, stream: int) -> int:
        """The address of an array that lies on the GPU; the stream waits for whatever makes its content."""
        array = read_device_array(tensor.name, value, stream)
        self._check(f"input {tensor.name!r}", array, tensor.dtype)
        self._follow(array, stream)
        return array.address

    def _follow(self, array: DeviceArray, stream: int) -> None:
        """Let the stream wait for what is under way on the array's own."""
        self._event = follow(self._loaded.cuda, stream, array, self._event)

    def _check(self, what: str, array: DeviceArray, dtype: np.dtype[Any]) -> None:
        if array.dtype != dtype:
            raise InputError(f"{what}: the type is {array.dtype}, built for {dtype}; convert it first")
        if array.nbytes and not self._loaded.cuda.is_ours(array.address):
            device = self._loaded.cuda.device
            raise InputError(
                f"{what} lies on another GPU, or in another CUDA context than {device.name} number {device.ordinal}'s "
                f"primary one; with PyCUDA use pycuda.autoprimaryctx"
            )


class OutputAllocator(Protocol):
    """TensorRT's way of asking for the memory of an output whose size the run tells."""

    shape: Shape


def make_allocator(trt: Any, buffer: DeviceBuffer) -> OutputAllocator:
    """An allocator that takes its memory from ``buffer`` and notes the shape."""

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
