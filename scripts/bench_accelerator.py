"""``optimize_for('TensorRT')`` on stock MXNet, each figure against its bar; writes reports/accelerator.json.

    python -m scripts.bench_accelerator [--row NAME ...] [--resume] [--out reports/accelerator.json]

Each row is measured in a process of its own. With --row only these rows are measured, and the others of the stored
result are kept. Ends with 1 if a bar is missed. Figures of time want a machine that does nothing else; MXNet runs as its
users have it: hybridized, static memory, oneDNN on.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.frontend.compat import mxnet
from scripts.rows import ROOT, Row, environment, in_new_process, main, row

STATIC = {"static_alloc": True, "static_shape": True}


def _network(name: str, size: int) -> tuple[Any, Any]:
    """A network of Gluon's zoo with random weights, and an image."""
    mx = mxnet()
    mx.random.seed(7)
    net = mx.gluon.model_zoo.vision.get_model(name)
    net.initialize(mx.init.Xavier(magnitude=2.0))
    x = mx.nd.random.uniform(-1, 1, (1, 3, size, size))
    net(x).wait_to_read()
    return net, x


def _relu() -> tuple[Any, Any]:
    mx = mxnet()
    net = mx.gluon.nn.Activation("relu")
    return net, mx.nd.ones((1, 16))


# --- overhead --------------------------------------------------------------------------------------------------------


class Clock:
    """Adds up the seconds that engines run, inside the segments' own calls."""

    def __init__(self) -> None:
        from harness.accelerator import segment

        self.seconds = 0.0
        self.is_left_out = False
        self._bind = segment._bind
        segment._bind = self._timed

    def _timed(self, *arguments: Any) -> Callable[[], None]:
        run = self._bind(*arguments)

        def call() -> None:
            if self.is_left_out:
                return
            start = time.perf_counter()
            run()
            self.seconds += time.perf_counter() - start

        return call


def _per_call(net: Any, x: Any, calls: int) -> float:
    net(x).wait_to_read()
    start = time.perf_counter()
    for _ in range(calls):
        net(x).wait_to_read()
    return (time.perf_counter() - start) / calls


