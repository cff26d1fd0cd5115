"""What the demo found out, and the same as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import numerics
from ..graph import Graph
from ..model import Model
from .photos import Photo, class_names
from .timing import Timing

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the demo found out; the page and the record are made of it.

    Attributes:
        shots: the photographs.
        mxnet, compiled: probabilities by MXNet in float32 and by the compiled model, one row per photograph.
        verdict: the compiled model's logits against MXNet's in float64.
        mxnet_verdict: MXNet's own float32 logits against the same, for scale.
        replayed: whether the saved model gave the same bits in a process without MXNet.
        seconds: how long the steps took.
    """

    shots: list[Photo]
    graph: Graph
    model: Model
    mxnet: Array
    compiled: Array
    verdict: numerics.Comparison
    mxnet_verdict: numerics.Comparison
    timing: Timing
    replayed: bool
    saved_bytes: int
    seconds: dict[str, float]

    @property
    def ok(self) -> bool:
        return bool(self.verdict) and self.same_labels and self.replayed

    @property
    def same_labels(self) -> bool:
        """Whether both rank the same three classes first, on every photograph."""
        return numerics.top_k_agreement(self.compiled, self.mxnet) == 1


def top_classes(probabilities: Array, count: int = 3) -> list[tuple[int, str, float]]:
    """Number, name and probability of the likeliest classes."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(i), class_names()[int(i)], float(probabilities[i])) for i in best]


def record(story: Story) -> dict[str, Any]:
    """The demo's findings as JSON."""
    speedup, low, high = story.timing.speedup
    return {
        "ok": story.ok,
        "photographs": [
            {"name": shot.name, "mxnet": top_classes(mxnet), "compiled": top_classes(compiled)}
            for shot, mxnet, compiled in zip(story.shots, story.mxnet, story.compiled)
        ],
        "segments": [{"engine": s.engine, "nodes": len(s.nodes)} for s in story.model.segments],
        "max_error": story.verdict.max_error,
        "headroom": story.verdict.headroom,
        "mxnet_max_error": story.mxnet_verdict.max_error,
        "latency_ms": {
            "mxnet": float(np.median(story.timing.mxnet)),
            "compiled": float(np.median(story.timing.compiled)),
            "runs": int(story.timing.mxnet.size),
        },
        "speedup": {"ratio": speedup, "low": low, "high": high},
        "replayed_without_mxnet": story.replayed,
        "saved_bytes": story.saved_bytes,
        "seconds": story.seconds,
        "environment": environment(story),
    }


def environment(story: Story) -> dict[str, str]:
    """What the numbers were measured on."""
    found = {"Python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}
    for package in ("mxnet", "onnxruntime", "numpy", "onnx"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "engines": ", ".join(sorted({segment.engine for segment in story.model.segments}))}
