"""Change points of a stored series: where a benchmark became slower or faster, and for good.

Candidates are E-divisive's (Matteson & James, "A nonparametric approach for multiple change point analysis of
multivariate data", JASA 109, 2014): the cut that maximises the scaled energy distance of both sides. A cut stands if a
two-sided t-test of the points on its sides says so; then the weakest are merged until all that are left are
significant and large enough. This is what Apache Otava does, with the sample's standard deviation in place of the
population's: for a few points that is less eager.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

P_VALUE = 0.001
MIN_CHANGE = 0.02
_LEAST = 2  # points on each side of a cut
_WINDOW = 50  # the points around a cut that a candidate is judged by

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The first point of a new level.

    Attributes:
        index: of the first point after the change.
        before, after: the means on both sides, up to the neighbouring change points.
        p: of the t-test.
        good, bad: the commits before and at the change, where they are known: the change is in ``good..bad``.
    """

    index: int
    before: float
    after: float
    p: float
    good: str = ""
    bad: str = ""

    @property
    def change(self) -> float:
        """As a share of the level before; above 0 is slower."""
        return self.after / self.before - 1

    def __str__(self) -> str:
        blame = f" in {self.good[:12]}..{self.bad[:12]}" if self.bad else ""
        return f"{self.change:+.1%} at point {self.index}{blame} (p {self.p:.1g})"


def change_points(
    values: Sequence[float], commits: Sequence[str] = (), p_value: float = P_VALUE, min_change: float = MIN_CHANGE
) -> list[ChangePoint]:
    """The change points of a series, oldest point first.

    Args:
        values: one figure per session.
        commits: the commit of each, for the blame.
        p_value: of the t-test, per candidate.
        min_change: smaller changes are no news.

    Raises:
        ValueError: a value is not finite, or there is not one commit per value.
    """
    series = np.asarray(values, float)
    if not np.isfinite(series).all() or (commits and len(commits) != len(series)):
        raise ValueError("change points need finite values, and one commit for each")
    cuts = _merge(series, sorted(_split(series, 0, len(series), p_value * 10)), p_value, min_change)
    return [_describe(series, cuts, number, commits) for number in range(len(cuts))]


def best_cut(series: Array) -> int | None:
    """The cut of the largest scaled energy distance; None where there are too few points."""
    count = len(series)
    if count < 2 * _LEAST:
        return None
    distances = np.abs(series[:, None] - series[None, :])
    total = distances.cumsum(axis=0).cumsum(axis=1)  # total[i, j]: of the first i + 1 rows and j + 1 columns
    cuts = np.arange(_LEAST, count - _LEAST + 1)
    rest = count - cuts
    left = total[cuts - 1, cuts - 1]
    between = total[cuts - 1, -1] - left
    right = total[-1, -1] - left - 2 * between
    energy = 2 * between / (cuts * rest) - left / (cuts * (cuts - 1)) - right / (rest * (rest - 1))
    return int(cuts[np.argmax(cuts * rest / count * energy)])


def _split(series: Array, start: int, end: int, p_value: float) -> list[int]:
    """Cuts of a range, found one after the other: in windows that overlap by half, so that old points hide no new one."""
    if end - start > _WINDOW:
        found = set()
        for begin in range(start, end - _WINDOW // 2, _WINDOW // 2):
            found |= set(_split(series, begin, min(begin + _WINDOW, end), p_value))
        return sorted(found)
    cut = best_cut(series[start:end])
    if cut is None or _p_of(series[start : start + cut], series[start + cut : end]) > p_value:
        return []
    middle = start + cut
    return [*_split(series, start, middle, p_value), middle, *_split(series, middle, end, p_value)]


def _merge(series: Array, cuts: list[int], p_value: float, min_change: float) -> list[int]:
    """Without the cuts that do not stand, the weakest first."""
    while cuts:
        sides = [_sides(series, cuts, number) for number in range(len(cuts))]
        ps = [_p_of(*side) for side in sides]
        changes = [abs(math.log(after.mean() / before.mean())) for before, after in sides]
        weak = [(ps[n], n) for n in range(len(cuts)) if ps[n] > p_value]
        small = [(-changes[n], n) for n in range(len(cuts)) if changes[n] < math.log1p(min_change)]
        if not weak and not small:
            break
        del cuts[max(weak or small)[1]]
    return cuts


def _sides(series: Array, cuts: list[int], number: int) -> tuple[Array, Array]:
    edges = [0, *cuts, len(series)]
    return series[edges[number] : edges[number + 1]], series[edges[number + 1] : edges[number + 2]]


def _p_of(before: Array, after: Array) -> float:
    """Student's two-sided t-test of equal means, with a pooled variance."""
    from scipy import stats

    freedom = len(before) + len(after) - 2
    if freedom < 1:
        return 1.0
    spread = float(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum()) / freedom
    distance = abs(float(after.mean() - before.mean()))
    if spread == 0:
        return 0.0 if distance else 1.0
    score = distance / math.sqrt(spread * (1 / len(before) + 1 / len(after)))
    return float(2 * stats.t.sf(score, freedom))


def _describe(series: Array, cuts: list[int], number: int, commits: Sequence[str]) -> ChangePoint:
    before, after = _sides(series, cuts, number)
    index = cuts[number]
    blame: tuple[Any, Any] = (commits[index - 1], commits[index]) if commits else ("", "")
    return ChangePoint(index, float(before.mean()), float(after.mean()), _p_of(before, after), *blame)
