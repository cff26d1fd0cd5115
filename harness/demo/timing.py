"""Two runtimes timed in turns, so that whatever the machine does meanwhile meets both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_DRAWS, _CONFIDENCE = 2000, 0.95


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per image: one row per round, one column per image."""

    mxnet: Array
    compiled: Array

    @property
    def speedup(self) -> tuple[float, float, float]:
        """MXNet's median over the compiled model's, and the bounds of its 95 % interval (bootstrap over rounds)."""
        rng = np.random.default_rng(0)
        rounds = len(self.mxnet)
        draws = []
        for _ in range(_DRAWS):
            chosen = rng.integers(0, rounds, rounds)
            draws.append(float(np.median(self.mxnet[chosen]) / np.median(self.compiled[chosen])))
        low, high = np.quantile(draws, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
        return float(np.median(self.mxnet) / np.median(self.compiled)), float(low), float(high)


def interleaved(
    mxnet: Callable[[Array], Any], compiled: Callable[[Array], Any], images: Sequence[Array], rounds: int
) -> Timing:
    """Time both on each image, ``rounds`` times, MXNet first in every other round."""
    found: dict[int, list[list[float]]] = {0: [], 1: []}
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append(_round((mxnet, compiled)[side], images))
    return Timing(np.array(found[0]), np.array(found[1]))


def _round(run: Callable[[Array], Any], images: Sequence[Array]) -> list[float]:
    time.sleep(0.02)  # threads of the other runtime stop spinning
    run(images[0])  # and this one's wake up
    taken = []
    for image in images:
        start = time.perf_counter()
        run(image)
        taken.append((time.perf_counter() - start) * 1e3)
    return taken
