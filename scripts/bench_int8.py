"""INT8 on real networks on the CPU: agreement with FP32 for each calibrator, and memory; writes reports/int8.json.

    python -m scripts.bench_int8 [--row NAME ...] [--nsfw FILE] [--images 100] [--out reports/int8.json]

Calibration images are random views of five photographs; agreement is measured on views of four others. ``memory``
calibrates EfficientNet-Lite0 with 10, 100 and 1,000 images that are made one by one, each time in a process of its own.
Needs the packages of the demo; the row ``open_nsfw`` wants a file (scripts/open_nsfw.py says which) and is left out
without it. Ends with 1 if memory grows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE = 224
SHAPE = (1, 3, SIDE, SIDE)
WANTED_SQNR = 25.0  # dB: what the automatic exclusion of layers is asked for
COUNTS = (10, 100, 1000)
GROWTH = 1.2  # of memory from the fewest images to the most; the allocator alone makes a tenth
COLUMNS = ["network", "calibrator", "layers in FP32", "SQNR (dB)", "same top 1", "same top 3"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A trained network: its graph and parameters, how it takes an image of bytes, and how many classes it ranks."""

    graph: Any
    arrays: Mapping[str, np.ndarray]
    prepare: Callable[[np.ndarray], np.ndarray]
    classes: int


