"""Work in processes of its own, that may die or hang and are replaced: forked from one that has all libraries.

The process that forks imports MXNet without running it, so that a worker starts with a fresh engine, in a few
milliseconds. A worker does some tasks one after another; what ends it is recorded as the outcome of the task that it was
at, and another worker goes on behind that.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

Task = TypeVar("Task")
Report = Callable[[str], None]
Work = Callable[[Any, Report], Any]
MEMORY = 16 << 30  # of address space; the libraries alone map about three
PATIENCE = 20  # how many times as long a step may take by the clock, on a busy machine

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h: a worker may have children, and is no daemon of Python's

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        value: what the work returned; None if it did not.
        death: what ended it: a signal's name, "time limit", an exit code or a traceback; "" if nothing did.
        step: the step that it had reported last.
        seconds: how long it took.
        noise: the end of what its process wrote to stderr, if it died.
    """

    value: Any
    death: str
    step: str
    seconds: float
    noise: str = ""


class _Worker(Generic[Task]):
    """A process that does some tasks."""

    def __init__(self, tasks: Sequence[Task], work: Work, seconds: float) -> None:
        self.left, self.seconds = deque(tasks), seconds
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115  close() does
        self.pipe, end = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_child, args=(tasks, work, end, self.noise.fileno()))
        self.process.start()
        end.close()
        self.usage = psutil.Process(self.process.pid)
        self.over = False
        self._begin()

    def _begin(self) -> None:
        """The next task begins."""
        self.start = time.perf_counter()
        self.step = ""
        self.step_start = (self.start, self._processor_time())

    def ended(self) -> Iterator[tuple[Task, Outcome]]:
        """The tasks that have ended since the last call; at most one by the end of the process."""
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "step":
                    self.step, self.step_start = content, (time.perf_counter(), self._processor_time())
                else:
                    value, death = (content, "") if kind == "done" else (None, content)
                    yield self.left.popleft(), Outcome(value, death, self.step, self._seconds())
                    self._begin()
        except EOFError:
            self.over = True
            self.process.join()
            if self.left:
                yield self.left.popleft(), self._end(_death(self.process.exitcode))
            return
        if self._is_late():
            self.over = True
            self.process.kill()
            self.process.join()
            yield self.left.popleft(), self._end("time limit")

    def close(self) -> None:
        """End the process if it is there."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.noise.close()

    def _is_late(self) -> bool:
        """Whether the step takes more processor time than it may, or waits for ever."""
        clock, processor = self.step_start
        waited = time.perf_counter() - clock
        if not self.left or waited < self.seconds:
            return False
        return waited > PATIENCE * self.seconds or self._processor_time() - processor > self.seconds

    def _processor_time(self) -> float:
        try:
            used = self.usage.cpu_times()
        except psutil.Error:
            return 0.0
        return float(used.user + used.system)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self.start, 3)

    def _end(self, death: str) -> Outcome:
        self.noise.seek(0, os.SEEK_END)
        self.noise.seek(max(self.noise.tell() - 2000, 0))
        return Outcome(None, death, self.step, self._seconds(), self.noise.read().decode(errors="replace"))


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _child(tasks: Sequence[Any], work: Work, pipe: Connection, noise: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    os.dup2(noise, 2)
    faulthandler.disable()  # it may write elsewhere
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for task in tasks:
        try:
            message = ("done", work(task, lambda step: pipe.send(("step", step))))
        except Exception:  # noqa: BLE001  whatever it is, it is reported as what ended the task
            message = ("failed", traceback.format_exc(limit=-6))
        pipe.send(message)
    pipe.close()
    os._exit(0)  # no library's clean-up: MXNet's and ONNX Runtime's expect the threads of the parent


def each(
    tasks: Iterable[Task], work: Work, seconds: float, workers: int = 2, together: int = 1
) -> Iterator[tuple[Task, Outcome]]:
    """Do tasks in worker processes; in the order in which they end.

    Args:
        tasks: what to do.
        work: does it in a worker; takes the task, and a function by which it reports its steps.
        seconds: how much processor time one step may take; one that waits may take 20 times as long by the clock.
        workers: how many processes at a time.
        together: how many tasks a worker does one after another.
    """
    queue = deque(_batches(tasks, together))
    running: list[_Worker[Task]] = []
    try:
        while queue or running:
            while queue and len(running) < workers:
                running.append(_Worker(queue.popleft(), work, seconds))
            wait([worker.pipe for worker in running], timeout=1)
            for worker in list(running):
                yield from worker.ended()
                if worker.over:
                    running.remove(worker)
                    if worker.left:
                        queue.appendleft(tuple(worker.left))
                    worker.close()
    finally:
        for worker in running:
            worker.close()


def _batches(tasks: Iterable[Task], size: int) -> Iterator[tuple[Task, ...]]:
    left = iter(tasks)
    while batch := tuple(itertools.islice(left, size)):
        yield batch
