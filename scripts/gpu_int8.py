"""Small INT8 networks on a GPU against the same quantized model in ONNX Runtime: what TensorRT refuses or gets wrong.

    python -m scripts.gpu_int8 [--out reports/gpu] [--cases "leaky;hswish"] [--bases fp16,fp32] [--jobs 3] [--engine tensorrt]
                               [--resume FILE]

Each case is a few layers around one pattern: an activation, groups, a depthwise convolution, volumes. Its weights and
images are random with fixed seeds. Both signal-to-noise ratios are against ONNX Runtime in float32; TensorRT's may be 3
dB lower. A case of which all is left wide has no verdict. docs/int8.md says what is left wide, and why. Writes OUT/int8.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import numerics
from harness.compiler import compile_graph
from harness.frontend.compat import mxnet
from harness.frontend.mxnet import read_model
from harness.graph import Graph
from scripts.gpu_queue import Row, smi, spread

WITHIN_DB = 3.0
ALL_WIDE = "nothing in 8 bits"
SETTLED = ("right", ALL_WIDE)
IMAGE, VOLUME = (2, 16, 28, 28), (1, 16, 4, 16, 16)
BASES = ("fp16", "fp32")
COLUMNS = ["case", "base", "dB", "ONNX Runtime's", "state", "GPU"]
Array = npt.NDArray[Any]


class Layers:
    """Makes layers, and the parameters of those that have some."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self._sym = mxnet().sym
        self._random = np.random.default_rng(1)
        self._count = 0

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def conv(self, x: Any, inputs: int, outputs: int, side: int = 1, group: int = 1, axes: int = 2) -> Any:
        """A convolution with a kernel of this side on each axis, padded to keep the size."""
        name, shape = self._name("conv"), (outputs, inputs // group, *[side] * axes)
        scale = np.sqrt(2 / np.prod(shape[1:]))
        self.params[f"{name}_weight"] = (self._random.standard_normal(shape) * scale).astype(np.float32)
        self.params[f"{name}_bias"] = (self._random.standard_normal(outputs) * 0.1).astype(np.float32)
        return self._sym.Convolution(
            x, self._sym.var(f"{name}_weight"), self._sym.var(f"{name}_bias"), kernel=shape[2:], num_filter=outputs,
            num_group=group, pad=[side // 2] * axes, name=name,
        )  # fmt: skip

    def relu(self, x: Any) -> Any:
        return self._sym.Activation(x, act_type="relu", name=self._name("relu"))

    def relu6(self, x: Any) -> Any:
        return self._sym.clip(x, 0, 6, name=self._name("relu6"))

    def leaky(self, x: Any) -> Any:
        return self._sym.LeakyReLU(x, act_type="leaky", slope=0.1, name=self._name("leaky"))

    def prelu(self, x: Any) -> Any:
        name = self._name("prelu")
        self.params[f"{name}_gamma"] = np.full(32, 0.25, np.float32)
        return self._sym.LeakyReLU(x, self._sym.var(f"{name}_gamma"), act_type="prelu", name=name)

    def elu(self, x: Any) -> Any:
        return self._sym.LeakyReLU(x, act_type="elu", slope=1.0, name=self._name("elu"))

    def tanh(self, x: Any) -> Any:
        return self._sym.Activation(x, act_type="tanh", name=self._name("tanh"))

    def hsigmoid(self, x: Any) -> Any:
        return self.relu6(x + 3) / 6

    def hswish(self, x: Any) -> Any:
        return x * self.hsigmoid(x)

    def swish(self, x: Any) -> Any:
        return x * self._sym.sigmoid(x, name=self._name("sigmoid"))

    def pool(self, x: Any, kind: str, axes: int) -> Any:
        """A maximum over a window of 3 (in volumes of 1 along the first axis), or the mean of all."""
        name = self._name("pool")
        if kind == "avg":
            return self._sym.Pooling(x, global_pool=True, pool_type="avg", kernel=[1] * axes, name=name)
        window = {"kernel": [3] * axes, "stride": [2] * axes, "pad": [1] * axes}
        flat = {key: [1 if key != "pad" else 0, *sizes[1:]] if axes == 3 else sizes for key, sizes in window.items()}
        return self._sym.Pooling(x, pool_type="max", name=name, **flat)

    def scaled(self, x: Any, by: Any) -> Any:
        return self._sym.broadcast_mul(x, by, name=self._name("mul"))


Build = Callable[[Layers, Any], Any]


def between(activation: str) -> Build:
    """Two convolutions, an activation between."""

    def build(net: Layers, x: Any) -> Any:
        return net.conv(getattr(net, activation)(net.conv(x, 16, 32, 3)), 32, 32, 3)

    return build


def inverted(channels: int, activation: str, narrow: int, times: int = 2) -> Build:
    """MobileNet-V2's bottlenecks: expanded, depthwise, and back to ``narrow`` channels, fewer than 16 of which stay wide."""

    def build(net: Layers, x: Any) -> Any:
        act, inputs = getattr(net, activation), 16
        for _ in range(times):
            x = act(net.conv(x, inputs, channels))
            x = net.conv(act(net.conv(x, channels, channels, 3, channels)), channels, narrow)
            inputs = narrow
        return x

    return build


def ending(activation: str) -> Build:
    """A quantized convolution, an activation, and what reads it in more bits: fewer than 16 channels stay wide."""

    def build(net: Layers, x: Any) -> Any:
        return net.conv(getattr(net, activation)(net.conv(x, 16, 32)), 32, 12)

    return build


def depthwise_last(net: Layers, x: Any) -> Any:
    return net.relu6(net.conv(net.relu6(net.conv(x, 16, 48)), 48, 48, 3, 48))


def dense_then_narrow(net: Layers, x: Any) -> Any:
    return net.conv(net.relu6(net.conv(net.relu(net.conv(x, 16, 48)), 48, 48, 3)), 48, 12)


def squeeze_and_excite(net: Layers, x: Any) -> Any:
    x = net.relu(net.conv(x, 16, 32, 3))
    gate = net.conv(net.relu(net.conv(net.pool(x, "avg", 2), 32, 16)), 16, 32)
    return net.conv(net.scaled(x, net.hsigmoid(gate)), 32, 32, 3)


def grouped(group: int, inputs: int, outputs: int, ends: bool = False) -> Build:
    """A convolution in groups of so many channels between dense ones; the last, if it ``ends``."""

    def build(net: Layers, x: Any) -> Any:
        x = net.relu(net.conv(x, 16, group * inputs))
        x = net.relu(net.conv(x, group * inputs, group * outputs, 3, group))
        return x if ends else net.conv(x, group * outputs, 16)

    return build


def volume(pool: str, side: int = 3) -> Build:
    """Three convolutions over volumes, perhaps with a pooling behind the first or the last."""

    def build(net: Layers, x: Any) -> Any:
        x = net.relu(net.conv(x, 16, 32, side, axes=3))
        if pool == "max":
            x = net.pool(x, "max", 3)
        x = net.conv(net.relu(net.conv(x, 32, 32, side, axes=3)), 32, 32, side, axes=3)
        return net.pool(net.relu(x), "avg", 3) if pool == "avg" else x

    return build


ACTIVATIONS = ("relu", "relu6", "leaky", "prelu", "elu", "hswish", "swish", "tanh")
GROUPS = (
    (8, 2, 2), (8, 3, 3), (8, 4, 4), (32, 4, 4), (8, 6, 6), (3, 8, 8), (4, 8, 8), (4, 16, 16), (3, 16, 32), (3, 18, 18),
    (3, 18, 72), (3, 20, 20), (3, 24, 24), (2, 32, 32), (4, 32, 32),
)  # fmt: skip
CASES: dict[str, tuple[Build, Sequence[int]]] = {
    **{name: (between(name), IMAGE) for name in ACTIVATIONS},
    **{f"{name}, to 12": (ending(name), IMAGE) for name in ACTIVATIONS},
    "squeeze and excite": (squeeze_and_excite, IMAGE),
    **{f"depthwise {c}, {act}, to {n}": (inverted(c, act, n), IMAGE)
       for c, act, n in ((48, "relu6", 16), (36, "relu6", 16), (18, "relu6", 16), (48, "hswish", 16), (48, "leaky", 16),
                         (48, "relu6", 12), (48, "relu", 12), (64, "relu6", 12), (64, "relu", 8))},
    "depthwise 48, relu6, to 12, once": (inverted(48, "relu6", 12, 1), IMAGE),
    "depthwise 48, the last": (depthwise_last, IMAGE),
    "dense, to 12": (dense_then_narrow, IMAGE),
    **{f"{g} groups of {i} to {o}": (grouped(g, i, o), IMAGE) for g, i, o in GROUPS},
    **{f"{g} groups of {i} to {o}, the last": (grouped(g, i, o, True), IMAGE) for g, i, o in ((8, 4, 4), (4, 16, 16))},
    **{f"volumes{', ' if pool else ''}{pool}": (volume(pool), VOLUME) for pool in ("", "max", "avg")},
    "volumes of 1": (volume("", 1), VOLUME),
}  # fmt: skip


def made(case: str) -> tuple[Graph, Mapping[str, Array], dict[str, Array]]:
    """The graph of a case, its parameters and its input."""
    build, shape = CASES[case]
    net = Layers()
    symbol = build(net, mxnet().sym.var("data"))
    params = {name: mxnet().nd.array(array) for name, array in net.params.items()}
    graph, kept = read_model(symbol, params, ["data"])
    return graph, kept, {"data": image(shape, 2)}


def image(shape: Sequence[int], seed: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def compiled(
    case: str, engine: str, precision: str, base: str = "fp32", **options: Any
) -> tuple[Any, dict[str, Array]]:
    """The model of a case, and its input."""
    graph, params, inputs = made(case)
    shapes = {name: array.shape for name, array in inputs.items()}
    if precision == "int8":
        samples = [{"data": image(inputs["data"].shape, seed)} for seed in (9, 10, 11)]
        options |= {"calibration": samples, "calibrator": "minmax", "base_precision": base}
    return compile_graph(graph, params, shapes, engine, precision, "error", **options), inputs


def answer(*args: str, **options: Any) -> Array:
    """The first output of a case; the arguments are those of ``compiled``."""
    model, inputs = compiled(*args, **options)
    return np.asarray(model(**inputs)[0])


def verdict(ours: float, theirs: float, quantizes: bool) -> str:
    """On signal-to-noise ratios in dB, of TensorRT and of ONNX Runtime."""
    if not quantizes:
        return ALL_WIDE
    return "right" if ours > theirs - WITHIN_DB else "wrong"


def run_one(case: str, base: str, engine: str) -> Row:
    exact = answer(case, "onnxruntime", "fp32")
    model, inputs = compiled(case, "onnxruntime", "int8", base)
    theirs = numerics.sqnr(model(**inputs)[0], exact)
    quantizes = any(node.op_type == "QuantizeLinear" for node in model.plan.models[0].graph)
    row: Row = {"case": case, "base": base, "onnxruntime_sqnr_db": round(theirs, 2), "gpu": smi("name")}
    options = {"optimization_level": 1, "plan_cache": False} if engine == "tensorrt" else {}
    started = time.perf_counter()
    try:
        ours = numerics.sqnr(answer(case, engine, "int8", base, **options), exact)
        row |= {"sqnr_db": round(ours, 2), "state": verdict(ours, theirs, quantizes)}
    except Exception as error:  # noqa: BLE001 - the row says what went wrong, whatever it was
        row |= {"state": "not built", "error": f"{type(error).__name__}: {error}"[:1000]}
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def document(rows: Sequence[Row]) -> Row:
    """What is stored."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return {
        "command": "python -m scripts.gpu_int8", "counts": counts, "columns": COLUMNS,
        "rows": [
            [row["case"], row["base"], str(row.get("sqnr_db", "")), str(row["onnxruntime_sqnr_db"]), row["state"],
             row["gpu"].removeprefix("NVIDIA ")] for row in rows
        ],
        "cases": list(rows),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--cases", help="some of them, with semicolons between; all if left out")
    parser.add_argument("--bases", default=",".join(BASES))
    parser.add_argument("--jobs", type=int, default=3, help="processes at a time on each GPU")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all")
    parser.add_argument(
        "--resume", type=Path, help="an earlier int8.json, of which the cases that are right, or all wide, are kept"
    )
    parser.add_argument("--one", nargs=2, metavar=("CASE", "BASE"), help="run this one here, print its row")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(*options.one, options.engine)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.resume.read_text())["cases"] if options.resume else []
    rows: list[Row] = [row for row in kept if row["state"] in SETTLED]
    done = {(row["case"], row["base"]) for row in rows}

    def take(task: Sequence[str], row: Row) -> None:
        _, case, base, *_ = task
        if "state" not in row:
            row = {"case": case, "base": base, "onnxruntime_sqnr_db": "", "gpu": "", "state": "not run", **row}
        rows.append(row)
        (options.out / "int8.json").write_text(json.dumps(document(rows), indent=1) + "\n")
        print(f"{case}, {base}: {row['state']} {row.get('sqnr_db', '')}", flush=True)

    cases = options.cases.split(";") if options.cases else CASES
    tasks = [
        ("--one", case, base, "--engine", options.engine)
        for base in options.bases.split(",")
        for case in cases
        if (case, base) not in done
    ]
    spread("scripts.gpu_int8", tasks, options.jobs, time.monotonic() + options.limit, take)
    return int(any(row["state"] not in SETTLED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
