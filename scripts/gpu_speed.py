"""Speed on a GPU, interleaved in one process: mxtrt in FP16 and INT8, torch.compile and eager PyTorch, raw enqueue.

    python scripts/gpu_speed.py --out reports/gpu --prepare [--jobs 6]   builds and autotunes everything into caches
    python scripts/gpu_speed.py --out reports/gpu                        measures, from those caches

Every contender has the same weights (the PyTorch module is made from MXNet's own graph) and its input on the GPU. A
round is every contender once, in an order that turns each round; a contender's turn is a block of calls between two
CUDA events. The figure of a run is the median of its blocks; ratios are of those. Writes OUT/speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

WORK = Path("/tmp/mxtrt-speed")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(WORK / "inductor"))
os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")

CELLS = {"resnet50_v1": (1, 8, 32, 128), "vgg16": (1, 32, 128), "mobilenetv2_1.0": (1, 32, 128)}
PRECISIONS = ("fp16", "int8")
ROUNDS, TURN_SECONDS = 9, 0.06


def export(name: str) -> Path:
    """The network's files, written once."""
    folder = WORK / name
    if not (folder / "net-0000.params").exists():
        from harness.frontend.compat import mxnet
        from scripts.gpu_zoo import network, settle

        mx = mxnet()
        net, size = network(name)
        settle(net, (2, 3, size, size))
        net.hybridize()
        net(mx.nd.zeros((1, 3, size, size)))
        folder.mkdir(parents=True, exist_ok=True)
        net.export(str(folder / "net"))
    return folder


def compile_engine(name: str, batch: int, precision: str) -> tuple[Any, float]:
    import harness

    shape = (batch, 3, 224, 224)
    options: dict[str, Any] = {}
    if precision == "int8":
        rng = np.random.default_rng(5)
        table = WORK / name / "ranges.json"
        options = {"base_precision": "fp16", "calibration_table": str(table)}
        if not table.exists():
            samples = [{"data": rng.uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)} for _ in range(4)]
            write_table(name, samples, table)
    started = time.perf_counter()
    model = harness.compile(
        str(WORK / name / "net"), inputs={"data": shape}, engine="tensorrt", precision=precision, fallback="error",
        cache_dir=str(WORK / "plans"), **options,
    )  # fmt: skip
    return model, time.perf_counter() - started


def write_table(name: str, samples: list[dict[str, np.ndarray]], path: Path) -> None:
    """Activation ranges from samples, by largest magnitude."""
    import harness
    from harness.precision.calibration import collect, save_table
    from harness.precision.fold import fold_batch_norm
    from harness.precision.quantize import find_sites

    shape = samples[0]["data"].shape
    model = harness.compile(str(WORK / name / "net"), inputs={"data": shape}, engine="onnxruntime", fallback="error")
    part = model.plan.models[0]
    fold_batch_norm(part)
    names = [site.tensor for site in find_sites(part) if site.weight_axis is None]
    histograms = collect(part, list(dict.fromkeys(names)), samples)
    save_table(path, {key: histogram.amax for key, histogram in histograms.items()}, "minmax")


def twin(name: str) -> Any:
    import torch

    from harness.frontend.mxnet import read_model
    from scripts.torch_twin import Twin

    graph, params = read_model(str(WORK / name / "net"), None, [])
    module = Twin(graph, params).cuda().half().eval()
    return module.to(memory_format=torch.channels_last)


def compiled_twin(module: Any, x: Any) -> Any:
    import torch

    torch._dynamo.reset()
    fast = torch.compile(module, mode="max-autotune")
    with torch.inference_mode():
        for _ in range(3):
            fast(x)
    torch.cuda.synchronize()
    return fast


def image(batch: int, dtype: str) -> Any:
    import torch

    generator = torch.Generator("cuda").manual_seed(batch)
    x = torch.rand((batch, 3, 224, 224), generator=generator, device="cuda") * 2 - 1
    return x.half().to(memory_format=torch.channels_last) if dtype == "fp16" else x


# --- measuring -------------------------------------------------------------------------------------------------------


class Contender:
    """Something that enqueues one batch on a stream."""

    def __init__(self, call: Callable[[], Any], stream: Any) -> None:
        self.call, self.stream = call, stream
        self.blocks: list[float] = []
        self.walls: list[float] = []
        self.count = 1

    def calibrate(self) -> None:
        import torch

        for _ in range(5):
            self.call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            self.call()
        torch.cuda.synchronize()
        self.count = max(3, int(TURN_SECONDS / ((time.perf_counter() - started) / 5)))

    def turn(self) -> None:
        import torch

        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        started = time.perf_counter()
        begin.record(self.stream)
        for _ in range(self.count):
            self.call()
        end.record(self.stream)
        end.synchronize()
        self.walls.append((time.perf_counter() - started) / self.count)
        self.blocks.append(begin.elapsed_time(end) / 1e3 / self.count)


