"""Ranges of activations from sample data, in one pass and bounded memory.

Each tensor keeps one histogram of fixed size over a range that doubles when a larger value arrives (pairs of bins are
merged, which is exact), so a thousand images cost no more memory than one. From the histogram comes the threshold
``amax`` that int8 or fp8 maps to its largest code:

* ``minmax``: the largest magnitude seen;
* ``percentile``: the magnitude that a share of all values stays below;
* ``entropy``: the threshold with the smallest Kullback-Leibler divergence between the distribution and its 255-level
  form, MXNet's own algorithm (``src/operator/quantization/calibrate.cc``);
* ``mse``: the threshold with the smallest mean squared error of 255 levels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..errors import CalibrationError

Array = npt.NDArray[Any]

CALIBRATORS = ("entropy", "minmax", "percentile", "mse")
# Entropy, MXNet's default, keeps less of the signal on trained networks (reports/int8.json): it cuts off the few large
# values of sparse activations, which carry their energy.
DEFAULT_CALIBRATOR = {"int8": "percentile", "fp8": "minmax"}
TABLE_FORMAT = 1
_FINE_BINS = 8192  # on each side of zero; after a doubling at least half of them are in use
_BINS = 2047  # of the histogram that thresholds are chosen from: odd, so that one bin is around zero
_LEVELS = 255
_LARGEST = float(np.finfo(np.float32).max)


class Histogram:
    """Counts of one tensor's values, signs apart, over a range that grows by doubling."""

    def __init__(self) -> None:
        self.amax = 0.0
        self.range = 0.0
        self.counts = np.zeros((2, _FINE_BINS), np.int64)  # negative, positive

    def add(self, values: Array) -> None:
        """Count values.

        Raises:
            CalibrationError: one is NaN or infinite.
        """
        flat = values.ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())  # NaN if there is one
        largest = max(abs(low), abs(high))
        if not np.isfinite(low + high):
            raise CalibrationError("a value is NaN or infinite")
        self.amax = max(self.amax, largest)
        if self.range == 0.0:
            if largest == 0.0:
                self.counts[1, 0] += flat.size
                return
            self.range = largest
        while largest > self.range:
            self._double()
        places = (np.abs(flat) * (_FINE_BINS / self.range)).astype(np.intp)
        np.minimum(places, _FINE_BINS - 1, out=places)
        if low < 0:
            places += _FINE_BINS * (flat >= 0)
            self.counts += np.bincount(places, minlength=2 * _FINE_BINS).reshape(2, _FINE_BINS)
        else:
            self.counts[1] += np.bincount(places, minlength=_FINE_BINS)

    def _double(self) -> None:
        merged = self.counts.reshape(2, -1, 2).sum(axis=2)
        self.counts = np.concatenate([merged, np.zeros_like(merged)], axis=1)
        self.range *= 2

    def symmetric(self, bins: int = _BINS) -> tuple[Array, Array]:
        """Counts and edges over [-amax, amax] with an odd number of equal bins."""
        centres = (np.arange(_FINE_BINS) + 0.5) * (self.range / _FINE_BINS)
        centres = np.minimum(centres, self.amax)
        both = np.concatenate([-centres[::-1], centres])
        weights = np.concatenate([self.counts[0][::-1], self.counts[1]])
        counts, edges = np.histogram(both, bins, (-self.amax, self.amax), weights=weights)
        return counts.astype(np.int64), edges

    def magnitudes(self) -> tuple[Array, Array]:
        """Counts by magnitude, and the bins' upper edges."""
        return self.counts.sum(axis=0), (np.arange(_FINE_BINS) + 1) * (self.range / _FINE_BINS)


def threshold(histogram: Histogram, calibrator: str, percentile: float = 99.99) -> float:
    """``amax`` by the calibrator of that name; 0 for a tensor that is all zero."""
    if histogram.amax == 0.0 or calibrator == "minmax":
        return histogram.amax
    if calibrator == "percentile":
        counts, edges = histogram.magnitudes()
        share = np.cumsum(counts) / counts.sum()
        return float(min(edges[int(np.searchsorted(share, percentile / 100))], histogram.amax))
    if calibrator == "mse":
        return _mse_threshold(histogram)
    return entropy_threshold(*histogram.symmetric())


def entropy_threshold(counts: Array, edges: Array, levels: int = _LEVELS) -> float:
    """The threshold of least divergence, as MXNet's ``_contrib_calibrate_entropy`` finds it.

    Args:
        counts: an odd number of bins, symmetric around zero.
        edges: their len(counts) + 1 edges.
        levels: quantized levels (255 for int8).
    """
    zero = len(counts) // 2
    half = levels // 2
    best, least = float(edges[-1]), np.inf
    total = counts.sum()
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    for reach in range(half, zero + 1):
        start, stop = zero - reach, zero + reach + 1
        inside = counts[start:stop].astype(np.float64)
        reference = inside.copy()
        reference[0] += cumulative[start]
        reference[-1] += total - cumulative[stop]
        inside[0] = 0  # MXNet counts the first bin as outside
        divergence = _divergence(reference, _quantized(inside, reference != 0, levels))
        if divergence < least:
            least, best = divergence, float(edges[stop])
    return best