def efficientnet(options: argparse.Namespace) -> Network:
    from harness.demo.network import export
    from harness.frontend.mxnet import read_model

    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder) / "net")
        graph, arrays = read_model(str(Path(folder) / "net"), None, [])
        arrays = {name: np.array(array) for name, array in arrays.items()}
    return Network(
        graph, arrays, lambda pixels: ((pixels.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None].copy(), 1000
    )


def open_nsfw(options: argparse.Namespace) -> Network:
    from scripts import open_nsfw as file

    return Network(*file.read(file.find(options.nsfw)), file.prepare, 2)


NETWORKS: dict[str, Callable[[argparse.Namespace], Network]] = {
    "efficientnet_lite0": efficientnet,
    "open_nsfw": open_nsfw,
}


# --- images --------------------------------------------------------------------------------------------------------------


def views(first: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Random views (224, 224, 3) of every second photograph of the demo, from the first one given, in turns."""
    from PIL import Image

    from harness.demo.photos import photos

    squares = [photo.square for photo in photos()][first::2]
    rng = np.random.default_rng(seed)
    for number in range(count):
        side = int(rng.integers(SIDE // 2, SIDE + 1))
        left, top = (int(rng.integers(0, SIDE - side + 1)) for _ in range(2))
        view = squares[number % len(squares)].crop((left, top, left + side, top + side))
        view = view.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else view)


# --- agreement -----------------------------------------------------------------------------------------------------------


def agreement(name: str, options: argparse.Namespace) -> Row:
    """Each calibrator against FP32, the layers that lose most, and those that a stated accuracy leaves out."""
    from harness.compiler import compile_graph
    from harness.engines.layers import owner_of
    from harness.precision import Request
    from harness.precision.calibration import CALIBRATORS, collect, load_table, save_table, threshold
    from harness.precision.fold import fold_batch_norm
    from harness.precision.quantize import find_sites
    from harness.precision.sensitivity import layers_to_exclude, sensitivities

    network = NETWORKS[name](options)
    calibration = [{"data": network.prepare(view)} for view in views(0, options.images, 0)]
    evaluation = [network.prepare(view) for view in views(1, options.images // 2, 1)]

    def answers(precision: str, **conversion: Any) -> np.ndarray:
        model = compile_graph(
            network.graph, network.arrays, {"data": SHAPE}, "onnxruntime", precision, "error", **conversion
        )
        return np.concatenate([model(data=image)[0] for image in evaluation])

    exact = answers("fp32")
    model = compile_graph(network.graph, network.arrays, {"data": SHAPE}, "onnxruntime", "fp32", "error").plan.models[0]
    assert model is not None
    fold_batch_norm(model)
    sites = find_sites(model)
    tensors = list(dict.fromkeys(site.tensor for site in sites if site.weight_axis is None))
    histograms = collect(model, tensors, calibration)
    found: Row = {
        "layers": len({owner_of(site.node) for site in sites}), "calibration_images": len(calibration),
        "evaluation_images": len(evaluation), "calibrators": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tables = {calibrator: Path(folder) / f"{calibrator}.json" for calibrator in CALIBRATORS}
        for calibrator, path in tables.items():
            save_table(path, {tensor: threshold(each, calibrator) for tensor, each in histograms.items()}, calibrator)
            scores = judge(answers("int8", calibration_table=str(path)), exact, network.classes)
            found["calibrators"][calibrator] = scores
            print(f"{name}, {calibrator}: {scores}", flush=True)
        best = max(CALIBRATORS, key=lambda calibrator: found["calibrators"][calibrator]["sqnr_db"])
        ranges = load_table(tables[best])
        request = Request("int8", lambda: iter(calibration), True, {"min_sqnr": WANTED_SQNR})
        layers = sensitivities(model, sites, ranges, request)
        left_out = layers_to_exclude(model, sites, ranges, request, layers)
        scores = judge(
            answers("int8", calibration_table=str(tables[best]), exclude=sorted(left_out)), exact, network.classes
        )
    kept = {owner_of(site.node) for site in find_sites(model, {"exclude": left_out})}
    found["exclusion"] = {
        "calibrator": best, "wanted_sqnr_db": WANTED_SQNR, **scores, "wide": found["layers"] - len(kept),
        "excluded": [layer for layer, _ in layers if layer in left_out],
        "most_sensitive": [[layer, round(value, 2)] for layer, value in layers[:10]],
    }  # fmt: skip
    print(f"{name}, {best} without {len(left_out)} of {len(layers)} layers: {scores}", flush=True)
    return found


def judge(found: np.ndarray, exact: np.ndarray, classes: int) -> Row:
    from harness import numerics

    scores = {"sqnr_db": round(numerics.sqnr(found, exact), 2), "top1": numerics.top_k_agreement(found, exact, 1)}
    return scores | ({"top3": numerics.top_k_agreement(found, exact, 3)} if classes > 3 else {})


# --- memory --------------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> Row:
    """Bytes at the peak above what imports and the network's files take, by the number of images."""
    found = {}
    for count in COUNTS:
        command = [sys.executable, "-m", "scripts.bench_int8", "--one", str(count)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found[str(count)] = json.loads(done.stdout.splitlines()[-1])
        print(f"memory, {count} images: {found[str(count)]['above'] / 1e6:.1f} MB above imports", flush=True)
    peaks = [found[str(count)]["above"] for count in COUNTS]
    return {"images": found, "growth": peaks[-1] / peaks[0], "allowed": GROWTH, "met": peaks[-1] <= GROWTH * peaks[0]}


def measure_memory(count: int) -> Row:
    """Compile for INT8 with ``count`` images, none of which is kept."""
    from harness.compiler import compile_graph

    network = efficientnet(argparse.Namespace())
    compile_graph(network.graph, network.arrays, {"data": SHAPE}, "onnxruntime", "fp32", "error", threads=1)
    next(views(0, 1, 0))  # whatever is imported on the way is, and the photographs have been read once
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    samples = ({"data": network.prepare(view)} for view in views(0, count, 0))
    compile_graph(
        network.graph, network.arrays, {"data": SHAPE}, "onnxruntime", "int8", "error", samples, calibrator="percentile"
    )
    peak = _resident("VmHWM")
    return {"before": before, "peak": peak, "above": peak - before}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# --- the command -----------------------------------------------------------------------------------------------------


ROWS = [*NETWORKS, "memory"]


def measured(name: str, options: argparse.Namespace) -> Row:
    return memory(options) if name == "memory" else agreement(name, options)


def cells(results: Mapping[str, Row]) -> list[list[str]]:
    """The table: each network with each calibrator, and with the best one without the layers that are left out."""
    rows = []
    for name in NETWORKS:
        found = results.get(name, {})
        scored = [(calibrator, 0, scores) for calibrator, scores in found.get("calibrators", {}).items()]
        if "exclusion" in found:
            scores = found["exclusion"]
            scored.append((scores["calibrator"], scores["wide"], scores))
        for calibrator, excluded, scores in scored:
            shares = [f"{scores[key]:.0%}" if key in scores else "" for key in ("top1", "top3")]
            rows.append([name, calibrator, str(excluded), f"{scores['sqnr_db']:.1f}", *shares])
    return rows


def main() -> int:
    from harness.errors import EngineMissing

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this row (may be given again)")
    parser.add_argument("--nsfw", help="the file open-nsfw.onnx")
    parser.add_argument("--images", type=int, default=100, help="for calibration; half as many are evaluated")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "int8.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_memory(options.one)))
        return 0
    stored = json.loads(options.out.read_text())["results"] if options.out.is_file() else {}
    for name in options.row or ROWS:
        try:
            stored[name] = measured(name, options)
        except EngineMissing as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
            continue
        results = {row: stored[row] for row in ROWS if row in stored}
        document = {
            "command": "python -m scripts.bench_int8", "cores": os.cpu_count(), "machine": platform.machine(),
            "columns": COLUMNS, "rows": cells(results), "results": results,
        }  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if stored.get("memory", {}).get("met", True) else 1


if __name__ == "__main__":
    sys.exit(main())
