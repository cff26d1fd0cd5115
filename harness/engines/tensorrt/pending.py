"""A run that has been enqueued, and copies of what lies on the GPU."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..memory import Cuda, DeviceArray, Event

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Pending:
    """A run that has been enqueued. Its outputs lie on the GPU and hold their content once ``wait`` returns, or for
    work that comes later on the same stream. It keeps the inputs alive, and waits when it is dropped."""

    outputs: list[DeviceArray]
    _cuda: Cuda
    _event: Event | None
    _inputs: Any

    def done(self) -> bool:
        """Whether the run has ended; never waits."""
        if self._event is None:
            return True
        self._cuda.use()
        if not self._cuda.finished(self._event.handle):
            return False
        self._close()
        return True

    def wait(self) -> list[DeviceArray]:
        """Wait for the run; its outputs. ExecutionError if it failed."""
        if self._event is not None:
            self._cuda.use()
            try:
                self._cuda.synchronize_event(self._event.handle)
            finally:
                self._close()
        return self.outputs

    def numpy(self) -> list[Array]:
        """The outputs copied to the host, after the run."""
        return [copy_out(self._cuda, array) for array in self.wait()]

    def _close(self) -> None:
        self._event = self._inputs = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # nobody is left to tell
            self.wait()


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
