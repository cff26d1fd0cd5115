"""trtexec's figures, from trtexec's formulas (facts are in docs/benchmarks.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)


def percentile(values: Sequence[float], p: float) -> float:
    """trtexec's: of the ascending list, the element at max(n - 1 - int((1 - p/100) * n), 0)."""
    ordered = sorted(values)
    count = len(ordered)
    return ordered[max(count - 1 - int(count * (100 - p) / 100), 0)]  # 1 - p/100 would be rounded


def median(values: Sequence[float]) -> float:
    """The middle element, or the mean of the middle two."""
    return float(np.median(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """One run's queries, in seconds. ``cov`` is the coefficient of variation, a share."""

    queries: int
    minimum: float
    maximum: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    cov: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(seconds: Sequence[float]) -> Summary:
    """Reduce the latencies of one run.

    Raises:
        ValueError: there are none.
    """
    if not len(seconds):
        raise ValueError("no queries to summarise")
    mean = float(np.mean(seconds))
    p90, p95, p99 = (percentile(seconds, p) for p in PERCENTILES[1:])
    cov = float(np.std(seconds)) / mean if mean else math.inf
    return Summary(len(seconds), min(seconds), max(seconds), mean, median(seconds), p90, p95, p99, cov)


def throughput(queries: int, batch: int, seconds: float) -> float:
    """Items per second of wall time."""
    return queries * batch / seconds


def warnings(
    enqueue: Sequence[float], h2d: Sequence[float], compute: Sequence[float], d2h: Sequence[float]
) -> list[str]:
    """What trtexec would warn of: bound by enqueueing, by transfers, or unstable."""
    found = []
    if enqueue and median(enqueue) > 0.8 * median(compute):
        found.append("bound by enqueueing: use CUDA graphs")
    for name, times in (("host-to-device", h2d), ("device-to-host", d2h)):
        if times and median(times) >= median(compute):
            found.append(f"bound by {name} transfers: keep data on the device")
    if summarise(compute).cov > 0.025:
        found.append("unstable: the coefficient of variation of the compute time is above 2.5 %")
    return found
