"""When is an answer right? The error model of docs/error-model.md, used by every comparison.

An answer is right when it could be MXNet's exact answer to inputs perturbed by a few roundings:

    |actual - reference| <= k(n) * (u * |reference| + response)

``u`` is the unit roundoff of the precision; ``response`` is how far the reference itself moves when its inputs and
parameters are rounded to that precision; ``k(n)`` is a small constant for sums of ``n`` terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNIT_ROUNDOFF = {"fp64": 2.0**-53, "fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
UNIT_ROUNDOFF["int8"] = UNIT_ROUNDOFF["fp16"]  # of the results, which are in 16 or 32 bits; operands: INT8_STEP
SMALLEST_NORMAL = {"fp64": 2.0**-1022, "fp32": 2.0**-126, "tf32": 2.0**-126, "fp16": 2.0**-14, "bf16": 2.0**-126}
SMALLEST_NORMAL["int8"] = SMALLEST_NORMAL["fp16"]
INT8_STEP = 1 / 127  # of symmetric codes, relative to a tensor's largest magnitude
_DTYPE_PRECISION = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_POOLED = 0.1  # an element whose response happens to vanish in all draws gets this share of the tensor's


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of one comparison; true if the answer is right.

    Attributes:
        ok: whether every element is within its bound.
        headroom: the largest error over its bound: 1 is the limit, inf is a wrong type, shape or non-finite value.
        max_error: the largest absolute error.
        message: what is wrong, with the worst element; "" if nothing is.
    """

    ok: bool
    headroom: float
    max_error: float
    message: str = ""

    def __bool__(self) -> bool:
        return self.ok


def accumulation_constant(terms: int = 1) -> float:
    """``k(n)``: 8 for elementwise work, and 2 more for each doubling of the terms of a sum.

    Errors of a sum of n rounded terms grow like sqrt(n) u times its root-mean-square term (Higham & Mary 2019), which
    is what ``response`` already measures; blocked and fused orders differ from it by a factor that grows like log n.
    """
    return 8.0 + 2.0 * math.log2(max(terms, 1))


def precision_of(dtype: npt.DTypeLike) -> str:
    """The precision whose roundoff an element type has."""
    return _DTYPE_PRECISION[np.dtype(dtype).name]


def perturbed(array: Array, precision: str, rng: np.random.Generator, times: float = 1.0) -> Array:
    """``array`` with each element moved by up to one unit roundoff (``times`` it), relatively; integers unchanged.

    The unit is that of ``precision``, or of the array's own type where that is coarser. Where the array's type cannot
    hold the moved number, one of its two neighbours is drawn, the nearer one more often: rounding to the nearest would
    leave numbers just above a power of two where they are, in every draw. For int8 the unit is half a step of the
    tensor's largest magnitude, absolutely.
    """
    if array.dtype.kind not in "fV":
        return array
    if precision == "int8":
        step = INT8_STEP * np.abs(array.astype(np.float64)).max(initial=0.0)
        shifted: Array = (array.astype(np.float64) + rng.uniform(-0.5, 0.5, array.shape) * step).astype(array.dtype)
        return shifted
    unit = max(UNIT_ROUNDOFF[precision], UNIT_ROUNDOFF.get(_DTYPE_PRECISION.get(array.dtype.name, ""), 0.0))
    return _moved(array, rng.uniform(-1, 1, array.shape) * (unit * times), rng)


def _moved(array: Array, shares: Array, rng: np.random.Generator) -> Array:
    """``array * (1 + shares)`` in the array's type by stochastic rounding, whose expectation is the number itself."""
    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        step = np.where(np.isfinite(wide), wide * shares, 0.0)
        nearest: Array = np.asarray((wide + step).astype(array.dtype))
        rest = step - (nearest.astype(np.float64) - wide)
        other: Array = np.nextafter(nearest, np.where(rest > 0, np.inf, -np.inf).astype(array.dtype))
        gap = other.astype(np.float64) - nearest.astype(np.float64)
        return np.where(rng.uniform(0, 1, array.shape) < np.abs(rest / gap), other, nearest)


def response(
    reference: Callable[[Mapping[str, Array]], Sequence[Array]],
    inputs: Mapping[str, Array],
    answers: Sequence[Array],
    precision: str,
    draws: int = 3,
    seed: int = 0,
    times: float = 1.0,
) -> list[Array]:
    """How far each output of ``reference`` moves when its inputs are perturbed by one roundoff of ``precision``.

    Args:
        reference: the function, in float64 (or with inputs whose own roundoff is far below that of ``precision``).
        inputs: its inputs, parameters included.
        answers: its outputs for ``inputs``.
        draws: how many perturbations; the largest movement counts.
        times: perturb by that many roundoffs, and give that part of the movement: the same to first order, but for
            answers that jump.

    Returns:
        One float64 array per output, of the output's shape.
    """
    rng = np.random.default_rng(seed)
    moved = [np.zeros(answer.shape, np.float64) for answer in answers]
    for _ in range(draws):
        shifted = reference({name: perturbed(array, precision, rng, times) for name, array in inputs.items()})
        for bound, answer, other in zip(moved, answers, shifted):
            if answer.dtype.kind == "f" and other.shape == answer.shape:
                with np.errstate(all="ignore"):
                    step = np.abs(other.astype(np.float64) - answer.astype(np.float64))
                np.maximum(bound, np.nan_to_num(step, nan=0, posinf=0), out=bound)
    return [_pool(bound / times) for bound in moved]


