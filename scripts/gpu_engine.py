"""The TensorRT engine on a GPU: the plan cache, CUDA graphs, arrays that stay where they are, and what may go wrong.

    python -m scripts.gpu_engine [--row NAME ...] [--resume] [--out reports/gpu/engine.json]

Needs a GPU, TensorRT, PyTorch and MXNet. Each row is measured in a process of its own. ResNet-50 in FP16, batch 1, with
the weights of scripts/gpu_networks.py; the faults on MobileNet 0.25.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import harness
from scripts.gpu_networks import export
from scripts.rows import ROOT, Row, environment, main, row

WORK = Path(tempfile.gettempdir()) / "mxtrt-speed"
PLANS = WORK / "engine-plans"
HITS, TURNS, CALLS = 7, 15, 300
SMALL = "mobilenet0.25"
Fault = Callable[[Path], str]  # what was said; it raises what is not as it must be


def compiled(cache: Path, name: str = "resnet50_v1", batch: Any = 1, **options: Any) -> Any:
    size = export(name, WORK / name)
    return harness.compile(
        str(WORK / name / "net"), inputs={"data": (batch, 3, size, size)}, engine="tensorrt", precision="fp16",
        fallback="error", cache_dir=str(cache), **options,
    )  # fmt: skip


def session_of(model: Any) -> Any:
    return model._program.steps[0].session


def image(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (batch, 3, 224, 224)).astype(np.float32)


# --- figures ---------------------------------------------------------------------------------------------------------


def hit() -> Row:
    """``harness.compile`` from MXNet's files to a session that can run: with a build, and with the plan in the cache."""

    def find(folder: Path) -> tuple[float, Any]:
        start = time.perf_counter()
        model = compiled(folder, timing_cache=False)
        return time.perf_counter() - start, model

    with tempfile.TemporaryDirectory() as folder:
        compiled(Path(folder), SMALL, optimization_level=0)  # TensorRT's libraries are loaded
        built, first = find(Path(folder))
        again = [find(Path(folder)) for _ in range(HITS)]
    if any(session_of(model).outcome != "hit" for _, model in again):
        raise SystemExit("the plan was not found again")
    same = all(np.array_equal(model(data=image())[0], first(data=image())[0]) for _, model in again)
    seconds = statistics.median(taken for taken, _ in again)
    return row(
        "ResNet-50 FP16: time of compile() with a build over that with a hit", built / seconds, 50, "x", at_least=True,
        provided=same, build_seconds=built, hit_seconds=seconds, plan_bytes=len(session_of(first).plan_bytes()),
    )  # fmt: skip


def graphs() -> Row:
    """Wall time of many runs enqueued in a row, arrays on the GPU; then of single calls with host arrays."""
    import torch

    sides = {kind: compiled(PLANS, cuda_graphs=kind == "on") for kind in ("on", "off")}
    x, host = torch.from_numpy(image()).cuda(), image()
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    for kind, model in sides.items():
        session = session_of(model)
        outputs = [torch.empty(array.shape, device="cuda") for array in session.enqueue([x]).wait()]
        runs[kind, "enqueue"] = lambda s=session, o=outputs: s.enqueue([x], o)
        runs[kind, "call"] = lambda m=model: m(data=host)
    medians: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for turn in range(TURNS):
        for key in list(runs)[:: 1 if turn % 2 else -1]:
            medians[key].append(microseconds(runs[key]))
    found = {key: statistics.median(values) for key, values in medians.items()}
    assert session_of(sides["on"])._lanes[0].graph and not session_of(sides["off"])._lanes[0].graph
    details = {f"{what} {kind}, us": round(value, 2) for (kind, what), value in found.items()}
    return row(
        "ResNet-50 FP16, batch 1: time without CUDA graphs over that with them, arrays on the GPU",
        found["off", "enqueue"] / found["on", "enqueue"], 1, "x", at_least=True,
        of_calls_with_host_arrays=round(found["off", "call"] / found["on", "call"], 4), **details,
    )  # fmt: skip


def microseconds(run: Callable[[], Any]) -> float:
    import torch

    last = None
    for _ in range(5):
        last = run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        last = run()
    torch.cuda.synchronize()
    del last
    return (time.perf_counter() - start) / CALLS * 1e6


