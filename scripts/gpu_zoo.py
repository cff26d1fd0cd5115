"""Networks on a GPU against MXNet: agreement, segments, build time, plan size, memory, latency.

Each network in each precision is a process.

    python -m scripts.gpu_zoo [--out reports/gpu] [--networks resnet50_v1,gluoncv.yolo3_mobilenet0.25_voc] [--resume FILE]
                              [--precisions fp32,fp16,bf16,int8] [--jobs 2] [--engine tensorrt] [--level 1]

The networks are Gluon's, with weights and images as in suites/models, which hold them to MXNet in float64 on the CPU,
and one of each large family of GluonCV's, as scripts/zoo_networks.py has them: detectors up to their sorting. Float
precisions are held to the same error model. INT8 is another function, so there the engine is held to the same quantized
model on ONNX Runtime: its signal-to-noise ratio against MXNet may be 3 dB lower (half the noise again, which 16-bit
arithmetic between the 8-bit layers may add). Writes OUT/zoo.json as they finish.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import numerics
from harness.compiler import compile_graph
from harness.frontend.mxnet import read_model
from harness.graph import Graph
from scripts import gpu_networks
from scripts.gpu_queue import Row, smi, spread
from scripts.gpu_speed_table import short
from scripts.zoo_networks import build, random_weights
from scripts.zoo_reference import in_float64, past_sorting, with_masked_regions
from suites.models.gluon_zoo import NAMES, Reference, network, size_of

BATCH = 2
WITHIN_DB = 3.0
OF_GLUONCV = "gluoncv."
GLUONCV = (
    "cifar_resnet20_v1", "mobilenetv3_small", "shufflenet_v1", "resnest50", "se_resnext50_32x4d", "xception",
    "ssd_300_mobilenet0.25_voc", "yolo3_mobilenet0.25_voc", "center_net_resnet18_v1b_voc", "simple_pose_resnet18_v1b",
    "mobile_pose_mobilenetv3_small", "fcn_resnet50_voc", "monodepth2_resnet18_posenet_kitti_mono_640x192",
    "i3d_inceptionv1_kinetics400",
)  # fmt: skip
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """A network with its parameters and inputs; ``exact`` is the graph that MXNet runs in float64."""

    graph: Graph
    params: Arrays
    inputs: Arrays
    exact: Graph

    @functools.cached_property
    def reference(self) -> Reference:
        return Reference(self.exact, self.params, self.inputs)


def prepared(name: str) -> Network:
    if name.startswith(OF_GLUONCV):
        return of_gluoncv(name.removeprefix(OF_GLUONCV))
    size = size_of(name, quick=False)
    graph, params = network(name, size)
    image = np.random.default_rng(1).uniform(-1, 1, (BATCH, 3, size, size)).astype(np.float32)
    return Network(graph, params, {"data": image}, graph)


def of_gluoncv(name: str) -> Network:
    gpu_networks.gluoncv()
    symbol, params, data = build(name, random_weights)
    symbol, inputs = past_sorting(symbol, params, data) or (symbol, {"data": data})
    graph, kept = read_model(symbol, params, list(inputs))
    return Network(
        graph,
        kept,
        inputs,
        read_model(in_float64(with_masked_regions(symbol)), params, list(inputs))[0],
    )


def options_of(engine: str, precision: str, level: int, inputs: Arrays) -> Row:
    options: Row = {"optimization_level": level, "plan_cache": False} if engine == "tensorrt" else {}
    if precision == "int8":
        rng = np.random.default_rng(5)
        shape = inputs["data"].shape
        samples = [{**inputs, "data": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
        options |= {"calibration": samples, "calibrator": "minmax", "base_precision": "fp16"}
    return options


def run_one(name: str, precision: str, engine: str, level: int) -> Row:
    ready = prepared(name)
    started = time.perf_counter()
    try:
        cell = measure(ready, engine, precision, level)
    except Exception as error:  # noqa: BLE001 - the row says what went wrong, whatever it was
        cell = {"status": "error", "error": f"{type(error).__name__}: {error}"[:2000]}
    cell |= {"seconds": round(time.perf_counter() - started, 2), "gpu": smi("name")}
    inputs = {key: list(array.shape) for key, array in ready.inputs.items()}
    return {"network": name, "inputs": inputs, "cells": {precision: cell}}


def compiled(ready: Network, engine: str, precision: str, level: int) -> Any:
    shapes = {name: array.shape for name, array in ready.inputs.items()}
    options = options_of(engine, precision, level, ready.inputs)
    return compile_graph(ready.graph, ready.params, shapes, engine, precision, "error", **options)


def measure(ready: Network, engine: str, precision: str, level: int) -> Row:
    started = time.perf_counter()
    model = compiled(ready, engine, precision, level)
    cell: Row = {"build_s": round(time.perf_counter() - started, 2), "segments": len(model.segments)}
    found = model(**ready.inputs)
    session: Any = model._program.steps[0].session
    if hasattr(session, "plan_bytes"):
        cell["plan_mib"] = round(len(session.plan_bytes()) / 2**20, 2)
        cell["device_memory_mib"] = round(session.device_memory / 2**20, 2)
    times = []
    for _ in range(30 if engine == "tensorrt" else 1):
        started = time.perf_counter()
        model(**ready.inputs)
        times.append(time.perf_counter() - started)
    cell["host_latency_ms"] = round(float(np.median(times[len(times) // 6 :])) * 1e3, 4)
    if precision == "int8":
        return {**cell, **quantized(ready, found[0])}
    cell["headroom"], cell["message"] = ready.reference.hold(found, precision)
    cell["status"] = "wrong" if cell["message"] else "ok"
    return cell


def quantized(ready: Network, found: np.ndarray) -> Row:
    exact = ready.reference.exact[0]
    other = compiled(ready, "onnxruntime", "int8", 0)(**ready.inputs)[0]
    ours, theirs = numerics.sqnr(found, exact), numerics.sqnr(other, exact)
    return {
        "sqnr_db": round(ours, 2), "onnxruntime_sqnr_db": round(theirs, 2),
        "top5": numerics.top_k_agreement(found, exact, 5) if exact.ndim == 2 else None,
        "status": "ok" if ours > theirs - WITHIN_DB else "wrong",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--networks", default=",".join([*NAMES, *(OF_GLUONCV + name for name in GLUONCV)]))
    parser.add_argument("--precisions", default="fp32,fp16,bf16,int8")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time on each GPU")
    parser.add_argument("--level", type=int, default=1, help="TensorRT's builder optimization level")
    parser.add_argument("--limit", type=float, default=7200, help="seconds for all")
    parser.add_argument("--resume", type=Path, help="an earlier zoo.json, of which the cells that are right are kept")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "PRECISION"), help="run this cell here, print its row")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(*options.one, options.engine, options.level)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.resume.read_text())["networks"] if options.resume else []
    rows: dict[str, Row] = {row["network"]: row for row in kept}
    failed: list[Row] = []

    def take(task: Sequence[str], row: Row) -> None:
        _, name, precision, *_ = task
        if "cells" in row:
            row["cells"] = {**rows.get(name, row)["cells"], **row["cells"]}
            rows[name] = row
        else:
            failed.append({"network": name, "precision": precision, **row})
        document = summary(list(rows.values()), options) | {"failed": failed}
        (options.out / "zoo.json").write_text(json.dumps(document, indent=1) + "\n")
        print(
            f"{name} {precision}: {row['cells'][precision]['status'] if 'cells' in row else row['error'][-300:]}",
            flush=True,
        )

    shared = ("--engine", options.engine, "--level", str(options.level))
    tasks = [
        ("--one", name, precision, *shared)
        for name in options.networks.split(",")
        for precision in options.precisions.split(",")
        if rows.get(name, {"cells": {}})["cells"].get(precision, {}).get("status") != "ok"
    ]
    spread("scripts.gpu_zoo", tasks, options.jobs, time.monotonic() + options.limit, take)
    return int(bool(failed) or any(c["status"] != "ok" for row in rows.values() for c in row["cells"].values()))


COLUMNS = ["network", "error over its bound: fp32", "fp16", "bf16", "int8: dB, and ONNX Runtime's", "build fp16, s",
           "plan fp16, MiB", "device memory fp16, MiB", "segments", "GPU"]  # fmt: skip


def summary(rows: Sequence[Row], options: argparse.Namespace) -> Row:
    """The stored document: counts first."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        for precision, cell in row["cells"].items():
            found = counts.setdefault(precision, {})
            found[cell["status"]] = found.get(cell["status"], 0) + 1
    ordered = sorted(rows, key=lambda row: row["network"])
    return {
        "command": "python -m scripts.gpu_zoo", "batch": BATCH, "optimization_level": options.level, "counts": counts,
        "columns": COLUMNS, "rows": [line(row) for row in ordered if row["cells"]], "networks": ordered,
    }  # fmt: skip


def line(row: Row) -> list[str]:
    """A network's row of the table."""
    cells: dict[str, Row] = row["cells"]
    half = cells.get("fp16", {})

    def error(precision: str) -> str:
        cell = cells.get(precision, {})
        return f"{cell['headroom']:.2g}" if "headroom" in cell else str(cell.get("status", ""))

    eight = cells.get("int8", {})
    decibels = str(eight.get("status", ""))
    if "sqnr_db" in eight:
        decibels = f"{eight['sqnr_db']:.1f}, {eight['onnxruntime_sqnr_db']:.1f}"
    sizes = [str(half.get(key, "")) for key in ("build_s", "plan_mib", "device_memory_mib", "segments")]
    names = ", ".join(sorted({short(cell["gpu"]) for cell in cells.values()}))
    return [row["network"], *map(error, ("fp32", "fp16", "bf16")), decibels, *sizes, names]


if __name__ == "__main__":
    sys.exit(main())
