"""Networks on a GPU against MXNet: agreement, segments, build time, plan size, memory, latency; one process each.

    python scripts/gpu_zoo.py --out reports/gpu [--networks resnet50_v1,vgg16] [--precisions fp32,fp16,bf16,int8]
                              [--jobs 8] [--engine tensorrt] [--level 2]

The networks are Gluon's with random weights; a name with a dot, ``gluoncv.NAME``, is GluonCV's. Float precisions are
held to the error model (the response is MXNet's own, to inputs and parameters rounded to that precision); int8 to the
signal-to-quantization-noise ratio and top-5 agreement. Writes OUT/zoo.json as networks finish.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import numerics
from harness.frontend.compat import mxnet
from scripts.gpu_networks import network, settle

NETWORKS_OF_GLUON = (
    [f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)]
    + [f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")]
    + ["alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "squeezenet1.0", "squeezenet1.1"]
    + ["inceptionv3", "mobilenet1.0", "mobilenet0.75", "mobilenet0.5", "mobilenet0.25"]
    + ["mobilenetv2_1.0", "mobilenetv2_0.75", "mobilenetv2_0.5", "mobilenetv2_0.25"]
)
BATCH = 2


def compiled(folder: Path, shape: tuple[int, ...], engine: str, precision: str, level: int) -> tuple[Any, float]:
    options: dict[str, Any] = {"cache_dir": str(folder / "cache")}
    if engine == "tensorrt":
        options["optimization_level"] = level
    if precision == "int8":
        rng = np.random.default_rng(5)
        options["calibration"] = [{"data": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
        options["calibrator"] = "minmax"
        options["base_precision"] = "fp16"
    started = time.perf_counter()
    model = harness.compile(
        str(folder / "net"), inputs={"data": shape}, engine=engine, precision=precision, fallback="error", **options
    )
    return model, time.perf_counter() - started


def run_one(name: str, precisions: list[str], engine: str, level: int, folder: Path) -> dict[str, Any]:
    mx = mxnet()
    net, size = network(name)
    shape = (BATCH, 3, size, size)
    settle(net, shape)
    net.hybridize()
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    net(mx.nd.array(x))
    folder.mkdir(parents=True, exist_ok=True)
    net.export(str(folder / "net"))
    parameters = {k: v.data() for k, v in net.collect_params().items()}
    held = {k: v.asnumpy() for k, v in parameters.items()}

    def reference(values: Any) -> list[np.ndarray]:
        for key, array in values.items():
            if key != "data":
                parameters[key][:] = mx.nd.array(array, dtype=array.dtype)
        return [net(mx.nd.array(values["data"])).asnumpy()]

    exact = reference({"data": x, **held})
    row: dict[str, Any] = {"network": name, "cells": {}}
    for precision in precisions:
        started = time.perf_counter()
        try:
            cell = measure(folder, shape, x, engine, precision, level, reference, held, exact[0])
        except Exception as error:  # noqa: BLE001 - the row says what went wrong, whatever it was
            cell = {"status": "error", "error": f"{type(error).__name__}: {error}"[:2000]}
        cell["seconds"] = round(time.perf_counter() - started, 2)
        row["cells"][precision] = cell
    return row


def measure(
    folder: Path, shape: tuple[int, ...], x: np.ndarray, engine: str, precision: str, level: int,
    reference: Any, held: dict[str, np.ndarray], exact: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    model, build = compiled(folder, shape, engine, precision, level)
    (found,) = model(data=x)
    cell: dict[str, Any] = {"segments": len(model.segments), "build_s": round(build, 2)}
    step = model._program.steps[0].session
    if hasattr(step, "plan_bytes"):
        cell["plan_mib"] = round(len(step.plan_bytes()) / 2**20, 2)
        cell["device_memory_mib"] = round(step.device_memory / 2**20, 2)
    if precision in ("int8", "fp8"):
        top = numerics.top_k_agreement(found, exact, 5)
        cell |= {"sqnr_db": round(numerics.sqnr(found, exact), 2), "top5": top}
        cell["status"] = "ok" if cell["sqnr_db"] > 10 else "wrong"
    else:
        (bound,) = numerics.response(reference, {"data": x, **held}, [exact], precision, draws=2)
        terms = max(int(array.size / array.shape[0]) for array in held.values() if array.ndim > 1)
        result = numerics.compare(found, exact, bound, precision, terms)
        cell |= {"headroom": round(result.headroom, 4), "max_error": result.max_error, "message": result.message}
        cell["sqnr_db"] = round(numerics.sqnr(found, exact), 2)
        cell["status"] = "ok" if result else "wrong"
    times = []
    for _ in range(30):
        started = time.perf_counter()
        model(data=x)
        times.append(time.perf_counter() - started)
    cell["latency_ms"] = round(float(np.median(times[5:])) * 1e3, 4)
    return cell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(NETWORKS_OF_GLUON))
    parser.add_argument("--precisions", default="fp32,fp16,bf16,int8")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--level", type=int, default=2, help="TensorRT's builder optimization level")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--one", help="run this network here, print its row")
    parser.add_argument("--work", type=Path, default=Path("/tmp/mxtrt-zoo"))
    options = parser.parse_args()
    if options.one:
        row = run_one(
            options.one, options.precisions.split(","), options.engine, options.level, options.work / options.one
        )
        print(json.dumps(row))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []

    def work(name: str) -> None:
        command = [sys.executable, __file__, "--one", name, "--out", str(options.out), "--work", str(options.work)]
        command += ["--precisions", options.precisions, "--engine", options.engine, "--level", str(options.level)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, check=False)
            row = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            row = {"network": name, "cells": {}, "error": f"not done after {options.limit} s"}
        except (ValueError, IndexError):
            row = {"network": name, "cells": {}, "error": f"exit status {done.returncode}: {done.stderr[-1500:]}"}
        rows.append(row)
        (options.out / "zoo.json").write_text(json.dumps(sorted(rows, key=lambda r: r["network"]), indent=1) + "\n")
        states = {p: c.get("status") for p, c in row["cells"].items()}
        print(f"[{len(rows)}] {name}: {states or row.get('error', '')[-300:]}", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, options.networks.split(",")))
    return int(any(c.get("status") != "ok" for row in rows for c in (row["cells"] or {"": {}}).values()))


if __name__ == "__main__":
    sys.exit(main())
