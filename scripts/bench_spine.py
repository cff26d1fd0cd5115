"""What the compiler costs and what it brings, each figure against its bar; writes reports/spine.json.

    python -m scripts.bench_spine [--row NAME ...] [--resume] [--out reports/spine.json]

Each row is measured in a process of its own. With --row only these rows are measured, and the others of the stored
result are kept. Ends with 1 if a bar is missed. Figures of time want a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.rows import ROOT, Row, environment, in_new_process, main, row

# --- speed -----------------------------------------------------------------------------------------------------------


def _speed(name: str, bar: float) -> Row:
    from scripts.bench_zoo import measure

    found = measure(name, rounds=12, threads=2, engine="onnxruntime", batch=1)
    what = f"{name}, batch 1, two cores: MXNet's time over ours"
    return row(what, found["ratio"], bar, "x", at_least=True, interval=[found["low"], found["high"]], measured=found)


def _overhead(model: Any, arrays: dict[str, Any], rounds: int, calls: int) -> tuple[float, float]:
    """Seconds of a call of the model beyond ONNX Runtime's own, and the seconds of that: medians over rounds in turns."""
    (step,) = model._program.steps
    session = step.session.session
    names = [item.name for item in session.get_outputs()]
    sides: dict[str, Callable[[], Any]] = {"bare": lambda: session.run(names, arrays), "model": lambda: model(**arrays)}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides)[:: 1 if number % 2 else -1]:
            call = sides[side]
            call()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            taken[side].append((time.perf_counter() - start) / calls)
    differences = [ours - bare for ours, bare in zip(taken["model"], taken["bare"])]
    return statistics.median(differences), statistics.median(taken["bare"])


def overhead_one_node() -> Row:
    """``model(data=x)`` over a bare call of the same session, for a graph of one node."""
    import numpy as np

    import harness
    from harness.frontend.compat import mxnet

    symbol = mxnet().sym.relu(mxnet().sym.var("data"))
    model = harness.compile(symbol, {}, {"data": (1, 8)}, engine="onnxruntime", fallback="error", threads=1)
    more, bare = _overhead(model, {"data": np.ones((1, 8), np.float32)}, 40, 500)
    return row("a call of a one-node graph beyond ONNX Runtime's own", more * 1e6, 30, "us", bare=bare * 1e6)


def overhead_resnet50() -> Row:
    """The same for ResNet-50, as a share."""
    import numpy as np

    import harness

    block = _gluon("resnet50_v1")
    model = harness.compile(block, inputs={"data": (1, 3, 224, 224)}, engine="onnxruntime", fallback="error", threads=2)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
    more, bare = _overhead(model, {"data": x}, 30, 3)
    return row("a call of ResNet-50 beyond ONNX Runtime's own", 100 * more / bare, 3, "%", bare=bare * 1e3)


def _gluon(name: str) -> Any:
    from harness.frontend.compat import mxnet

    mx = mxnet()
    block = mx.gluon.model_zoo.vision.get_model(name)
    block.initialize()
    block.hybridize()
    block(mx.nd.zeros((1, 3, 224, 224))).wait_to_read()
    return block


# --- conversion ------------------------------------------------------------------------------------------------------


_CONVERT = """
import json, sys, time
start = time.perf_counter()
from harness.compiler import plan
from scripts.bench_conversion import Anything
def convert():
    return plan(sys.argv[1], None, {"data": eval(sys.argv[2])}, engine=Anything(), fallback="error")
found = convert()
first = time.perf_counter() - start
again = []
for _ in range(3):
    begin = time.perf_counter()
    convert()
    again.append(time.perf_counter() - begin)
print(json.dumps({"first": first, "again": min(again), "parts": len(found.segments)}))
"""


def conversion_resnet152() -> Row:
    """Files to typed ONNX in a new process: imports, reading, lowering, cutting, assembling; everything but the engine."""
    with tempfile.TemporaryDirectory() as folder:
        _gluon("resnet152_v1").export(f"{folder}/net")
        found = [in_new_process(_CONVERT, f"{folder}/net", "(1, 3, 224, 224)") for _ in range(5)]
    seconds = statistics.median(item["first"] for item in found)
    warm = statistics.median(item["again"] for item in found)
    return row(
        "conversion of ResNet-152, imports included", seconds, 1.5, "s", without_imports=warm, parts=found[0]["parts"]
    )


