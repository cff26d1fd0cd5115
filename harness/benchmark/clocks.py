"""Time on the host and on the GPU.

The calibrating loops of benchmark tools read a clock around a call; a GPU's launches return before the work is done,
so what they read is the launch. :class:`VirtualClock` is a clock that stands still until it is told how long something
took, by CUDA events or by another process. :class:`PhaseTimer` runs a TensorRT part as trtexec does, and times its
phases with CUDA events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class VirtualClock:
    """A timer for pytest-benchmark: ``@pytest.mark.benchmark(timer=clock)`` with ``benchmark.pedantic``.

    Calling it gives the seconds that ``advance`` has been told in all.
    """

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass. ValueError if they are negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds} s")
        self.now += seconds


@dataclass(slots=True)
class Phases:
    """Seconds of each query: enqueueing on the host, and transfers and compute by CUDA events."""

    enqueue: list[float] = field(default_factory=list)
    h2d: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    d2h: list[float] = field(default_factory=list)

    @property
    def latency(self) -> list[float]:
        """trtexec's: H2D + compute + D2H."""
        return [sum(parts) for parts in zip(self.h2d, self.compute, self.d2h)]


class PhaseTimer:
    """The phases of one TensorRT part: pinned host memory to the GPU, the plan, and back, on one stream.

    Args:
        session: a TensorRT session (it has ``enqueue``, ``cuda``, ``inputs`` and ``outputs``).
        inputs: host arrays, in the session's order.
    """

    def __init__(self, session: Any, inputs: Sequence[Any]) -> None:
        from ..engines.memory import DeviceArray, DeviceBuffer, HostBuffer

        self.session, self.cuda, self.phases = session, session.cuda, Phases()
        self.stream = self.cuda.create_stream()
        self._events = [self.cuda.create_event(timing=True) for _ in range(4)]
        self._keep: list[Any] = []

        def pinned(array: Any) -> tuple[Any, Any]:
            host, device = HostBuffer(self.cuda, max(array.nbytes, 1)), DeviceBuffer(self.cuda, max(array.nbytes, 1))
            self._keep += [host, device]
            return host, DeviceArray(device.address, array.shape, array.dtype, device)

        self._inputs = []
        for array in inputs:
            host, device = pinned(array)
            host.view(array.shape, array.dtype)[...] = array
            self._inputs.append((host, device, array.nbytes))
        self._outputs = [(*pinned(array), array.nbytes) for array in session.run(inputs)]

    def __call__(self) -> None:
        """One query; its times are added to ``phases``."""
        cuda, stream, events = self.cuda, self.stream, self._events
        cuda.record(events[0], stream)
        for host, device, size in self._inputs:
            cuda.copy_in(device.address, host.address, size, stream)
        cuda.record(events[1], stream)
        start = time.perf_counter()
        pending = self.session.enqueue([one[1] for one in self._inputs], [one[1] for one in self._outputs], stream)
        enqueued = time.perf_counter() - start
        cuda.record(events[2], stream)
        for host, device, size in self._outputs:
            cuda.copy_out(host.address, device.address, size, stream)
        cuda.record(events[3], stream)
        pending.wait()
        cuda.synchronize(stream)
        self.phases.enqueue.append(enqueued)
        for number, times in enumerate((self.phases.h2d, self.phases.compute, self.phases.d2h)):
            times.append(cuda.elapsed(events[number], events[number + 1]) / 1e3)  # CUDA says milliseconds

    def results(self) -> list[Any]:
        """The outputs of the last query, copied."""
        return [host.view(device.shape, device.dtype).copy() for host, device, _ in self._outputs]

    def close(self) -> None:
        """Free the events, the stream and the memory."""
        for event in self._events:
            self.cuda.destroy_event(event)
        self.cuda.destroy_stream(self.stream)
        self._events, self._keep, self._inputs, self._outputs = [], [], [], []


def measure(
    call: Callable[[], Any], seconds: float = 1.0, warmup: float = 0.2, least: int = 10, most: int = 1_000_000
) -> list[float]:
    """Seconds of each call, one after the other, for about ``seconds`` and at least ``least`` calls, after a warm-up."""
    clock = time.perf_counter
    end = clock() + warmup
    call()
    while clock() < end:
        call()
    taken: list[float] = []
    end = clock() + seconds
    while len(taken) < most:
        start = clock()
        call()
        now = clock()
        taken.append(now - start)
        if now >= end and len(taken) >= least:
            break
    return taken


def overhead(queries: int = 20_000) -> float:
    """Seconds that the loop of ``measure`` adds to a query, of which a part is inside the figure and a part around it."""
    start = time.perf_counter()
    measure(lambda: None, 0.0, 0.0, queries, queries)
    return (time.perf_counter() - start) / queries


def yardstick(repeats: int = 30) -> float:
    """Seconds of a fixed piece of arithmetic that is none of ours: the speed of the machine at this moment.

    The median of ``repeats`` products of two matrices of 256 x 256 on NumPy.
    """
    matrix = np.random.default_rng(0).random((256, 256), dtype=np.float32)
    return float(np.median(measure(lambda: matrix @ matrix, 0.0, 0.01, repeats)))