def contenders(name: str, batch: int) -> tuple[dict[str, Contender], dict[str, Any], list[Any]]:
    import torch

    import harness.numerics as numerics

    stream = torch.cuda.Stream()
    found: dict[str, Contender] = {}
    notes: dict[str, Any] = {"load_s": {}, "sqnr_db": {}}
    keep: list[Any] = []
    x32, x16 = image(batch, "fp32"), image(batch, "fp16")
    module = twin(name)
    with torch.inference_mode():
        expected = module.float()(x32).cpu().numpy()
        module = module.half()
    for precision in PRECISIONS:
        model, seconds = compile_engine(name, batch, precision)
        notes["load_s"][precision] = round(seconds, 3)
        session = model._program.steps[0].session
        output = torch.empty((batch, 1000), device="cuda")
        keep += [model, output]

        pending: deque[Any] = deque(maxlen=8)  # a run that is dropped is awaited: keep a few under way

        def enqueue(session: Any = session, output: Any = output, pending: deque[Any] = pending) -> None:
            pending.append(session.enqueue([x32], [output], stream.cuda_stream))

        enqueue()
        torch.cuda.synchronize()
        notes["sqnr_db"][precision] = round(numerics.sqnr(output.cpu().numpy(), expected), 2)
        found[f"mxtrt {precision}"] = Contender(enqueue, stream)
        context = session.engine.create_execution_context()
        context.set_tensor_address(session.input_names[0], x32.data_ptr())
        context.set_tensor_address(session.output_names[0], output.data_ptr())
        keep.append(context)
        found[f"raw {precision}"] = Contender(lambda c=context: c.execute_async_v3(stream.cuda_stream), stream)
        graph = capture(lambda c=context: c.execute_async_v3(stream.cuda_stream), stream)
        found[f"raw graph {precision}"] = Contender(on(stream, graph.replay), stream)
        keep.append(graph)
    with torch.inference_mode():
        fast = compiled_twin(module, x16)
        found["torch.compile fp16"] = Contender(inference(stream, fast, x16), stream)
        found["torch eager fp16"] = Contender(inference(stream, module, x16), stream)
    return found, notes, keep


def capture(call: Callable[[], Any], stream: Any) -> Any:
    import torch

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


def on(stream: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    def run() -> None:
        with torch.cuda.stream(stream):
            call()

    return run


def inference(stream: Any, module: Any, x: Any) -> Callable[[], Any]:
    import torch

    def run() -> None:
        with torch.cuda.stream(stream), torch.inference_mode():
            module(x)

    return run


def measure(name: str, batch: int) -> dict[str, Any]:
    found, notes, keep = contenders(name, batch)
    for contender in found.values():
        contender.calibrate()
    order = list(found)
    for number in range(ROUNDS):
        for key in order if number % 2 == 0 else order[::-1]:
            found[key].turn()
        order = order[1:] + order[:1]
    del keep
    rows = {
        key: {
            "gpu_ms": round(float(np.median(c.blocks)) * 1e3, 5),
            "wall_ms": round(float(np.median(c.walls)) * 1e3, 5),
            "img_s": round(batch / float(np.median(c.walls)), 1),
            "blocks_ms": [round(b * 1e3, 5) for b in c.blocks],
        }
        for key, c in found.items()
    }
    best = min(rows["torch.compile fp16"]["wall_ms"], rows["torch eager fp16"]["wall_ms"])
    ratios = {f"{k} over torch": round(best / rows[k]["wall_ms"], 3) for k in ("mxtrt fp16", "mxtrt int8")}
    for precision in PRECISIONS:
        raw = min(rows[f"raw {precision}"]["wall_ms"], rows[f"raw graph {precision}"]["wall_ms"])
        ratios[f"mxtrt {precision} over raw enqueue"] = round(rows[f"mxtrt {precision}"]["wall_ms"] / raw, 4)
    return {"network": name, "batch": batch, "rows": rows, "ratios": ratios, **notes}


def prepare(kind: str, name: str, batch: int) -> float:
    started = time.perf_counter()
    if kind == "torch":
        compiled_twin(twin(name), image(batch, "fp16"))
        return time.perf_counter() - started
    return compile_engine(name, batch, kind)[1]


def machine() -> dict[str, Any]:
    import tensorrt
    import torch

    query = "name,driver_version,clocks.sm,clocks.mem,power.limit,mig.mode.current"
    smi = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True
    )
    return {
        "gpu": smi.stdout.strip(), "fields": query, "tensorrt": tensorrt.__version__, "torch": torch.__version__,
        "cuda": torch.version.cuda, "python": sys.version.split()[0], "numpy": np.__version__,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--limit", type=float, default=420, help="seconds after which no further cell is begun")
    parser.add_argument("--task", nargs=3, metavar=("KIND", "NETWORK", "BATCH"))
    options = parser.parse_args()
    if options.task:
        kind, name, batch = options.task
        print(json.dumps({"task": options.task, "seconds": round(prepare(kind, name, int(batch)), 2)}))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for name in CELLS:
        export(name)
    if options.prepare:
        return prepare_all(options)
    results = []
    for position in range(max(map(len, CELLS.values()))):
        for name, batches in CELLS.items():
            batch = batches[::-1][position] if position < len(batches) else None
            if batch is None or time.perf_counter() - began > options.limit:
                continue
            try:
                results.append(measure(name, batch))
                print(json.dumps({"network": name, "batch": batch, **results[-1]["ratios"]}), flush=True)
            except Exception as error:  # noqa: BLE001 - the other cells are worth having
                print(f"{name} x{batch}: {type(error).__name__}: {error}", flush=True)
            document = {"machine": machine(), "cells": results}
            (options.out / "speed.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def prepare_all(options: argparse.Namespace) -> int:
    for name in CELLS:
        if not (WORK / name / "ranges.json").exists():
            rng = np.random.default_rng(5)
            samples = [{"data": rng.uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)} for _ in range(4)]
            write_table(name, samples, WORK / name / "ranges.json")
    tasks = [(kind, n, b) for n, batches in CELLS.items() for b in batches for kind in (*PRECISIONS, "torch")]
    rows = []

    def work(task: tuple[str, str, int]) -> None:
        command = [sys.executable, __file__, "--out", str(options.out), "--task", *map(str, task)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit, check=False)
        line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr[-400:]
        rows.append(line)
        print(line, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, tasks))
    (options.out / "builds.txt").write_text("\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
