"""The Predictor in one process against two Ray actors, and what it adds to a batch: python scripts/bench_predictor.py OUT.json

The model is the demo's network in the shape (1..8, 3, 224, 224), one thread an engine, so that a second process has a
core of its own where there is one. Photographs are synthetic: only time is measured. Overhead per batch is the median
of the Predictor's call minus the model's own call on the same rows, in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["PYTHONPATH"] = sys.path[0] = str(Path(__file__).parent.parent)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import harness
from harness.demo.network import INPUT, export
from harness.ray import Predictor

BATCH, BATCHES, ROUNDS = 8, 24, 25


def overhead(folder: Path) -> dict[str, float]:
    """Milliseconds that the Predictor adds to a batch, and what the model itself takes."""
    predictor = Predictor(folder, threads=1)
    x = np.random.default_rng(0).standard_normal((BATCH, *INPUT[1:])).astype(np.float32)
    times: dict[str, list[float]] = {"model": [], "predictor": [], "difference": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        predictor.model(data=x)
        middle = time.perf_counter()
        predictor({"data": x})
        end = time.perf_counter()
        for name, seconds in (
            ("model", middle - start),
            ("predictor", end - middle),
            ("difference", end - 2 * middle + start),
        ):
            times[name].append(seconds * 1e3)
    inside = glue(predictor, x)
    return {f"{name}_ms": round(statistics.median(values), 3) for name, values in times.items()} | {"glue_ms": inside}


def glue(predictor: Predictor, x: np.ndarray) -> float:
    """The same with a model that answers at once: what is the Predictor's own, without the engine's noise."""
    (answer,) = predictor.model(data=x)
    model, predictor.model = predictor.model, Instant(predictor.model, answer)  # type: ignore[assignment]
    times = []
    for _ in range(200):
        start = time.perf_counter()
        predictor({"data": x})
        times.append((time.perf_counter() - start) * 1e3)
    predictor.model = model
    return round(statistics.median(times), 4)


class Instant:
    """A model that gives one answer whatever it is asked."""

    def __init__(self, model: Any, answer: np.ndarray) -> None:
        self.inputs, self.outputs = model.inputs, model.outputs
        self.input_names, self.output_names, self.answer = model.input_names, model.output_names, answer

    def __call__(self, **inputs: Any) -> list[np.ndarray]:
        return [self.answer]


def one_process(folder: Path, x: np.ndarray) -> float:
    """Photographs a second, in this process."""
    predictor = Predictor(folder, threads=1)
    predictor({"data": x[:BATCH]})
    start = time.perf_counter()
    for begin in range(0, len(x), BATCH):
        predictor({"data": x[begin : begin + BATCH]})
    return len(x) / (time.perf_counter() - start)


def two_actors(folder: Path, x: np.ndarray) -> float:
    """Photographs a second by two actors that are up already, fed through Ray's object store."""
    import ray
    from ray.util import ActorPool

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    actor = ray.remote(Predictor)
    actors = [actor.options(num_cpus=1).remote(str(folder), threads=1) for _ in range(2)]
    ray.get([one.__call__.remote({"data": x[:BATCH]}) for one in actors])
    pool = ActorPool(actors)
    pieces = [x[begin : begin + BATCH] for begin in range(0, len(x), BATCH)]
    start = time.perf_counter()
    rows = sum(
        len(next(iter(found.values())))
        for found in pool.map(lambda one, piece: one.__call__.remote({"data": piece}), pieces)
    )
    taken = time.perf_counter() - start
    ray.shutdown()
    assert rows == len(x)
    return rows / taken


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        export(Path(scratch) / "lite0")
        model = harness.compile(
            str(Path(scratch) / "lite0"),
            inputs={"data": ((1, BATCH, BATCH), *INPUT[1:])},
            engine="onnxruntime",
            fallback="error",
        )
        model.save(Path(scratch) / "model.mxtrt")
        folder = Path(scratch) / "model.mxtrt"
        x = np.random.default_rng(1).standard_normal((BATCH * BATCHES, *INPUT[1:])).astype(np.float32)
        load_before = os.getloadavg()[0]
        single = one_process(folder, x)
        double = two_actors(folder, x)
        again = one_process(folder, x)
        found = {
            "cores": os.cpu_count(), "load_before": round(load_before, 1), "load_after": round(os.getloadavg()[0], 1),
            "batch": BATCH, "photographs": len(x), "one_process_per_s": [round(single, 1), round(again, 1)],
            "two_actors_per_s": round(double, 1), "ratio": round(double / ((single + again) / 2), 2), **overhead(folder),
        }  # fmt: skip
    text = json.dumps(found, indent=1)
    out.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