def copies() -> Row:
    """PyTorch's tensors in and out: the addresses TensorRT has, and the copies that CUPTI sees in 20 runs."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    model = compiled(PLANS)
    session, x = session_of(model), torch.from_numpy(image()).cuda()
    outputs = [torch.empty(array.shape, device="cuda") for array in session.enqueue([x]).wait()]
    stream = torch.cuda.Stream()
    for _ in range(4):
        session.enqueue([x], outputs, stream.cuda_stream).wait()
    context = session._lanes[-1].context
    bound = {name: int(context.get_tensor_address(name)) for name in (*session.input_names, *session.output_names)}
    given = {name: t.data_ptr() for name, t in zip(bound, [x, *outputs], strict=True)}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(20):
            session.enqueue([x], outputs, stream.cuda_stream).wait()
        torch.cuda.synchronize()
    events = [event.name for event in seen.events()]
    copied = sum("memcpy" in name.lower() for name in events)
    right = bool(np.array_equal(outputs[0].cpu().numpy(), model(data=image())[0]))
    return row(
        "ResNet-50 FP16 on PyTorch's tensors, 20 runs: copies of memory", copied, 0,
        provided=right and bound == given and len(events) > 20, addresses_are_the_tensors=bound == given,
        answer_is_that_of_host_arrays=right, activities=len(events), kinds=sorted({n.split("<")[0][:60] for n in events})[:12],
    )  # fmt: skip


# --- faults ----------------------------------------------------------------------------------------------------------


@contextmanager
def full_gpu(leave: int) -> Iterator[None]:
    """All memory of the GPU taken, but for ``leave`` bytes."""
    import torch

    torch.zeros(1, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - leave, 0), dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


def said(kind: type[Exception], call: Callable[[], Any]) -> str:
    try:
        call()
    except kind as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"no {kind.__name__} was raised")


def fast(cache: Path, **options: Any) -> Any:
    return compiled(cache, SMALL, optimization_level=0, **options)


def no_memory_to_load(cache: Path) -> str:
    expected = fast(cache, batch=64)(data=image(64))[0]
    with full_gpu(8 << 20):
        text = said(harness.HarnessError, lambda: fast(cache, batch=64)(data=image(64)))
    np.testing.assert_array_equal(fast(cache, batch=64)(data=image(64))[0], expected)
    return text


def no_memory_to_build(cache: Path) -> str:
    with full_gpu(8 << 20):
        text = said(harness.HarnessError, lambda: fast(cache, batch=65))
    fast(cache, batch=65)(data=image(65))
    return text


def no_memory_to_run(cache: Path) -> str:
    """The model was there first; its buffers for a larger batch no longer fit."""
    model = fast(cache, batch=(1, 1, 256), contexts=1)
    expected = model(data=image(1))[0]
    with full_gpu(8 << 20):
        text = said(harness.HarnessError, lambda: model(data=image(256)))
        np.testing.assert_array_equal(model(data=image(1))[0], expected)
    assert model(data=image(256))[0].shape[0] == 256
    return text


def shape_outside(cache: Path) -> str:
    model = fast(cache, batch=(1, 2, 4))
    text = said(harness.InputError, lambda: model(data=image(5)))
    assert model(data=image(4))[0].shape[0] == 4
    return text


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    path.write_bytes(data)


def corrupt_plan(cache: Path) -> str:
    expected = fast(cache)(data=image())[0]
    (plan,) = cache.rglob("*.plan")
    damaged(plan)
    words: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: words.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("harness").addHandler(listener)
    model = fast(cache)
    assert session_of(model).outcome == "built"
    np.testing.assert_allclose(model(data=image())[0], expected, rtol=0.05, atol=0.05)
    (text,) = [word for word in words if "damaged" in word]
    return text


def corrupt_artifact(cache: Path) -> str:
    fast(cache).save(cache / "saved")
    damaged(max((p for p in (cache / "saved").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size))
    return said(harness.ArtifactError, lambda: harness.load(cache / "saved"))


CHILD = """
import json, sys
import numpy as np
from pathlib import Path
from scripts.gpu_engine import fast, image, session_of
model = fast(Path(sys.argv[1]))
answers = [model(data=image(seed=s % 3))[0] for s in range(300)]
assert all(np.array_equal(a, answers[s % 3]) for s, a in enumerate(answers))
print(json.dumps([session_of(model).outcome, [float(a.sum()) for a in answers[:3]]]))
"""


def two_processes(cache: Path) -> str:
    """At once on one GPU with one cache: one builds, the other waits for its plan, both have the same answers."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(cache)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]  # fmt: skip
    found = [json.loads(child.communicate()[0].strip().splitlines()[-1]) for child in children]
    outcomes, answers = zip(*found)
    assert sorted(outcomes) == ["built", "hit"] and answers[0] == answers[1], found
    return "300 runs in each, the same answers; one plan was built, the other process found it"


FAULTS: dict[str, Fault] = {
    "out of device memory: a plan is loaded": no_memory_to_load,
    "out of device memory: a plan is built": no_memory_to_build,
    "out of device memory: a larger batch is run": no_memory_to_run,
    "a shape outside the profile": shape_outside,
    "a corrupt plan in the cache": corrupt_plan,
    "a corrupt plan in an artifact": corrupt_artifact,
    "two processes on one GPU": two_processes,
}


def faults() -> Row:
    """Each gives a clear error or a right answer, and the same process goes on afterwards."""
    words: dict[str, str] = {}
    failed = 0
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                words[name] = fault(Path(folder))
            except Exception as error:  # noqa: BLE001 - the others are worth having
                failed += 1
                words[name] = f"NOT AS IT MUST BE: {type(error).__name__}: {error}"[:1500]
    return row(
        f"faults on a GPU, of {len(FAULTS)}, without a clear error or with a process that is of no use",
        failed,
        0,
        **words,
    )


ROWS: dict[str, Callable[[], Row]] = {"hit": hit, "graphs": graphs, "copies": copies, "faults": faults}

if __name__ == "__main__":
    sys.exit(main("scripts.gpu_engine", ROWS, ROOT / "reports" / "gpu" / "engine.json", __doc__ or "", limit=400))