def _sum_of(parameters: int) -> Any:
    """An operator of MXNet's own with as many parameters, and next to no work."""

    class Sum(mxnet().gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            for number in range(parameters):
                setattr(self, f"w{number}", self.params.get(f"w{number}", shape=(1, 16), init="zeros"))

        def hybrid_forward(self, F: Any, x: Any, **weights: Any) -> Any:
            return F.add_n(x, *weights.values())

    net = Sum()
    net.initialize()
    net.hybridize(**STATIC)
    return net


def _overhead(what: str, bar: float, net: Any, x: Any, rounds: int, calls: int) -> Row:
    """Microseconds of ``net(x).wait_to_read()`` beyond those that the engine runs in the same calls.

    Beside it, in the same rounds: the call with the engine left out, so that the processor's caches hold MXNet and not
    the engine's weights; and an operator of MXNet's own with as many parameters, likewise.
    """
    import harness.accelerator  # noqa: F401 - registers the backends

    clock = Clock()
    net.optimize_for(x, backend="TensorRT", threads=1, **STATIC)
    parameters = len(net.collect_params().keys())
    native, vector = _sum_of(parameters), mxnet().nd.ones((1, 16))
    taken: dict[str, list[float]] = {"beyond": [], "engine": [], "engine left out": [], "MXNet's own operator": []}
    for _ in range(rounds):
        net(x).wait_to_read()
        clock.seconds = 0.0
        whole = _per_call(net, x, calls) * (calls + 1) / calls  # the first call of it is in the clock too
        engine = clock.seconds / calls
        taken["beyond"].append(whole - engine)
        taken["engine"].append(engine)
        clock.is_left_out = True
        taken["engine left out"].append(_per_call(net, x, calls))
        clock.is_left_out = False
        taken["MXNet's own operator"].append(_per_call(native, vector, calls))
    medians = {name: round(statistics.median(values) * 1e6, 1) for name, values in taken.items()}
    fastest = {name: round(min(values) * 1e6, 1) for name, values in taken.items()}
    return row(what, medians["beyond"], bar, "us", parameters=parameters, medians=medians, fastest=fastest)


def overhead_one_node() -> Row:
    """A segment of one node."""
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread on all sides; read when MXNet is imported
    net, x = _relu()
    return _overhead("a call of a one-node segment beyond its engine's time", 60, net, x, 40, 200)


def overhead_resnet18() -> Row:
    """A segment with 102 parameters."""
    os.environ["OMP_NUM_THREADS"] = "1"
    net, x = _network("resnet18_v1", 32)
    return _overhead("a call of ResNet-18 (32 x 32) beyond its engine's time", 100, net, x, 40, 20)


# --- speed -----------------------------------------------------------------------------------------------------------


def resnet50() -> Row:
    """ResNet-50 v1, batch 1, 224 x 224: plain hybridized MXNet against one changed line, interleaved."""
    import harness.accelerator  # noqa: F401 - registers the backends
    from harness.benchmark.verdict import ratio_interval
    from scripts.bench_zoo import interleaved

    plain, x = _network("resnet50_v1", 224)
    fast, _ = _network("resnet50_v1", 224)
    plain.hybridize(**STATIC)
    fast.optimize_for(x, backend="TensorRT", threads=2, **STATIC)
    expected, found = plain(x).asnumpy(), fast(x).asnumpy()
    calls = {"mxnet": lambda: plain(x).asnumpy(), "compiled": lambda: fast(x).asnumpy()}
    taken = interleaved(calls, seconds=0, rounds=20)
    ratio, low, high = ratio_interval(taken["compiled"], taken["mxnet"], confidence=0.95)
    return row(
        "ResNet-50 on two cores: hybridized MXNet's time over that with one changed line", ratio, 1.25, "x",
        at_least=True, interval=[low, high], rounds=20,
        milliseconds={side: round(statistics.median(times) * 1e3, 2) for side, times in taken.items()},
        relative_difference=float(np.abs(found - expected).max() / np.abs(expected).max()),
    )  # fmt: skip


# --- the same answer -------------------------------------------------------------------------------------------------


def zoo() -> Row:
    """Gluon's zoo through ``net.optimize_for`` and ``sym.optimize_for``: the bits of ``harness.compile``'s answer.

    A run that was broken off goes on with the networks that this commit has not been through.
    """
    from harness.benchmark import machine
    from suites.models.gluon_zoo import NAMES, size_of

    os.environ["OMP_NUM_THREADS"] = "1"  # nothing is timed, and threads that spin suffer from whatever else runs
    commit = machine.commit(ROOT) or "+"  # "+": not the state of any commit
    kept = Path(tempfile.gettempdir()) / f"mxtrt-accelerator-zoo-{commit}.json"
    found = json.loads(kept.read_text()) if kept.is_file() and not commit.endswith("+") else {}
    for name in NAMES:
        if name not in found:
            found[name] = _both_ways(name, size_of(name, True))
            kept.write_text(json.dumps(found))
    kept.unlink()
    equal = sum(entry["symbol_equal"] and entry["block_equal"] for entry in found.values())
    whole = sum(entry["segments"] == 1 and not entry["left_to_mxnet"] for entry in found.values())
    return row(
        f"networks of Gluon's zoo, of {len(NAMES)}, with the bits of harness.compile through a Block and a Symbol",
        equal, len(NAMES), "", at_least=True, one_segment=whole, networks=found,
    )  # fmt: skip


def _both_ways(name: str, size: int) -> dict[str, Any]:
    import harness
    import harness.accelerator

    mx = mxnet()
    net, x = _network(name, size)
    net.hybridize()
    net(x).wait_to_read()
    model = harness.compile(net, inputs={"data": x.shape}, engine="onnxruntime", fallback="error", threads=1)
    (expected,) = model(data=x.asnumpy())
    symbol = net(mx.sym.Variable("data"))
    values = {key: parameter.data() for key, parameter in net.collect_params().items()}
    aux = {key: values[key] for key in symbol.list_auxiliary_states()}
    args = {**{key: value for key, value in values.items() if key not in aux}, "data": x}
    partitioned = symbol.optimize_for("TensorRT", args, aux, threads=1)
    operators = [node["op"] for node in json.loads(partitioned.tojson())["nodes"] if node["op"] != "null"]
    segments = operators.count("_mxtrt_segment")
    bound = partitioned.bind(mx.cpu(), args, aux_states=aux, grad_req="null")
    through_symbol = bound.forward(is_train=False)[0].asnumpy()
    net.optimize_for(x, backend="TensorRT", threads=1)
    through_block = net(x).asnumpy()
    del net, model, bound, partitioned
    harness.accelerator.clear()
    gc.collect()
    return {
        "size": size, "segments": segments, "left_to_mxnet": len(operators) - segments,
        "symbol_equal": bool(np.array_equal(through_symbol, expected)),
        "block_equal": bool(np.array_equal(through_block, expected)),
    }  # fmt: skip


# --- robustness ------------------------------------------------------------------------------------------------------


class Small:
    """A small network behind the backend, and the answers that it must give."""

    def __init__(self, threads: int) -> None:
        import harness.accelerator  # noqa: F401 - registers the backends

        mx = mxnet()
        mx.random.seed(7)
        self.net = mx.gluon.nn.HybridSequential()
        self.net.add(mx.gluon.nn.Conv2D(8, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(10))
        self.net.initialize(mx.init.Xavier())
        self.images = [mx.nd.random.uniform(-1, 1, (1, 3, 8, 8)) for _ in range(8)]
        self.expected = [self.net(image).asnumpy() for image in self.images]
        self.net.optimize_for(self.images[0], backend="TensorRT", threads=threads, **STATIC)

    def is_right(self, number: int, shift: float = 0.0) -> bool:
        """Whether the answer to an image is MXNet's, shifted."""
        found = self.net(self.images[number]).asnumpy()
        return bool(np.allclose(found, self.expected[number] + shift, rtol=1e-4, atol=1e-5))


def threads(calls: int = 500) -> Row:
    """8 threads that call one network."""
    small = Small(1)
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(number for _ in range(calls) if not small.is_right(number))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    return row(f"wrong answers of 8 threads x {calls} calls", len(wrong), 0, "", seconds=round(seconds, 2))


WARM = 3000  # rebuilds until allocators and caches have what they keep


def rebuilds(count: int = 1000) -> Row:
    """A weight that changes before each call: each time a new engine, the right answer, and no more memory."""
    from harness.accelerator import segment

    small = Small(1)
    built, wrong = [], []
    compile_segment = segment._compile
    segment._compile = lambda *given: built.append(1) or compile_segment(*given)
    bias = [p for name, p in small.net.collect_params().items() if name.endswith("bias")][-1]
    start = bias.data().copy()
    sizes = []
    for step in range(WARM + count):
        shift = (step % 100) / 10
        bias.set_data(start + shift)
        wrong.extend([step] if not small.is_right(step % 8, shift) else [])
        if step >= WARM:
            sizes.append(_resident())
    slope = float(np.polyfit(np.arange(len(sizes)), sizes, 1)[0])
    return row(
        f"growth of memory over {count:,} rebuilds after new weights", slope * count / 2**20, 1, "MiB",
        provided=not wrong and len(built) >= WARM + count, wrong=len(wrong), builds=len(built),
        resident_mib=[round(size / 2**20, 1) for size in sizes[:: max(1, len(sizes) // 10)]],
    )  # fmt: skip


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


_FORK = """
import json, os, time
from scripts.bench_accelerator import Small, _resident
small, bad, sizes = Small(2), 0, []
assert small.is_right(0)
for number in range(100):
    child = os.fork()
    if not child:
        os._exit(0 if all(small.is_right(k) for k in range(8)) else 1)
    deadline = time.monotonic() + 60
    while not (status := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.002)
    if not status[0]:
        os.kill(child, 9), os.waitpid(child, 0)
    bad += status[1] != 0 or not status[0] or not small.is_right(number % 8)
    sizes.append(_resident())
print(json.dumps({"bad": bad, "grown_mib": round((sizes[-1] - sizes[20]) / 2**20, 2)}))
"""


def fork() -> Row:
    """A process that forks again and again while its engine has threads of its own; parent and child both call."""
    found = in_new_process(_FORK)
    return row("forked children or their parent that hang or answer wrong, of 100", found["bad"], 0, "", **found)


_EXIT = """
import sys
from scripts.bench_accelerator import Small
small = Small(2)
assert small.is_right(0)
if sys.argv[1] == "failing":
    from harness.accelerator import segment
    def fail(*given): raise ValueError("planted")
    segment.forward = fail
for number in range(200):
    small.net(small.images[number % 8])
"""


def exits(count: int = 10) -> Row:
    """The interpreter ends while calls are under way, or have failed and nobody has looked."""
    bad = []
    for number in range(count):
        for kind in ("right", "failing"):
            try:
                done = subprocess.run(
                    [sys.executable, "-X", "faulthandler", "-c", _EXIT, kind],
                    cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False,
                )  # fmt: skip
                bad += [f"{kind}: {done.returncode}: {done.stderr[-300:]}"] if done.returncode else []
            except subprocess.TimeoutExpired:
                bad.append(f"{kind}: hangs ({number})")
    return row(f"processes that do not end well with 200 calls under way, of {2 * count}", len(bad), 0, "", bad=bad)


def pythons() -> Row:
    """Clean environments of the lock for each Python that MXNet supports, and one library for all of them."""
    from scripts.pythons import VERSIONS, run_all

    with tempfile.TemporaryDirectory() as folder:
        found = run_all(Path(folder))
    right = [name for name, result in found.items() if result["ok"]]
    digests = {result.get("library") for result in found.values()}
    return row(
        f"Pythons that run the same library ({', '.join(VERSIONS)})", len(right), len(VERSIONS), "", at_least=True,
        provided=len(digests) == 1, environments=found,
    )  # fmt: skip


ROWS: dict[str, Callable[[], Row]] = {
    "zoo": zoo,
    "overhead-one-node": overhead_one_node,
    "overhead-resnet18": overhead_resnet18,
    "resnet50": resnet50,
    "threads": threads,
    "rebuilds": rebuilds,
    "fork": fork,
    "exit": exits,
    "pythons": pythons,
}
LIMITS = {"zoo": 14400.0, "pythons": 7200.0, "exit": 1800.0}  # seconds


if __name__ == "__main__":
    out = ROOT / "reports" / "accelerator.json"
    sys.exit(main("scripts.bench_accelerator", ROWS, out, __doc__, limits=LIMITS))
