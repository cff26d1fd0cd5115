"""Work in processes of its own, that may die or hang: one each for a task, forked from a process that has all libraries.

The process that forks imports MXNet and ONNX Runtime and runs neither, so that a child starts with fresh engines, in a
few milliseconds. What a task does to its process (a fault planted in a lowering, memory overwritten) ends with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import psutil

Task = TypeVar("Task")
Report = Callable[[str], None]
MEMORY = 16 << 30  # of address space; the libraries alone map about three
PATIENCE = 20  # how many times as long a step may take by the clock, on a busy machine

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        value: what the work returned; None if its process died.
        death: what ended the process: a signal's name, "time limit", an exit code or a traceback; "" if nothing did.
        step: the step that it had reported last.
        seconds: how long it took.
        noise: the end of what the process wrote to stderr, if it died.
    """

    value: Any
    death: str
    step: str
    seconds: float
    noise: str = ""


class _Running(Generic[Task]):
    """One task in its process."""

    def __init__(self, task: Task, work: Callable[[Task, Report], Any], seconds: float) -> None:
        self.task, self.seconds = task, seconds
        self.start = time.perf_counter()
        self.step, self.result = "", None
        self.noise = tempfile.TemporaryFile()
        self.pipe, end = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_child, args=(task, work, end, self.noise.fileno()), daemon=True)
        self.process.start()
        end.close()
        self.usage = psutil.Process(self.process.pid)
        self.step_start = (self.start, 0.0)

    def read(self) -> bool:
        """Take what has arrived; whether the process has ended."""
        try:
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "step":
                    self.step, self.step_start = content, (time.perf_counter(), self._processor_time())
                else:
                    self.result = (kind, content)
        except EOFError:
            return True
        return False

    def is_late(self) -> bool:
        """Whether the step takes more processor time than it may, or waits for ever."""
        clock, processor = self.step_start
        waited = time.perf_counter() - clock
        return waited > PATIENCE * self.seconds or (
            waited > self.seconds and self._processor_time() - processor > self.seconds
        )

    def _processor_time(self) -> float:
        try:
            used = self.usage.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(used.user + used.system)

    def outcome(self, late: bool) -> Outcome:
        """What became of it; ends the process if it is late."""
        if late:
            self.process.kill()
        self.process.join()
        self.pipe.close()
        seconds = round(time.perf_counter() - self.start, 3)
        with self.noise:
            noise = self._noise()
        if self.result is not None and self.result[0] == "done":
            return Outcome(self.result[1], "", self.step, seconds)
        death = self.result[1] if self.result else "time limit" if late else _death(self.process.exitcode)
        return Outcome(None, death, self.step, seconds, noise)

    def _noise(self) -> str:
        self.noise.seek(0, os.SEEK_END)
        self.noise.seek(max(self.noise.tell() - 2000, 0))
        return self.noise.read().decode(errors="replace")


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _child(task: Task, work: Callable[[Task, Report], Any], pipe: Connection, noise: int) -> None:
    os.dup2(noise, 2)
    faulthandler.disable()  # it may write elsewhere
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        message = ("done", work(task, lambda step: pipe.send(("step", step))))
    except Exception:  # noqa: BLE001  whatever it is, it is reported as what ended the task
        message = ("failed", traceback.format_exc(limit=-6))
    pipe.send(message)
    pipe.close()
    os._exit(0)  # no library's clean-up: MXNet's and ONNX Runtime's expect the threads of the parent


def each(
    tasks: Iterable[Task], work: Callable[[Task, Report], Any], seconds: float, workers: int = 2
) -> Iterator[tuple[Task, Outcome]]:
    """Do each task in a process of its own, ``workers`` at a time; in the order in which they end.

    Args:
        tasks: what to do.
        work: does it in the child; takes the task, and a function by which it reports its steps.
        seconds: how much processor time one step may take; a step that waits may take 20 times as long by the clock.
        workers: how many processes at a time.
    """
    left = iter(tasks)
    running: list[_Running[Task]] = []
    try:
        while True:
            while len(running) < workers:
                try:
                    running.append(_Running(next(left), work, seconds))
                except StopIteration:
                    break
            if not running:
                return
            wait([item.pipe for item in running], timeout=1)
            for item in list(running):
                ended = item.read()
                late = not ended and item.is_late()
                if ended or late:
                    running.remove(item)
                    yield item.task, item.outcome(late)
    finally:
        for item in running:
            item.outcome(late=True)
