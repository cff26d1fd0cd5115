"""Is it slower? Runs are the unit, and the answer may be that nobody can say.

Latencies within one process are not independent: on identical code a Mann-Whitney test over single inferences flags
91 % of pairs, a threshold of 5 % on the median 15 %. So each run (a process, or a build of an engine) counts once, as
its median; both sides have at least five runs, interleaved A B B A where both can run; and the interval of the ratio
is a bootstrap over runs. SLOWER needs the whole interval above the smallest effect that matters.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIN_RUNS = 5
MIN_EFFECT = 0.02
CONFIDENCE = 0.98  # two-sided: 1 % on either side
_RESAMPLES = 4000
_DETECTION_POWER = 0.995
_MOST_RUNS = 200  # nobody does more
_LAST = 10_000


class Verdict(enum.Enum):
    """The answer to one comparison; only SLOWER fails a build."""

    SLOWER = "SLOWER"
    FASTER = "FASTER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"
    INCOMPARABLE = "INCOMPARABLE"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and what it rests on.

    Attributes:
        verdict: the answer.
        ratio: candidate over baseline (above 1 is slower), of the runs' medians.
        low, high: the bootstrap interval of the ratio.
        reasons: what differs between the environments (INCOMPARABLE), or how many runs would decide (AMBIGUOUS).
    """

    verdict: Verdict
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reasons: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        return int(self.verdict is Verdict.SLOWER)

    def __str__(self) -> str:
        if math.isnan(self.ratio):
            return f"{self.verdict.value} ({'; '.join(self.reasons)})"
        interval = f"{self.ratio:.3f}x [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.verdict.value} {interval}" + (f" ({'; '.join(self.reasons)})" if self.reasons else "")


def decide(
    baseline: Sequence[float],
    candidate: Sequence[float],
    min_effect: float = MIN_EFFECT,
    differences: Sequence[str] = (),
    seed: int = 0,
) -> Decision:
    """The verdict on two sides, each a list of one figure per run (seconds: larger is slower).

    Args:
        baseline, candidate: at least ``MIN_RUNS`` runs each.
        min_effect: the smallest change that matters, as a share.
        differences: what differs between the environments; with any, nothing is decided.
    """
    if differences:
        return Decision(Verdict.INCOMPARABLE, reasons=tuple(differences))
    short = [f"{name} has {len(runs)} runs, {MIN_RUNS} are needed"
             for name, runs in (("the baseline", baseline), ("the candidate", candidate)) if len(runs) < MIN_RUNS]  # fmt: skip
    if short:
        return Decision(Verdict.INCOMPARABLE, reasons=tuple(short))
    ratio, low, high = ratio_interval(baseline, candidate, seed)
    if low > 1 + min_effect:
        verdict = Verdict.SLOWER
    elif high < 1 / (1 + min_effect):
        verdict = Verdict.FASTER
    elif low > 1 / (1 + min_effect) and high < 1 + min_effect:
        verdict = Verdict.SAME
    else:
        noise = max(coefficient_of_variation(baseline), coefficient_of_variation(candidate))
        return Decision(Verdict.AMBIGUOUS, ratio, low, high, (_advice(noise, min_effect),))
    return Decision(verdict, ratio, low, high)


def _advice(noise: float, min_effect: float) -> str:
    wanted = runs_needed(noise, 2.5 * min_effect, min_effect)
    if wanted <= _MOST_RUNS:
        return f"about {wanted} runs a side would decide"
    return f"runs differ by {noise:.0%}: the machine is too busy to tell"


def ratio_interval(
    baseline: Sequence[float], candidate: Sequence[float], seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """(ratio, low, high) of the geometric means: a studentised bootstrap over runs, on the logarithms.

    The plain percentile bootstrap is too narrow for a handful of runs; studentising (Davison & Hinkley 1997, 5.2)
    gives intervals that hold their confidence from five runs on.
    """
    a, b = np.log(np.asarray(baseline, float)), np.log(np.asarray(candidate, float))
    difference = float(b.mean() - a.mean())
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    if error == 0:
        return math.exp(difference), math.exp(difference), math.exp(difference)
    left_means, left_variances = _resampled(a - a.mean(), 2 * seed)
    right_means, right_variances = _resampled(b - b.mean(), 2 * seed + 1)
    errors = np.sqrt(left_variances / len(a) + right_variances / len(b))
    usable = errors > error * 1e-3  # a resample of one value repeated has no spread of its own
    scores = (right_means - left_means)[usable] / errors[usable]
    low_score, high_score = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (
        math.exp(difference),
        math.exp(difference - float(high_score) * error),
        math.exp(difference - float(low_score) * error),
    )


def _resampled(centred: Any, seed: int) -> tuple[Any, Any]:
    """The mean and the variance of each resample, from how often it has each value."""
    count = len(centred)
    counts = _counts(count, seed)
    means = counts @ centred / count
    squares = counts @ (centred * centred) / count
    return means, np.maximum(squares - means * means, 0) * count / (count - 1)


@functools.lru_cache(maxsize=16)
def _counts(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).multinomial(count, [1 / count] * count, _RESAMPLES).astype(float)


def coefficient_of_variation(runs: Sequence[float]) -> float:
    """The standard deviation over the mean, between runs."""
    return float(np.std(runs, ddof=1) / np.mean(runs)) if len(runs) > 1 else math.inf


def runs_needed(noise: float, effect: float, min_effect: float = MIN_EFFECT, power: float = _DETECTION_POWER) -> int:
    """How many runs a side find a slowdown of ``effect`` with probability ``power``.

    Args:
        noise: the coefficient of variation between runs.
        effect: the slowdown to find, as a share; must exceed ``min_effect``.
    """
    if effect <= min_effect:
        raise ValueError(f"a slowdown of {effect:.1%} is not above the smallest effect {min_effect:.1%}")
    from scipy import stats

    margin = math.log1p(effect) - math.log1p(min_effect)
    for first, last in ((MIN_RUNS, _MOST_RUNS), (_MOST_RUNS, _LAST)):  # nearly always the first is enough
        counts = np.arange(first, last + 1)
        freedom = 2 * (counts - 1)
        scores = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) + stats.t.ppf(power, freedom)
        enough = counts[scores * noise * np.sqrt(2 / counts) <= margin]
        if len(enough):
            return int(enough[0])
    return _LAST


def detection_power(noise: float, effect: float, runs: int, min_effect: float = MIN_EFFECT) -> float:
    """The probability that ``runs`` runs a side find a slowdown of ``effect``.

    By the t distribution, which below ten runs is not what the bootstrap does: there it is only a guide.
    """
    from scipy import stats

    freedom = 2 * (runs - 1)
    margin = (math.log1p(effect) - math.log1p(min_effect)) / (noise * math.sqrt(2 / runs))
    return float(stats.t.cdf(margin - stats.t.ppf((1 + CONFIDENCE) / 2, freedom), freedom))


def in_turns(sides: Sequence[str], runs: int) -> Iterator[str]:
    """The order of interleaved runs: A B B A A B B A ..., ``runs`` of each, so that drift hits all alike."""
    for number in range(runs):
        yield from sides if number % 2 == 0 else sides[::-1]


_IRRELEVANT = frozenset({"hz_actual", "hz_actual_friendly", "node", "time"})


def differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What of two machine records differs, of the keys that decide whether times can be compared."""
    return [
        f"{key}: {baseline.get(key)!r}, now {candidate.get(key)!r}"
        for key in keys
        if key not in _IRRELEVANT and baseline.get(key) != candidate.get(key)
    ]
