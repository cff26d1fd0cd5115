"""What goes wrong around the TensorRT engine, as data: interruptions at every call, disks, plans, memory.

After each fault the next call works, no lane, lock or file is left behind, and the caller has been told what to do.
On the test double (suites/meta/double); see there what is real.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.engines import plan_cache
from harness.engines.memory import CudaError, Device
from harness.engines.tensorrt import TensorRTEngine, staging

from .double import DoubleCuda, make_engine
from .test_tensorrt_engine import GPU, builds, expected, image, on_device, request

Fault = Callable[[TensorRTEngine, pytest.MonkeyPatch], None]


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def refuse_disk(code: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return refuse


def in_library(what: str) -> Fault:
    return lambda engine, patch: engine.library.trt.failures.update({what: KeyboardInterrupt()})


def in_cuda(what: str) -> Fault:
    return lambda engine, patch: engine.cuda.failures.update({what: KeyboardInterrupt()})  # type: ignore[attr-defined]


def right(session: Any) -> None:
    for seed in range(4):  # the second captures a graph, later ones launch it
        np.testing.assert_array_equal(session.run([image(seed=seed)])[0], expected(image(seed=seed)))


# --- while a plan is built or loaded -------------------------------------------------------------------------------------

INTERRUPTED_BUILDS: dict[str, Fault] = {
    "the parser": in_library("parse"),
    "the builder": in_library("build"),
    "loading the plan": in_library("deserialize"),
    "making a context": in_library("context"),
    "making a stream": in_cuda("create_stream"),
    "writing the plan": lambda engine, patch: patch.setattr(plan_cache.os, "fsync", interrupt),
    "renaming the plan": lambda engine, patch: patch.setattr(plan_cache.os, "replace", interrupt),
    "writing the manifest": lambda engine, patch: patch.setattr(plan_cache.json, "dumps", interrupt_manifest),
    "hashing the parameters": lambda engine, patch: patch.setattr(plan_cache, "_bytes_of", interrupt),
}
_DUMPS = plan_cache.json.dumps


def interrupt_manifest(value: Any, **options: Any) -> str:
    """A key is made of JSON too: only the manifest is indented."""
    return interrupt() if "indent" in options else _DUMPS(value, **options)


@pytest.mark.parametrize("where", INTERRUPTED_BUILDS)
def test_an_interrupted_build_leaves_nothing_behind(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    used = engine.cuda.used  # type: ignore[attr-defined]
    INTERRUPTED_BUILDS[where](engine, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        engine.build(request(tmp_path))
    monkeypatch.undo()
    assert engine.cuda.used == used and list(engine.cuda._streams) == [0]  # type: ignore[attr-defined]
    assert all(not checked.problem for checked in plan_cache.verify(tmp_path))
    assert not list(tmp_path.rglob(".*")), "an unfinished file is left"
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(engine.build(request(tmp_path))))  # a held lock would hang it
    thread.start()
    thread.join(60)
    assert done, "the next build hangs"
    right(done[0])


# --- while a plan runs -------------------------------------------------------------------------------------------------

RUNS: dict[str, Callable[[Any, TensorRTEngine], Any]] = {
    "run": lambda session, engine: session.run([image()]),
    "run in place": lambda session, engine: session.run([on_device(engine.cuda, image())]),
    "enqueue": lambda session, engine: session.enqueue([image()]).wait(),
    "profile": lambda session, engine: session.profile([image()], 2),
}
CALLS = [
    "cuda use", "cuda malloc", "cuda malloc_host", "cuda copy_in", "cuda copy_out", "cuda synchronize", "cuda record",
    "cuda create_event", "cuda begin_capture", "cuda end_capture", "cuda launch", "cuda synchronize_event",
    "cuda destroy_graph", "trt address", "trt enqueue", "trt capture", "trt context",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_an_interrupted_run_leaves_the_session_whole(call: str, tmp_path: Path) -> None:
    """Ctrl-C in every call that a run makes, in every state of the session: one context, so a lost one would hang."""
    whose, _, what = call.partition(" ")
    reached = 0
    for number, (kind, start) in enumerate(RUNS.items()):
        for after in (0, 1, 3):  # the first run; the one that captures a graph; one that launches it
            engine = make_engine()
            scratch = ("own", "shared")[(number + after) % 2]
            session: Any = engine.build(request(tmp_path, contexts=1, scratch=scratch))
            for seed in range(after):
                session.run([image(seed=seed)])
            failures = (engine.cuda if whose == "cuda" else engine.library.trt).failures  # type: ignore[attr-defined]
            failures[what] = KeyboardInterrupt()
            try:
                start(session, engine)
            except KeyboardInterrupt:
                reached += 1
            failures.clear()
            works: list[bool] = []
            thread = threading.Thread(target=lambda: (right(session), works.append(True)))  # noqa: B023
            thread.start()
            thread.join(60)
            assert works, f"{kind} after {after} runs: the next run fails or hangs"
            session.close()
            assert list(engine.cuda._streams) == [0]  # type: ignore[attr-defined]
            lost = 1 if what == "destroy_graph" else 0  # freed twice would be worse
            assert len(engine.cuda._graphs) <= lost  # type: ignore[attr-defined]
    assert reached, "no run makes this call: the test would pass on nothing"


def test_an_interrupted_copy_in_pieces_leaves_the_session_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread writes to the pinned memory behind the interruption."""
    monkeypatch.setattr(staging, "PIECE", 1 << 8)
    engine = make_engine()
    session: Any = engine.build(request(tmp_path, contexts=1))
    copyto = np.copyto
    written = []

    def slowly(to: np.ndarray, source: np.ndarray, **how: Any) -> None:
        time.sleep(0.02)
        copyto(to, source, **how)
        written.append(1)

    with monkeypatch.context() as patch:
        patch.setattr(staging.np, "copyto", slowly)
        engine.cuda.failures["copy_in"] = KeyboardInterrupt()  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            session.run([image()])
        assert len(written) == -(-image().nbytes // 256)
    engine.cuda.failures.clear()  # type: ignore[attr-defined]
    right(session)


def test_a_lane_that_an_interruption_lost_is_found_again(tmp_path: Path) -> None:
    """Between a lane's being taken and its being used there is a moment for Ctrl-C, too."""
    session: Any = make_engine().build(request(tmp_path, contexts=1))
    works: list[bool] = []

    def work() -> None:
        session._take(session.loaded, [])  # and never given back
        right(session)
        works.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert works


# --- disks, plans, devices, memory ---------------------------------------------------------------------------------------


class Told(Exception):
    """Stands for "no error": the fault is survived, and the session's outcome says so."""


def other_device(engine: TensorRTEngine, patch: pytest.MonkeyPatch) -> None:
    """The plan in the cache is another GPU's: only a digest that lies could bring it here."""
    patch.setattr(engine.cuda, "device", Device(0, "double of a GPU", (8, 6), 8 << 30, 12080))
    patch.setattr(type(engine), "_platform", lambda self, device: {"gpu": "lie"})


def other_version(engine: TensorRTEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.library.trt, "__version__", "10.6.1")
    patch.setattr(type(engine), "_platform", lambda self, device: {"gpu": "lie"})


def garbage(engine: TensorRTEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan_cache, "_problem", lambda entry, plan: "")
    patch.setattr(plan_cache, "_map", lambda path: memoryview(b"\x00" * 100))


def fail_with(what: str, message: str) -> Fault:
    return lambda engine, patch: engine.library.trt.failures.update({what: message})


def no_memory(engine: TensorRTEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.cuda, "memory", engine.cuda.used + 100)  # type: ignore[attr-defined]


def disk(code: int) -> Fault:
    return lambda engine, patch: patch.setattr(plan_cache.os, "fsync", refuse_disk(code))


# fault -> (what happens, what is raised or what the outcome begins with, what the message holds: the cause, the remedy)
FAULTS: dict[str, tuple[Fault, type[Exception], str, str]] = {
    "the disk is full": (disk(errno.ENOSPC), Told, "built, not kept", "No space left on device"),
    "the cache is read-only": (disk(errno.EROFS), Told, "built, not kept", "Read-only file system"),
    "a plan of another GPU": (other_device, Told, "built", ""),
    "a plan of another version": (other_version, Told, "built", ""),
    "a plan of garbage": (garbage, Told, "built", ""),
    "the builder returns nothing": (fail_with("build", ""), harness.BuildError, "no engine and no reason", "use engine="),
    "the builder is out of memory": (
        fail_with("build", "Requested 9 GiB of GPU memory: OutOfMemory"), harness.BuildError, "OutOfMemory", "workspace=",
    ),
    "no memory for a context": (fail_with("context", "out of memory"), CudaError, "out of memory", "scratch='shared'"),
    "no memory for the buffers": (no_memory, harness.ExecutionError, "bytes were asked for", "are free"),
    "the run is refused": (fail_with("enqueue", "no space"), harness.ExecutionError, "could not be enqueued", "no space"),
    "the GPU fails": (
        lambda engine, patch: engine.cuda.failures.update(synchronize="CUDA_ERROR_LAUNCH_FAILED"),  # type: ignore[attr-defined]
        harness.ExecutionError, "CUDA_ERROR_LAUNCH_FAILED", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_a_library_without_a_part_for_this_gpu_says_which(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT 11.2 without libnvinfer_builder_resource_sm90 on an H100."""

    def nothing(logger: Any) -> None:
        logger.log("Severity.ERROR", "Unable to load library: libnvinfer_builder_resource_sm90.so.11.2.1")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    engine = make_engine()
    monkeypatch.setattr(engine.library.trt, kind, nothing)
    with pytest.raises(
        harness.EngineMissing, match="no (builder|runtime) for this machine: .*resource_sm90.*pip install"
    ):
        engine.build(request(tmp_path))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_survived(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happens, raised, cause, remedy = FAULTS[fault]
    engine = make_engine(DoubleCuda(GPU))
    wanted = expected(image())
    if "a plan of" in fault:  # one is there already
        with monkeypatch.context() as patch:
            if fault != "a plan of garbage":
                patch.setattr(type(engine), "_platform", lambda self, device: {"gpu": "lie"})
            engine.build(request(tmp_path)).close()  # type: ignore[attr-defined]
    before = builds(engine)
    with monkeypatch.context() as patch:
        happens(engine, patch)
        try:
            session: Any = engine.build(request(tmp_path))
            np.testing.assert_array_equal(session.run([image()])[0], wanted)
        except harness.HarnessError as error:
            assert isinstance(error, raised), f"{type(error).__name__}: {error}"
            assert cause in str(error) and remedy in str(error), str(error)
        else:
            assert raised is Told
            assert session.outcome.startswith(cause) and remedy in session.outcome, session.outcome
            assert builds(engine) == before + 1
    engine.library.trt.failures.clear()
    right(engine.build(request(tmp_path)))
