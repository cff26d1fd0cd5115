"""One run of one side: a process of its own that compiles or loads a model, runs it, and prints what it took.

It is run as a script, by the tree that compares, under the ``harness`` of the side that is measured (another commit,
perhaps): of that it uses the public API only, and :mod:`harness.benchmark.clocks` where it is there.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_START = time.perf_counter()


def main(text: str) -> int:
    """Carry out a request (JSON; see ``harness.benchmark.sides.Side.request``) and print one line of JSON."""
    request = json.loads(text)
    # MXNet as a peer is MXNet as it comes: with oneDNN, and with its own graph passes.
    for name in ("MXNET_MKLDNN_ENABLED", "MXNET_SUBGRAPH_BACKEND"):
        os.environ.pop(name, None)
    try:
        answer = export(request) if request.get("export") else run(request)
    except Exception as error:  # noqa: BLE001 - the process that asked gets the reason, whatever it is
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    return 0


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
    network.export(request["export"])
    return {"prefix": request["export"]}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Set the model up, warm it up, and time it."""
    import numpy as np

    call, model = _mxnet(request) if request["engine"] == "mxnet" else _compiled(request)
    setup = time.perf_counter() - _START
    call()
    first = time.perf_counter() - _START
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
        "segments": [segment.engine for segment in model.segments] if model is not None else ["mxnet"],
    }


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


def _compiled(request: dict[str, Any]) -> tuple[Any, Any]:
    import harness

    options = dict(request["options"])
    if (Path(request["model"]) / "manifest.json").is_file():
        model = harness.load(request["model"], request["engine"], request["precision"], **options)
    else:
        model = harness.compile(
            request["model"], request["params"],
            {name: harness.Input(_shape(shape), dtype) for name, (shape, dtype) in request["inputs"].items()},
            request["engine"] or "auto", request["precision"] or "fp32", **options,
        )  # fmt: skip
    specs: dict[str, Any] = {}
    for name, spec in model.inputs.items():
        if not all(isinstance(size, (int, tuple)) for size in spec.shape):
            raise ValueError(f"input {name!r} has a size without a range: {spec}")
        specs[name] = (spec.shape, spec.dtype.name)
    arrays = _arrays(specs)
    return lambda: model(**arrays), model


def _shape(shape: Any) -> tuple[Any, ...]:
    return tuple(tuple(size) if isinstance(size, list) else size for size in shape)


def _mxnet(request: dict[str, Any]) -> tuple[Any, None]:
    """MXNet's own executor on the same files: what the ratios of the suites are over."""
    from harness.frontend.compat import mxnet

    mx = mxnet()
    prefix = request["model"].removesuffix("-symbol.json")
    symbol = mx.sym.load(f"{prefix}-symbol.json")
    files = sorted(Path(prefix).parent.glob(f"{Path(prefix).name}-????.params"))
    saved = mx.nd.load(str(request["params"] or files[-1]))
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in _arrays(request["inputs"]).items()}
    arguments = {name.partition(":")[2]: array for name, array in saved.items()}
    names, states = set(symbol.list_arguments()), set(symbol.list_auxiliary_states())
    bound = symbol.bind(
        mx.cpu(),
        {name: array for name, array in {**arguments, **given}.items() if name in names},
        aux_states={name: array for name, array in arguments.items() if name in states},
        grad_req="null",
    )
    return lambda: [array.asnumpy() for array in bound.forward(is_train=False, **given)], None


def _phases(clocks: Any, model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Enqueue, transfers and compute of a model that is one TensorRT part."""
    program = getattr(model, "_program", None)
    steps: Any = getattr(program, "steps", ())
    if len(steps) != 1 or not hasattr(steps[0].session, "cuda"):
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