def step_error(native: Array, exact: Array, precision: str) -> Array:
    """What rounding between the steps of an algorithm costs, in ``precision``: a response that inputs do not show.

    MXNet's own answer in float32 has such an error, ``|native - exact|``; in another precision it is as many units. One
    element's is a single draw and may be 0, so the root mean square of all stands in for it. It counts up to sqrt(u) of
    the largest element: what loses half of the digits is no measure.

    Args:
        native: MXNet's answer, computed in float32.
        exact: its answer in float64.
        precision: what is to be judged.

    Returns:
        A float64 array of the answers' shape.
    """
    unit = UNIT_ROUNDOFF[precision]
    with np.errstate(all="ignore"):
        error = np.abs(native.astype(np.float64) - exact) * (unit / UNIT_ROUNDOFF["fp32"])
    finite = np.abs(exact[np.isfinite(exact)])
    limit = math.sqrt(unit) * float(finite.max(initial=0.0))
    error = np.minimum(np.nan_to_num(error, nan=0, posinf=0), limit)
    return np.asarray(np.maximum(error, np.sqrt(np.mean(np.square(error)))) if error.size else error)


def _pool(bound: Array) -> Array:
    if bound.size == 0:
        return bound
    pooled: Array = bound + _POOLED * np.sqrt(np.mean(np.square(bound)))
    return pooled


def compare(
    actual: Array,
    reference: Array,
    response: Array | float = 0.0,
    precision: str = "fp32",
    terms: int = 1,
    reference_precision: str = "fp64",
) -> Comparison:
    """Hold an answer to the reference.

    Args:
        actual: the answer, any type.
        reference: MXNet's, in float64 where it can.
        response: see :func:`response`; a float or an array of the reference's shape.
        precision: the precision of the computation that gave ``actual``.
        terms: the length of the longest sum behind one element.
        reference_precision: the precision of the computation that gave ``reference``; its error is added to ours.

    Returns:
        Integers and booleans must be equal; NaN and infinities must stand where the reference's stand.
    """
    if actual.shape != reference.shape:
        return Comparison(False, math.inf, math.inf, f"the shape is {actual.shape}, should be {reference.shape}")
    if actual.size == 0:
        return Comparison(True, 0.0, 0.0)
    if reference.dtype.kind in "biu":
        return _equal(actual, reference)
    expected, found = reference.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(expected)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    limit = float(np.finfo(np.float16).max) if precision == "fp16" else math.inf
    overflow = (np.abs(expected) > limit) & np.isinf(found) & (np.sign(found) == np.sign(expected))
    wrong = ~same & ~overflow & (~finite | ~np.isfinite(found))
    if wrong.any():
        return _at(wrong.astype(float), found, expected, np.zeros_like(expected), math.inf)
    with np.errstate(all="ignore"):
        error = np.where(same | overflow, 0.0, np.abs(found - expected))
        u = UNIT_ROUNDOFF[precision]
        both = 1 + UNIT_ROUNDOFF[reference_precision] / u
        bound = both * accumulation_constant(terms) * (u * np.abs(expected) + response) + SMALLEST_NORMAL[precision]
        ratio = np.where(error == 0, 0.0, error / bound)
    headroom = float(ratio.max())
    if headroom <= 1:
        return Comparison(True, headroom, float(error.max()))
    return _at(ratio, found, expected, np.broadcast_to(bound, error.shape), headroom)


def _equal(actual: Array, reference: Array) -> Comparison:
    different = actual != reference
    if not different.any():
        return Comparison(True, 0.0, 0.0)
    return _at(different.astype(float), actual, reference, np.zeros(actual.shape), math.inf)


def _at(badness: Array, actual: Array, reference: Array, bound: Array, headroom: float) -> Comparison:
    place = np.unravel_index(int(np.argmax(badness)), badness.shape)
    count = int(np.count_nonzero(badness > 1) or np.count_nonzero(badness))
    with np.errstate(all="ignore"):
        differences = np.abs(actual.astype(np.float64) - reference.astype(np.float64))
    error = float(differences.max(initial=0, where=~np.isnan(differences)))
    where = f"[{', '.join(str(int(i)) for i in place)}]"
    message = (
        f"{count} of {actual.size} elements are wrong; worst at {where}: {actual[place].item()!r}, should be "
        f"{reference[place].item()!r}, allowed error {float(bound[place]):.3g}"
    )
    return Comparison(False, headroom, error, message)


def sqnr(actual: Array, reference: Array) -> float:
    """Signal-to-quantization-noise ratio in dB: 10 log10(sum(ref^2) / sum((actual - ref)^2)); inf if equal."""
    expected, found = reference.astype(np.float64), actual.astype(np.float64)
    noise = float(np.sum(np.square(found - expected)))
    signal = float(np.sum(np.square(expected)))
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def top_k_agreement(actual: Array, reference: Array, k: int = 3) -> float:
    """The share of rows whose ``k`` largest classes are the same set; rows are along the first axis."""
    if len(reference) == 0:
        return 1.0
    best = [np.sort(np.argsort(rows, axis=-1)[..., -k:], axis=-1) for rows in (actual, reference)]
    return float(np.mean(np.all(best[0] == best[1], axis=-1)))
