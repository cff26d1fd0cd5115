"""The double of a GPU: memory, streams, events and graphs that behave as CUDA's documentation says.

Work on a stream is deferred until something waits for it, in the order in which CUDA guarantees it: host code that
reads a result too early, or overwrites memory that a copy has yet to read, gets the wrong numbers here.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from harness.engines.memory import CudaError, Device

Work = Callable[[], None]
_AWAY = 1 << 55  # added to host addresses: dereferencing a device address is a crash, as it should be


@dataclass
class Event:
    stream: int = 0
    done: bool = True
    time: float = 0.0


@dataclass
class Stream:
    work: deque[Work] = field(default_factory=deque)
    capture: list[Work] | None = None
    running: bool = False


class DoubleCuda:
    """See :class:`harness.engines.memory.Cuda`.

    Attributes:
        failures: name of a method -> CUDA's name of the failure that its next call raises, or what it raises instead
            (KeyboardInterrupt: somebody presses Ctrl-C there).
        calls: how often each method was called.
        kernels: name of a kernel -> the C types of its arguments as ``struct`` has them ("Q" for an address), and the
            Python function that stands for it: it takes this double, then the arguments.
    """

    def __init__(self, device: Device, memory: int | None = None) -> None:
        self.device = device
        self.memory = memory if memory is not None else device.memory
        self.failures: dict[str, str | BaseException] = {}
        self.calls: dict[str, int] = {}
        self.kernels: dict[str, tuple[str, Callable[..., None]]] = {}
        self.used = 0
        self._lock = threading.RLock()
        self._handles = itertools.count(1000)
        self._blocks: dict[int, np.ndarray] = {}
        self._pinned: dict[int, np.ndarray] = {}
        self._streams: dict[int, Stream] = {0: Stream()}
        self._events: dict[int, Event] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._functions: dict[int, tuple[str, Callable[..., None]]] = {}
        self._clock = itertools.count()

    def _enter(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        code = self.failures.pop(name, None)
        if isinstance(code, BaseException):
            raise code
        if code is not None:
            raise CudaError(code, f"{name} failed with {code}")

    def use(self) -> None:
        self._enter("use")

    # --- memory ------------------------------------------------------------------------------------------------------

    def malloc(self, size: int) -> int:
        self._enter("malloc")
        with self._lock:
            if self.used + size > self.memory:
                raise CudaError(
                    "CUDA_ERROR_OUT_OF_MEMORY", f"{size} bytes were asked for, {self.free_memory()} are free"
                )
            block = np.full(max(size, 1), 0xA5, np.uint8)
            address = block.ctypes.data + _AWAY
            self._blocks[address] = block
            self.used += block.nbytes
            return address

    def free(self, address: int) -> None:
        self._enter("free")
        with self._lock:
            self._drain_all()  # as cuMemFree does
            self.used -= self._blocks.pop(address).nbytes

    def malloc_host(self, size: int) -> int:
        self._enter("malloc_host")
        block = np.zeros(max(size, 1), np.uint8)
        self._pinned[block.ctypes.data] = block
        return int(block.ctypes.data)

    def free_host(self, address: int) -> None:
        self._enter("free_host")
        with self._lock:
            self._drain_all()
            del self._pinned[address]

    def free_memory(self) -> int:
        return self.memory - self.used

    def _blocks_now(self) -> list[tuple[int, np.ndarray]]:
        """A copy, made in one step: the end of an array frees its block in whatever thread lets go of it."""
        return list(self._blocks.items())

    def is_ours(self, address: int) -> bool:
        return any(base <= address < base + block.nbytes for base, block in self._blocks_now())

    def host_address(self, address: int, size: int) -> int:
        """Where device memory really lies; fails for what was not allocated, or has been freed."""
        for base, block in self._blocks_now():
            if base <= address and address + size <= base + block.nbytes:
                return address - _AWAY
        raise CudaError("CUDA_ERROR_ILLEGAL_ADDRESS", f"{size} bytes at {address:#x} are not allocated")

    # --- streams -----------------------------------------------------------------------------------------------------

    def push(self, stream: int, work: Work) -> None:
        """Enqueue work, or record it where the stream is being captured."""
        with self._lock:
            entry = self._streams[stream]
            (entry.work if entry.capture is None else entry.capture).append(work)

    def create_stream(self) -> int:
        self._enter("create_stream")
        return self._new(self._streams, Stream())

    def destroy_stream(self, stream: int) -> None:
        self.synchronize(stream)
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        self._enter("synchronize")
        with self._lock:
            self._drain(stream)

    def _drain(self, stream: int, until: Event | None = None) -> None:
        entry = self._streams[stream]
        if entry.running:  # freed memory found by the garbage collector in the middle of some work
            return
        entry.running = True
        try:
            while entry.work and (until is None or not until.done):
                entry.work.popleft()()
        finally:
            entry.running = False

    def _drain_all(self) -> None:
        for stream in list(self._streams):
            self._drain(stream)

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        self._enter("copy_in")
        self.push(stream, lambda: _move(self.host_address(device, size), host, size))

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        self._enter("copy_out")
        self.push(stream, lambda: _move(host, self.host_address(device, size), size))

    def copy_across(self, to: int, source: int, size: int, stream: int) -> None:
        self._enter("copy_across")
        self.push(stream, lambda: _move(self.host_address(to, size), self.host_address(source, size), size))

    # --- events ------------------------------------------------------------------------------------------------------

    def create_event(self, timing: bool = False) -> int:
        self._enter("create_event")
        return self._new(self._events, Event())

    def destroy_event(self, event: int) -> None:
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        self._enter("record")
        entry = Event(stream, False)
        self._events[event] = entry

        def mark() -> None:
            entry.done, entry.time = True, float(next(self._clock))

        self.push(stream, mark)

    def wait(self, stream: int, event: int) -> None:
        self._enter("wait")
        entry = self._events[event]
        self.push(stream, lambda: self._drain(entry.stream, entry) if not entry.done else None)

    def finished(self, event: int) -> bool:
        self._enter("finished")
        with self._lock:
            entry = self._events[event]
            work = self._streams[entry.stream].work if entry.stream in self._streams else ()
            if not entry.done and work:
                work.popleft()()  # time passes
            return entry.done

    def synchronize_event(self, event: int) -> None:
        self._enter("synchronize_event")
        with self._lock:
            entry = self._events[event]
            if not entry.done:
                self._drain(entry.stream, entry)

    def elapsed(self, begin: int, end: int) -> float:
        return self._events[end].time - self._events[begin].time

    # --- kernels -----------------------------------------------------------------------------------------------------

    def load_kernel(self, image: bytes, name: str) -> int:
        self._enter("load_kernel")
        return self._new(self._functions, self.kernels[name])

    def launch_kernel(
        self, function: int, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, stream: int,
        arguments: int,
    ) -> None:  # fmt: skip
        self._enter("launch_kernel")
        kinds, kernel = self._functions[function]
        places = (ctypes.c_void_p * len(kinds)).from_address(arguments)  # CUDA reads them before it returns
        values = [struct.unpack(k, ctypes.string_at(p, struct.calcsize(k)))[0] for k, p in zip(kinds, places)]
        self.push(stream, lambda: kernel(self, *values))

    # --- graphs ------------------------------------------------------------------------------------------------------

    def begin_capture(self, stream: int) -> None:
        self._enter("begin_capture")
        self._streams[stream].capture = []

    def end_capture(self, stream: int) -> int:
        recorded, self._streams[stream].capture = self._streams[stream].capture or [], None
        self._enter("end_capture")
        return self._new(self._graphs, recorded)

    def launch(self, graph: int, stream: int) -> None:
        self._enter("launch")
        recorded = list(self._graphs[graph])
        self.push(stream, lambda: [work() for work in recorded] and None)  # type: ignore[func-returns-value]

    def destroy_graph(self, graph: int) -> None:
        self._enter("destroy_graph")
        del self._graphs[graph]

    def _new(self, table: dict, value: object) -> int:  # type: ignore[type-arg]
        with self._lock:
            handle = next(self._handles)
            table[handle] = value
            return handle


def _move(to: int, source: int, size: int) -> None:
    ctypes.memmove(to, source, size)
