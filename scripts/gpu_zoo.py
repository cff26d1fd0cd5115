"""Networks on a GPU against MXNet: agreement, segments, build time, plan size, memory, latency; one process each.

    python -m scripts.gpu_zoo [--out reports/gpu] [--networks resnet50_v1,vgg16] [--precisions fp32,fp16,bf16,int8]
                              [--jobs 2] [--engine tensorrt] [--level 2]

The networks are Gluon's, with weights and images as in suites/models, which hold them to MXNet in float64 on the CPU.
Float precisions are held to the same error model. INT8 is another function, so there the engine is held to the same
quantized model on ONNX Runtime: its signal-to-noise ratio against MXNet may be 3 dB lower (half the noise again, which
16-bit arithmetic between the 8-bit layers may add). Writes OUT/zoo.json as networks finish.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import numerics
from harness.compiler import compile_graph
from harness.graph import Graph
from scripts.gpu_queue import Row, spread
from suites.models.gluon_zoo import NAMES, InMXNet, held_to_mxnet, network, size_of

BATCH = 2
WITHIN_DB = 3.0
Arrays = Mapping[str, np.ndarray]


def options_of(engine: str, precision: str, level: int, shape: tuple[int, ...]) -> Row:
    options: Row = {"optimization_level": level, "plan_cache": False} if engine == "tensorrt" else {}
    if precision == "int8":
        rng = np.random.default_rng(5)
        samples = [{"data": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
        options |= {"calibration": samples, "calibrator": "minmax", "base_precision": "fp16"}
    return options


def run_one(name: str, precisions: Sequence[str], engine: str, level: int) -> Row:
    size = size_of(name, quick=False)
    shape = (BATCH, 3, size, size)
    graph, params = network(name, size)
    image = {"data": np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)}
    row: Row = {"network": name, "image": size, "cells": {}}
    for precision in precisions:
        started = time.perf_counter()
        try:
            cell = measure(graph, params, image, engine, precision, level)
        except Exception as error:  # noqa: BLE001 - the row says what went wrong, whatever it was
            cell = {"status": "error", "error": f"{type(error).__name__}: {error}"[:2000]}
        row["cells"][precision] = {**cell, "seconds": round(time.perf_counter() - started, 2)}
    return row


def measure(graph: Graph, params: Arrays, image: Arrays, engine: str, precision: str, level: int) -> Row:
    shape = image["data"].shape
    started = time.perf_counter()
    options = options_of(engine, precision, level, shape)
    model = compile_graph(graph, params, {"data": shape}, engine, precision, "error", **options)
    cell: Row = {"build_s": round(time.perf_counter() - started, 2), "segments": len(model.segments)}
    found = model(**image)
    session: Any = model._program.steps[0].session
    if hasattr(session, "plan_bytes"):
        cell["plan_mib"] = round(len(session.plan_bytes()) / 2**20, 2)
        cell["device_memory_mib"] = round(session.device_memory / 2**20, 2)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        model(**image)
        times.append(time.perf_counter() - started)
    cell["host_latency_ms"] = round(float(np.median(times[5:])) * 1e3, 4)
    if precision == "int8":
        return {**cell, **quantized(graph, params, image, found[0], shape)}
    cell["headroom"], cell["message"] = held_to_mxnet(graph, params, image, found, precision)
    cell["status"] = "wrong" if cell["message"] else "ok"
    return cell


def quantized(graph: Graph, params: Arrays, image: Arrays, found: np.ndarray, shape: tuple[int, ...]) -> Row:
    arrays = {**{name: np.asarray(a, np.float64) for name, a in params.items()}, **image}
    (exact,) = InMXNet(graph)(arrays)
    options = options_of("onnxruntime", "int8", 0, shape)
    other = compile_graph(graph, params, {"data": shape}, "onnxruntime", "int8", "error", **options)(**image)[0]
    ours, theirs = numerics.sqnr(found, exact), numerics.sqnr(other, exact)
    return {
        "sqnr_db": round(ours, 2), "onnxruntime_sqnr_db": round(theirs, 2),
        "top5": numerics.top_k_agreement(found, exact, 5), "status": "ok" if ours > theirs - WITHIN_DB else "wrong",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--networks", default=",".join(NAMES))
    parser.add_argument("--precisions", default="fp32,fp16,bf16,int8")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time on each GPU")
    parser.add_argument("--level", type=int, default=2, help="TensorRT's builder optimization level")
    parser.add_argument("--limit", type=float, default=7200, help="seconds for all")
    parser.add_argument("--one", help="run this network here, print its row")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one, options.precisions.split(","), options.engine, options.level)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []

    def take(task: Sequence[str], row: Row) -> None:
        rows.append({"network": task[1], "cells": {}, **row})
        (options.out / "zoo.json").write_text(json.dumps(summary(rows, options), indent=1) + "\n")
        states = {p: c.get("status") for p, c in rows[-1]["cells"].items()}
        print(f"[{len(rows)}] {task[1]}: {states or row.get('error', '')[-300:]}", flush=True)

    shared = ("--precisions", options.precisions, "--engine", options.engine, "--level", str(options.level))
    tasks = [("--one", name, *shared) for name in options.networks.split(",")]
    spread("scripts.gpu_zoo", tasks, options.jobs, time.monotonic() + options.limit, take)
    return int(any(c.get("status") != "ok" for row in rows for c in (row["cells"] or {"": {}}).values()))


def summary(rows: Sequence[Row], options: argparse.Namespace) -> Row:
    """The stored document: counts first."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        for precision, cell in row["cells"].items():
            found = counts.setdefault(precision, {})
            found[cell["status"]] = found.get(cell["status"], 0) + 1
    return {
        "command": "python -m scripts.gpu_zoo", "batch": BATCH, "optimization_level": options.level, "counts": counts,
        "networks": sorted(rows, key=lambda row: row["network"]),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
