"""One run of one side: a process of its own that compiles or loads a model, runs it, and prints what it took.

It is run as a script, by the tree that compares, under the ``harness`` of the side that is measured (another commit,
perhaps): of that it uses the public API only, and :mod:`harness.benchmark.clocks` where it is there. The peers are
those of the tree that compares.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_START = time.monotonic()  # until the process that asks says when it did


def main(text: str) -> int:
    """Carry out a request (JSON; see ``harness.benchmark.sides.Side.request``) and print one line of JSON."""
    request = json.loads(text)
    peers().mxnet_environment()
    try:
        answer = TASKS[request.get("task", "run")](request)
    except Exception as error:  # noqa: BLE001 - the process that asked gets the reason, whatever it is
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    return 0


def peers() -> Any:
    """``peers.py`` beside this file, not that of the side's tree, which may be older and have none."""
    name = "harness_benchmark_peers"
    if name not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(name, Path(__file__).with_name("peers.py"))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write a network of Gluon's zoo, with seeded random weights, as MXNet's files."""
    import numpy as np

    from harness.frontend.compat import mxnet

    mx = mxnet()
    mx.random.seed(7)
    np.random.seed(7)
    network = mx.gluon.model_zoo.vision.get_model(request["network"])
    network.initialize(mx.init.Xavier(magnitude=2.0))
    network.hybridize()
    network(mx.nd.zeros(request["shape"]))
    network.export(request["to"])
    return {"to": request["to"]}


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Write what a peer runs."""
    peers().PEERS[request["engine"]].prepare(request, request["to"])
    return {"to": request["to"]}


def save(request: dict[str, Any]) -> dict[str, Any]:
    """Compile a model and save it."""
    _compiled(request).save(request["to"])
    return {"to": request["to"]}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Set the model up, warm it up, and time it."""
    import numpy as np

    start = request.get("started", _START)
    call, model = open_model(request)
    setup = time.monotonic() - start
    call()
    first = time.monotonic() - start
    try:
        clocks: Any = importlib.import_module("harness.benchmark.clocks")
    except ImportError:  # a commit that is older than the clocks
        clocks = None
    if clocks is None:
        times = _measure(call, request)
        phases: dict[str, Any] = {}
        before = after = None
    else:
        before = clocks.yardstick()
        times = clocks.measure(call, request["seconds"], request["warmup"], request["queries"])
        phases = _phases(clocks, model, request) if model is not None else {}
        after = clocks.yardstick()
    return {
        "times": times,
        "phases": phases,
        "setup": setup,
        "first_answer": first,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "yardstick": None if before is None else float(np.median([before, after])),
        "segments": [request["engine"]] if model is None else [segment.engine for segment in model.segments],
    }


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "run": run, "export": export, "prepare": prepare, "save": save,
}  # fmt: skip


def open_model(request: dict[str, Any]) -> tuple[Callable[[], Any], Any]:
    """The call that is timed, and the compiled model behind it; None where a peer runs it."""
    peer = peers().PEERS.get(request["engine"])
    if peer is not None and not peer.compiles:
        return peer.open(request, _arrays(request["inputs"]), None), None
    model = _compiled({**request, "engine": request["base_engine"]} if peer else request)
    specs: dict[str, Any] = {}
    for name, spec in model.inputs.items():
        if not all(isinstance(size, (int, tuple)) for size in spec.shape):
            raise ValueError(f"input {name!r} has a size without a range: {spec}")
        specs[name] = (spec.shape, spec.dtype.name)
    arrays = _arrays(specs)
    if peer is not None:
        return peer.open(request, arrays, model), None
    return lambda: model(**arrays), model


def _measure(call: Any, request: dict[str, Any]) -> list[float]:
    clock = time.perf_counter
    times: list[float] = []
    end = clock() + request["warmup"]
    while clock() < end:
        call()
    begin = clock()
    while clock() - begin < request["seconds"] or len(times) < request["queries"]:
        start = clock()
        call()
        times.append(clock() - start)
    return times


def _arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    """Random inputs; integers are small, so that they are valid as indices."""
    import numpy as np

    rng = np.random.default_rng(3)
    made = {}
    for name, (shape, dtype) in inputs.items():
        sizes = tuple(size[1] if isinstance(size, (list, tuple)) else size for size in shape)
        numbers = rng.uniform(-1, 1, sizes) if dtype.startswith(("float", "bfloat")) else rng.integers(0, 2, sizes)
        made[name] = numbers.astype(dtype)
    return made


def _compiled(request: dict[str, Any]) -> Any:
    import harness

    options = dict(request["options"])
    if (Path(request["model"]) / "manifest.json").is_file():
        return harness.load(request["model"], request["engine"], request["precision"], **options)
    precision = request["precision"] or "fp32"
    if precision in ("int8", "fp8") and "calibration_table" not in options:
        # the ranges decide the numbers, not the time: one random sample will do
        options["calibration"] = [_arrays(request["inputs"])]
    return harness.compile(
        request["model"], request["params"],
        {name: harness.Input(_shape(shape), dtype) for name, (shape, dtype) in request["inputs"].items()},
        request["engine"] or "auto", precision, **options,
    )  # fmt: skip


def _shape(shape: Any) -> tuple[Any, ...]:
    return tuple(tuple(size) if isinstance(size, list) else size for size in shape)


def _phases(clocks: Any, model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Enqueue, transfers and compute of a model that is one TensorRT part."""
    program = getattr(model, "_program", None)
    steps: Any = getattr(program, "steps", ())
    if request["seconds"] == 0 or len(steps) != 1 or not hasattr(steps[0].session, "cuda"):
        return {}
    session = steps[0].session
    arrays = _arrays({name: (spec.shape, spec.dtype.name) for name, spec in model.inputs.items()})
    timer = clocks.PhaseTimer(session, [arrays[name] for name in session.input_names if name in arrays])
    clocks.measure(timer, request["seconds"], request["warmup"], request["queries"])
    phases = {name: getattr(timer.phases, name) for name in ("enqueue", "h2d", "compute", "d2h")}
    timer.close()
    return phases


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
