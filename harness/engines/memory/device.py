"""A GPU as the engine sees it: what it is, what can be asked of it, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...errors import ExecutionError


class CudaError(ExecutionError):
    """A CUDA call failed; ``code`` is CUDA's own name of the failure."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU: everything about it that can change a plan or its numbers."""

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: int

    @property
    def sm(self) -> str:
        return "SM{}{}".format(*self.compute_capability)


class Cuda(Protocol):
    """What the engine asks of CUDA. Addresses and handles are integers; each call raises CudaError if it fails."""

    device: Device

    def use(self) -> None:
        """Make the device current for the calling thread."""

    def malloc(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def malloc_host(self, size: int) -> int: ...
    def free_host(self, address: int) -> None: ...
    def copy_in(self, device: int, host: int, size: int, stream: int) -> None: ...
    def copy_out(self, host: int, device: int, size: int, stream: int) -> None: ...
    def copy_across(self, to: int, source: int, size: int, stream: int) -> None: ...
    def create_stream(self) -> int: ...
    def destroy_stream(self, stream: int) -> None: ...
    def synchronize(self, stream: int) -> None: ...
    def create_event(self, timing: bool = False) -> int: ...
    def destroy_event(self, event: int) -> None: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait(self, stream: int, event: int) -> None: ...
    def finished(self, event: int) -> bool: ...
    def synchronize_event(self, event: int) -> None: ...
    def elapsed(self, begin: int, end: int) -> float: ...
    def begin_capture(self, stream: int) -> None: ...
    def end_capture(self, stream: int) -> int: ...
    def launch(self, graph: int, stream: int) -> None: ...
    def destroy_graph(self, graph: int) -> None: ...
    def load_kernel(self, image: bytes, name: str) -> int: ...
    def launch_kernel(
        self,
        function: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared: int,
        stream: int,
        arguments: int,
    ) -> None:
        """Enqueue a kernel; ``arguments`` is the address of an array of pointers to its arguments."""

    def free_memory(self) -> int: ...
    def is_ours(self, address: int) -> bool:
        """Whether a device address belongs to this device and context."""