def conversion_linear() -> Row:
    """Processor time per node with 20,000 nodes over that with 1,000, in the worst of five shapes; a chart."""
    from scripts.bench_conversion import draw, results

    found = results()
    draw(found, ROOT / "reports" / "conversion.svg")
    what = (
        f"conversion: time per node with {found['sizes'][-1]:,} nodes over that with {found['sizes'][0]:,}, worst of "
    )
    worst = found["growth"][found["worst"]]
    return row(f"{what}{len(found['seconds'])} shapes", worst, 1.5, "x", chart="reports/conversion.svg", **found)


# --- memory and imports ----------------------------------------------------------------------------------------------

_MEMORY = """
import json, resource, sys, threading, time
import harness
import harness.compiler, harness.engines.onnxruntime, onnx, onnxruntime, onnx_ir
harness.operators()
def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
import numpy as np
model = harness.compile(sys.argv[1], inputs={"data": (1, 3, 224, 224)}, engine="onnxruntime", fallback="error", threads=2)
compiled = resident("VmHWM")
model(data=np.zeros((1, 3, 224, 224), np.float32))
print(json.dumps({"before": before, "compiled": compiled, "peak": resident("VmHWM"), "after": resident("VmRSS")}))
"""


def memory_vgg16() -> Row:
    """The most memory that compiling VGG-16 from its files and one call take beyond the imports, over its weights."""
    with tempfile.TemporaryDirectory() as folder:
        _gluon("vgg16").export(f"{folder}/net")
        weights = Path(folder, "net-0000.params").stat().st_size
        found = in_new_process(_MEMORY, f"{folder}/net")
    ratio = (found["peak"] - found["before"]) / weights
    return row("peak memory of VGG-16 above imports, over its weights", ratio, 1.5, "x", weights=weights, **found)


def import_time() -> Row:
    """``import harness`` beyond ``pass``, medians of new processes in turns; and that it imports nothing heavy."""
    code = "import harness, sys; bad = {'mxnet', 'onnxruntime', 'tensorrt', 'pycuda'} & set(sys.modules); sys.exit(len(bad))"
    taken: dict[str, list[float]] = {"pass": [], code: []}
    for _ in range(15):
        for text, times in taken.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], cwd=ROOT, env=environment(), check=True)
            times.append(time.perf_counter() - start)
    more = statistics.median(taken[code]) - statistics.median(taken["pass"])
    return row("import harness, beyond python -c pass", more, 0.3, "s")


FUZZED = {"json": 1_500, "params": 500, "operator": 1_000, "artifact": 500, "plan": 500, "table": 300}  # cases


def fuzz() -> Row:
    """Mutated files of every kind and wrong arguments that end in anything but an answer or a HarnessError."""
    from suites.meta.fuzz import EXHAUSTIVE, run

    bad: list[dict[str, Any]] = []
    ended: dict[str, dict[str, int]] = {}
    for kind, count in {**FUZZED, **EXHAUSTIVE}.items():
        tally, found = run(kind, 0, count)
        ended[kind], bad = dict(tally), bad + found
    total = sum({**FUZZED, **EXHAUSTIVE}.values())
    what = f"of {total:,} mutated files and wrong arguments, those that end in neither an answer nor a HarnessError"
    return row(what, len(bad), 0, "", cases=total, ended=ended, bad=bad[:20])


ROWS: dict[str, Callable[[], Row]] = {
    "speed-resnet50": lambda: _speed("resnet50_v1", 1.3),
    "speed-vgg16": lambda: _speed("vgg16", 1.0),
    "speed-mobilenet": lambda: _speed("mobilenetv2_1.0", 1.1),
    "overhead-one-node": overhead_one_node,
    "overhead-resnet50": overhead_resnet50,
    "conversion-resnet152": conversion_resnet152,
    "conversion-linear": conversion_linear,
    "memory-vgg16": memory_vgg16,
    "import": import_time,
    "fuzz": fuzz,
}


if __name__ == "__main__":
    sys.exit(main("scripts.bench_spine", ROWS, ROOT / "reports" / "spine.json", __doc__, limits={"fuzz": 3600}))