def _quantized(inside: Array, nonzero: Array, levels: int) -> Array:
    """The distribution after merging bins into levels and spreading each level over the bins that are not empty."""
    merged = len(inside) // levels
    starts = np.arange(levels) * merged
    sums = np.add.reduceat(inside, starts)  # the last level takes the rest
    filled = np.add.reduceat((inside != 0).astype(np.int64), starts)
    each = np.divide(sums, filled, out=np.zeros(levels), where=filled > 0)
    lengths = np.diff(np.append(starts, len(inside)))
    return np.where(nonzero, np.repeat(each, lengths), 0.0)


def _divergence(p: Array, q: Array, eps: float = 0.0001) -> float:
    smooth_p, smooth_q = _smoothed(p, eps), _smoothed(q, eps)
    if smooth_p is None or smooth_q is None:
        return np.inf
    p, q = smooth_p / smooth_p.sum(), smooth_q / smooth_q.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / q), 0.0)
    return float(terms.sum())


def _smoothed(p: Array, eps: float) -> Array | None:
    """Zeros replaced by ``eps``, taken evenly from the others (MXNet's ``SmoothDistribution``)."""
    zeros = p == 0
    count, others = int(zeros.sum()), int((~zeros).sum())
    if not others:
        return None
    taken = eps * count / others
    if taken >= 1.0:
        return None
    smoothed: Array = p + eps * zeros - taken * ~zeros
    return smoothed


def _mse_threshold(histogram: Histogram, candidates: int = 128) -> float:
    counts, edges = histogram.magnitudes()
    centres = edges - edges[0] / 2
    best, least = histogram.amax, np.inf
    for step in range(1, candidates + 1):
        amax = histogram.amax * step / candidates
        scale = amax / (_LEVELS // 2)
        error = centres - np.minimum(np.round(centres / scale), _LEVELS // 2) * scale
        total = float(np.sum(counts * np.square(error)))
        if total < least:
            least, best = total, amax
    return best


# --- running the samples ---------------------------------------------------------------------------------------------


def collect(model: ir.Model, names: Sequence[str], samples: Iterable[Mapping[str, Array]]) -> dict[str, Histogram]:
    """Histograms of some of a model's tensors over all samples; runs on ONNX Runtime.

    Args:
        model: float32; is not changed.
        names: the tensors: inputs or results of nodes.
        samples: {input: array}.

    Raises:
        CalibrationError: a sample cannot be run, or gives values that are not finite.
    """
    from ..errors import HarnessError

    watched = ir.Model(model.graph.clone(), ir_version=model.ir_version)
    values = {str(value.name): value for node in watched.graph for value in node.outputs}
    present = {str(value.name) for value in watched.graph.outputs}
    watched.graph.outputs.extend(values[name] for name in names if name in values and name not in present)
    session = onnxruntime_session(watched)
    histograms = {name: Histogram() for name in names}
    for count, sample in enumerate(samples, 1):
        try:
            found = dict(sample) | run_named(session, sample)
            for name, histogram in histograms.items():
                histogram.add(found[name])
        except HarnessError as error:
            raise CalibrationError(f"calibration: sample {count}: {error}") from None
    return histograms


def onnxruntime_session(model: ir.Model) -> Any:
    """The model on ONNX Runtime: calibration is the same on every engine."""
    from ..engines.base import BuildRequest, get_engine

    return get_engine("onnxruntime").build(BuildRequest("calibration", model))


def run_named(session: Any, sample: Mapping[str, Array]) -> dict[str, Array]:
    """Output name -> array."""
    found = session.run([sample[name] for name in session.input_names])
    return dict(zip(session.output_names, found))


# --- tables ----------------------------------------------------------------------------------------------------------


def save_table(path: str | Path, ranges: Mapping[str, float], calibrator: str) -> None:
    """Write ranges (tensor name -> amax) as JSON; an interruption leaves the table that was there."""
    from ..engines.plan_cache import write_whole

    document = {"format": TABLE_FORMAT, "calibrator": calibrator, "ranges": dict(ranges)}
    try:
        write_whole(Path(path), (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise CalibrationError(f"{path}: the calibration table cannot be written: {error}") from None


def load_table(path: str | Path) -> dict[str, float]:
    """Ranges that ``save_table`` wrote.

    Raises:
        CalibrationError: the file cannot be read or is no calibration table.
    """
    try:
        document = json.loads(Path(path).read_text())
        if document["format"] != TABLE_FORMAT:
            raise CalibrationError(f"{path}: a calibration table of format {document['format']}, not {TABLE_FORMAT}")
        ranges = {str(name): float(amax) for name, amax in document["ranges"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CalibrationError(f"{path}: not a calibration table: {type(error).__name__}: {error}") from None
    wrong = [name for name, amax in ranges.items() if not 0 <= amax <= _LARGEST]
    if wrong:
        raise CalibrationError(f"{path}: the range of {wrong[0]!r}, {ranges[wrong[0]]}, is no float32 from 0 on")
    return ranges
