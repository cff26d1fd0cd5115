"""Memory with an owner: on the device, pinned on the host, and activation memory that engines share."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .arrays import DeviceArray
from .device import Cuda, CudaError

Array = npt.NDArray[Any]


class Allocator(Protocol):
    """Whoever hands out device memory: a caller may bring one (PyTorch's, RMM's, ...)."""

    def allocate(self, size: int) -> int:
        """The address of ``size`` bytes on the device, 256-byte aligned."""

    def free(self, address: int) -> None: ...


_allocator: Allocator | None = None


def use_allocator(allocator: Allocator | None) -> None:
    """Take all device memory for buffers and shared scratch from here from now on; None: from CUDA itself."""
    global _allocator
    _allocator = allocator


class DeviceBuffer:
    """Device memory that is freed with the object; ``reserve`` makes it larger, and then its content is lost."""

    __slots__ = ("_allocator", "address", "cuda", "size")

    def __init__(self, cuda: Cuda, size: int = 0) -> None:
        self.cuda, self.size, self.address = cuda, 0, 0
        self._allocator = _allocator
        self.reserve(size)

    def reserve(self, size: int) -> bool:
        """Whether the address has changed."""
        if self.address and size <= self.size:
            return False
        self.release()
        if self._allocator is None:
            self.address = self.cuda.malloc(size)
        else:
            self.address = int(self._allocator.allocate(max(size, 1)))
            if not self.address:
                raise CudaError("CUDA_ERROR_OUT_OF_MEMORY", f"the caller's allocator gave no {size} bytes")
        self.size = size
        return True

    def release(self) -> None:
        address, self.address, self.size = self.address, 0, 0
        if not address:
            return
        if self._allocator is None:
            self.cuda.free(address)
        else:
            self._allocator.free(address)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            self.cuda.use()
            self.release()


class HostBuffer:
    """Pinned host memory, which the GPU reads and writes without the driver copying it once more."""

    __slots__ = ("address", "bytes", "cuda", "size")

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.cuda, self.size = cuda, size
        self.address = 0
        self.address = cuda.malloc_host(size)
        memory = (ctypes.c_uint8 * max(size, 1)).from_address(self.address)
        self.bytes: Array = np.ctypeslib.as_array(memory)[:size]

    def view(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The first bytes as an array."""
        size = math.prod(shape) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            if self.address:
                self.cuda.use()
                self.cuda.free_host(self.address)


class Event:
    """A mark behind the work on a stream, for whoever waits for it; destroyed when nobody holds it any more."""

    __slots__ = ("_cuda", "handle")

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = 0
        self.handle = cuda.create_event()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the driver may be gone when the interpreter ends
            if self.handle:
                self._cuda.use()
                self._cuda.destroy_event(self.handle)


def follow(cuda: Cuda, stream: int, array: DeviceArray, event: Event | None = None) -> Event | None:
    """Let the stream wait for what is under way on the array's own; the event that did it, ``event`` if one is given."""
    if array.stream in (None, stream):
        return event
    event = event or Event(cuda)
    cuda.record(event.handle, array.stream)
    cuda.wait(stream, event.handle)
    return event


class Scratch:
    """Activation memory that many engines of one device share: as much as the hungriest runs at once need.

    A block is one run's. It goes back when the run has been *enqueued*, together with an event; the next run that takes
    it makes its stream wait for that event, so a shared block never makes the host wait.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._free: list[tuple[DeviceBuffer, Event | None]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lease(self, size: int, stream: int) -> Iterator[DeviceBuffer]:
        """A block of at least ``size`` bytes for what is enqueued on ``stream`` inside the block."""
        buffer, event = self._take(size)
        try:
            if event is not None:
                self._cuda.wait(stream, event.handle)
            if buffer.size < size:
                if event is not None:
                    self._cuda.synchronize_event(event.handle)
                buffer.reserve(size)
            yield buffer
        finally:
            event = event or Event(self._cuda)
            self._cuda.record(event.handle, stream)
            with self._lock:
                self._free.append((buffer, event))

    def _take(self, size: int) -> tuple[DeviceBuffer, Event | None]:
        with self._lock:
            if not self._free:
                return DeviceBuffer(self._cuda, size), None
            large = [item for item in self._free if item[0].size >= size]
            best = min(large, key=lambda i: i[0].size) if large else max(self._free, key=lambda i: i[0].size)
            self._free.remove(best)
            return best

    @property
    def size(self) -> int:
        """Bytes held and not in use."""
        with self._lock:
            return sum(buffer.size for buffer, _ in self._free)


_scratches: dict[int, Scratch] = {}


def shared_scratch(cuda: Cuda) -> Scratch:
    """The one scratch memory of a device."""
    return _scratches.setdefault(id(cuda), Scratch(cuda))  # it holds the device, so the id is not used again
