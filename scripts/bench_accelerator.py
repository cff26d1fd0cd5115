"""Measure the accelerator: overhead of a segment's call, one changed line on ResNet-50, the Gluon zoo, repetition.

    python scripts/bench_accelerator.py overhead resnet50 zoo repetition

Each part is added to reports/accelerator.json. Runs are interleaved, so that a busy machine is busy for both sides; the
load at the time is stored beside the numbers. MXNet runs as its users have it: hybridized, static memory, oneDNN on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.accelerator import binding
from harness.frontend.compat import mxnet

REPORT = Path(__file__).parents[1] / "reports" / "accelerator.json"
STATIC = {"static_alloc": True, "static_shape": True}


def _microseconds(call: Callable[[], Any], runs: int) -> list[float]:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return taken


def _zoo(name: str, size: int) -> tuple[Any, Any]:
    mx = mxnet()
    mx.random.seed(7)
    net = mx.gluon.model_zoo.vision.get_model(name)
    net.initialize(mx.init.Xavier(magnitude=2.0))
    x = mx.nd.random.uniform(-1, 1, (1, 3, size, size))
    net(x).wait_to_read()
    return net, x


def _bound(model: Any, x: Any, y: Any) -> Callable[[], None]:
    """The engine on memory of our own."""
    blocks = [binding.Block(array.ctypes.data, array.dtype, array.shape) for array in (x, y)]
    call = binding.on_cpu(model, blocks[:1], blocks[1:])
    assert call is not None
    _keep.extend((x, y))
    return call


_keep: list[Any] = []


def overhead(runs: int = 200) -> dict[str, Any]:
    """MXNet's whole call with a segment, and the engine's bound call alone, interleaved."""
    import harness.accelerator
    from harness.accelerator import segment

    mx = mxnet()

    class Relu(mx.gluon.HybridBlock):
        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return F.relu(x)

    found = {}
    resnet, image = _zoo("resnet18_v1", 32)
    plain = Relu()
    plain.hybridize(**STATIC)
    vector = mx.nd.ones((1, 16))
    for name, net, x in (("relu", Relu(), vector), ("resnet18_v1 of 32x32", resnet, image)):
        harness.accelerator.clear()
        net.optimize_for(x, backend="TensorRT", threads=1, **STATIC)
        for _ in range(5):
            net(x).wait_to_read()
        (built,) = [built for node in segment._nodes.values() for built in node.engines.values()]
        alone_call = _bound(built.model, x.asnumpy(), net(x).asnumpy())
        whole, alone, mxnets = [], [], []
        for _ in range(runs // 20):
            whole += _microseconds(lambda net=net, x=x: net(x).wait_to_read(), 20)
            alone += _microseconds(alone_call, 20)
            mxnets += _microseconds(lambda: plain(vector).wait_to_read(), 20)
        found[name] = {
            "call_us": {f"p{q}": round(float(np.percentile(whole, q)), 1) for q in (5, 25, 50)},
            "engine_us": {f"p{q}": round(float(np.percentile(alone, q)), 1) for q in (5, 25, 50)},
            "overhead_us": {
                f"p{q}": round(float(np.percentile(whole, q) - np.percentile(alone, q)), 1) for q in (5, 25, 50)
            },
            "mxnet_relu_us": {f"p{q}": round(float(np.percentile(mxnets, q)), 1) for q in (5, 25, 50)},
        }
        del net
        gc.collect()
    return found


def resnet50(rounds: int = 6) -> dict[str, Any]:
    """ResNet-50 v1, batch 1, 224 x 224: plain hybridized MXNet against one changed line, interleaved."""
    import harness.accelerator  # noqa: F401

    plain, x = _zoo("resnet50_v1", 224)
    fast, _ = _zoo("resnet50_v1", 224)
    plain.hybridize(**STATIC)
    fast.optimize_for(x, backend="TensorRT", **STATIC)
    difference = float(abs(plain(x) - fast(x)).max().asscalar() / abs(plain(x)).max().asscalar())
    times: dict[str, list[float]] = {"mxnet": [], "accelerated": []}
    for _ in range(rounds):
        for name, net in (("mxnet", plain), ("accelerated", fast)):
            net(x).wait_to_read()
            times[name] += _microseconds(lambda net=net: net(x).wait_to_read(), 4)
    medians = {name: float(np.median(values)) / 1e3 for name, values in times.items()}
    fastest = {name: float(np.min(values)) / 1e3 for name, values in times.items()}
    return {
        "median_ms": medians,
        "fastest_ms": fastest,
        "speedup_median": round(medians["mxnet"] / medians["accelerated"], 3),
        "speedup_fastest": round(fastest["mxnet"] / fastest["accelerated"], 3),
        "largest_difference": difference,
    }


def repetition(calls: int = 500, rebuilds: int = 1000) -> dict[str, Any]:
    """8 threads x 500 calls, and 1,000 rebuilds because of new weights: right numbers, and no growth."""
    import harness.accelerator  # noqa: F401

    mx = mxnet()
    mx.random.seed(7)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(8, 3), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(10))
    net.initialize(mx.init.Xavier())
    images = [mx.nd.random.uniform(-1, 1, (1, 3, 8, 8)) for _ in range(8)]
    expected = [net(image).asnumpy() for image in images]
    net.optimize_for(images[0], backend="TensorRT", threads=1, **STATIC)
    wrong = []

    def right(k: int) -> bool:
        return bool(np.allclose(net(images[k]).asnumpy(), expected[k], rtol=1e-4, atol=1e-6))

    def work(k: int) -> None:
        wrong.extend(k for _ in range(calls) if not right(k))

    right(0)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    weight = next(iter(net.collect_params().values()))
    sizes = []
    for step in range(rebuilds):
        weight.set_data(weight.data() * 1)
        wrong.extend([step] if not right(step % 8) else [])
        if step % (rebuilds // 10) == 0:
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    return {
        "threads": 8, "calls": calls, "wrong": len(wrong), "seconds": round(seconds, 2), "rebuilds": rebuilds,
        "resident_mb": [round(size / 1e6, 1) for size in sizes],
    }  # fmt: skip


def zoo(limit: int | None = None) -> dict[str, Any]:
    """The 34 Gluon networks through net.optimize_for and sym.optimize_for, against harness.compile's answer."""
    import harness.accelerator
    from suites.models.gluon_zoo import NAMES, size_of

    mx = mxnet()
    found: dict[str, Any] = {}
    for name in NAMES[:limit]:
        net, x = _zoo(name, size_of(name, True))
        net.hybridize()
        net(x).wait_to_read()
        model = harness.compile(net, inputs={"data": x.shape}, engine="onnxruntime", fallback="error", threads=2)
        (expected,) = model(data=x.asnumpy())
        del model
        symbol = net(mx.sym.Variable("data"))
        values = {key: parameter.data() for key, parameter in net.collect_params().items()}
        aux = {key: values[key] for key in symbol.list_auxiliary_states()}
        args = {**{key: value for key, value in values.items() if key not in aux}, "data": x}
        partitioned = symbol.optimize_for("TensorRT", args, aux, threads=2)
        operators = [node["op"] for node in json.loads(partitioned.tojson())["nodes"] if node["op"] != "null"]
        bound = partitioned.bind(mx.cpu(), args, aux_states=aux, grad_req="null")
        through_symbol = bound.forward(is_train=False)[0].asnumpy()
        net.optimize_for(x, backend="TensorRT", threads=2)
        through_block = net(x).asnumpy()
        found[name] = {
            "segments": operators.count("_mxtrt_segment"),
            "left_to_mxnet": len(operators) - operators.count("_mxtrt_segment"),
            "symbol_equal": bool(np.array_equal(through_symbol, expected)),
            "block_equal": bool(np.array_equal(through_block, expected)),
        }
        print(name, found[name], flush=True)
        harness.accelerator.clear()
        del net, bound, partitioned, values, args, aux, symbol
        gc.collect()
    equal = sum(entry["symbol_equal"] and entry["block_equal"] for entry in found.values())
    return {"equal": equal, "of": len(found), "networks": found}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "overhead": overhead, "resnet50": resnet50, "repetition": repetition, "zoo": zoo,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=list(PARTS))
    report = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    for part in parser.parse_args().parts:
        load = os.getloadavg()[0]
        result = PARTS[part]()
        report[part] = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_before": round(load, 1), **result,
        }  # fmt: skip
        print(part, json.dumps({k: v for k, v in report[part].items() if k != "networks"}))
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
