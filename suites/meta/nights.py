"""Simulated nights: runs of the same code, or of code with a planted slowdown, under noise of several shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.benchmark.verdict import MIN_EFFECT, Verdict, decide

NOISE = 0.025  # the coefficient of variation that was measured between runs of identical code
Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.exp(rng.normal(0, NOISE, count))


def tailed(rng: np.random.Generator, count: int) -> np.ndarray:
    """One run in ten is disturbed by a neighbour, and only ever slower; the same spread in all."""
    disturbed = np.where(rng.random(count) < 0.1, rng.exponential(2 * NOISE, count), 0)
    return np.exp(rng.normal(0, 0.6 * NOISE, count) + disturbed)


def stepped(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two levels, as builds of an engine have that choose one of two tactics."""
    return np.exp(rng.normal(0, 0.3 * NOISE, count) + rng.choice([-NOISE, NOISE], count))


def recorded(groups: Sequence[Sequence[float]], noise: float = NOISE) -> Draw:
    """Noise of the shape of recorded runs: their deviations from their group's mean, scaled to ``noise``.

    Args:
        groups: runs that belong together, in seconds.
    """
    logs = [np.log(np.asarray(group, float)) for group in groups]
    deviations = np.concatenate([(log - log.mean()) * np.sqrt(len(log) / (len(log) - 1)) for log in logs])
    deviations *= noise / deviations.std()
    return lambda rng, count: np.exp(rng.choice(deviations, count))


SHAPES: Mapping[str, Draw] = {"normal": normal, "tailed": tailed, "stepped": stepped}


def verdicts(
    draw: Draw, slowdown: float, runs: int, nights: int, min_effect: float = MIN_EFFECT, seed: int = 5
) -> dict[Verdict, float]:
    """The share of nights with each verdict, of ``runs`` runs a side, the second slower by ``slowdown``."""
    rng = np.random.default_rng(seed)
    found = [decide(draw(rng, runs), draw(rng, runs) * (1 + slowdown), min_effect).verdict for _ in range(nights)]
    return {one: found.count(one) / nights for one in Verdict}
