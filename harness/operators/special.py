"""Special functions: gamma, its logarithm, the inverse error function, and the densities that need them.

ONNX has none of them, so they are written out in float32: float16 goes through float32, and float64 is refused, for
the expansions below end where float32 does. The densities add large logarithms of both signs, and do so in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .context import Context, Value
from .elementwise import compare, isinf, like, pair, select, spellings, typed, where_constant
from .reduction import beside
from .registry import Unsupported, operator
from .schema import Attributes

_STIRLING_FROM = 8.0
_STEPS = (16, 10, 5, 3, 2, 1)  # every whole number up to 37 is a sum of some of these, taken greedily
_LARGEST = 38.5  # from here on gamma is beyond float32, and its inverse below
_BETWEEN_ZEROS = -2.609375, 0.15  # log(|gamma|) has two zeros and an extremum of -0.12 about here, within this distance


def _series_about(centre: float, count: int) -> tuple[float, ...]:
    """Taylor's coefficients of log(|gamma(x)|) (Abramowitz and Stegun 6.4.10; sums ended by Euler and Maclaurin)."""
    terms = [centre + k for k in range(60)]
    m = centre + len(terms)

    def power_sum(n: int) -> float:
        tail = m ** (1 - n) / (n - 1) + m**-n / 2 + n * m ** (-n - 1) / 12 - n * (n + 1) * (n + 2) * m ** (-n - 3) / 720
        return sum(term**-n for term in terms) + float(tail)

    digamma = math.log(m) - 1 / (2 * m) - m**-2 / 12 + m**-4 / 120 - sum(1 / term for term in terms)
    return (math.lgamma(centre), digamma, *((-1) ** n * power_sum(n) / n for n in range(2, count)))


_NEAR_TWO = _series_about(2.0, 20)
_NEAR_ZEROS = _series_about(_BETWEEN_ZEROS[0], 20)

# Giles, "Approximating the erfinv function", GPU Computing Gems 2 (2011), single precision: near 0, and in the tails.
_ERFINV_NEAR = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
    3.43273939e-07, 2.81022636e-08,
)  # fmt: skip
_ERFINV_FAR = (
    2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
    0.000100950558, -0.000200214257,
)  # fmt: skip


def _polynomial(cx: Context, coefficients: Sequence[float], x: Value) -> Value:
    """The polynomial with these coefficients, that of the constant first."""
    y = like(cx, coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        y = pair(cx, "Add", pair(cx, "Mul", y, x), like(cx, coefficient, x))
    return y


def _shifted(cx: Context, x: Value, steps: Sequence[int]) -> tuple[Value, list[Value], Value]:
    """0 < x moved by whole numbers, sums of ``steps`` and upwards at most 2, to 2 + z, -3/4 <= z < 1/4.

    Returns:
        z; numbers whose product is that of the numbers passed on the way (none above 1e25); and whether they were
        passed upwards.
    """
    one = like(cx, 1, x)
    below, least = (compare(cx, "Less", x, like(cx, bound, x)) for bound in (1.25, 0.25))
    passed_up = pair(cx, "Mul", x, select(cx, least, pair(cx, "Add", x, one), one))
    up = select(cx, least, x, pair(cx, "Sub", x, one))
    parts = [select(cx, below, passed_up, one)]
    place = x
    for step in steps:
        moved = pair(cx, "Sub", place, like(cx, step, x))
        taken = compare(cx, "GreaterOrEqual", moved, like(cx, 1.25, x))
        product = moved
        for i in range(1, step):
            product = pair(cx, "Mul", product, pair(cx, "Sub", place, like(cx, step - i, x)))
        product = select(cx, taken, product, one)
        place = select(cx, taken, moved, place)
        if step == _STEPS[0]:
            parts.append(product)
        else:
            parts[0] = pair(cx, "Mul", parts[0], product)
    return select(cx, below, up, pair(cx, "Sub", place, like(cx, 2, x))), parts, below


def _stirling(cx: Context, x: Value) -> Value:
    """log(gamma(x)) for x >= 8 (Abramowitz and Stegun 6.1.41), in a form that is inf at inf."""
    inverse = typed(cx, "Reciprocal", x)
    tail = _polynomial(cx, (1 / 12, -1 / 360), pair(cx, "Mul", inverse, inverse))
    half, one = like(cx, 0.5, x), like(cx, 1, x)
    main = pair(cx, "Mul", pair(cx, "Sub", x, half), pair(cx, "Sub", typed(cx, "Log", x), one))
    rest = pair(cx, "Add", pair(cx, "Mul", tail, inverse), like(cx, (math.log(2 * math.pi) - 1) / 2, x))
    return pair(cx, "Add", main, rest)


def _log_gamma_of_positive(cx: Context, x: Value) -> Value:
    z, (passed,), up = _shifted(cx, x, _STEPS[-3:])
    logarithm = typed(cx, "Log", passed)
    moved = select(cx, up, typed(cx, "Neg", logarithm), logarithm)
    near = pair(cx, "Add", _polynomial(cx, _NEAR_TWO, z), moved)
    return select(cx, compare(cx, "Less", x, like(cx, _STIRLING_FROM, x)), near, _stirling(cx, x))


def _sine(cx: Context, x: Value) -> tuple[Value, Value]:
    """The whole number next to x, and sin(pi x) but for its sign at odd ones: of the exact rest."""
    whole = typed(cx, "Round", x)
    rest = pair(cx, "Sub", x, whole)
    return whole, typed(cx, "Sin", pair(cx, "Mul", rest, like(cx, math.pi, x)))


def log_gamma(cx: Context, x: Value) -> Value:
    """log(|gamma(x)|) of float32.

    Up to 8 the series about 2, to which |x| is moved by whole numbers; Stirling's from there; below 0 the reflection
    formula (Abramowitz and Stegun 6.1.17), which leaves nothing of the small numbers about -2.6: those have a series
    too. inf at the poles and at both infinities.
    """
    negative, size = compare(cx, "Less", x, like(cx, 0, x)), typed(cx, "Abs", x)
    found = _log_gamma_of_positive(cx, size)
    _, sine = _sine(cx, x)
    logarithms = [typed(cx, "Log", value) for value in (size, typed(cx, "Abs", sine))]
    reflected = like(cx, math.log(math.pi), x)
    for term in (*logarithms, found):
        reflected = pair(cx, "Sub", reflected, term)
    centre, reach = _BETWEEN_ZEROS
    rest = pair(cx, "Sub", x, like(cx, centre, x))
    between = compare(cx, "Less", typed(cx, "Abs", rest), like(cx, reach, x))
    reflected = select(cx, between, _polynomial(cx, _NEAR_ZEROS, rest), reflected)
    return where_constant(cx, isinf(cx, x), math.inf, select(cx, negative, reflected, found))


def gamma(cx: Context, x: Value) -> Value:
    """gamma(x) of float32, by the same formulas but Stirling's.

    inf at +-0, with its sign; NaN at negative whole numbers and -inf.
    """
    negative, size = compare(cx, "Less", x, like(cx, 0, x)), typed(cx, "Abs", x)
    z, (passed, further), up = _shifted(cx, _at_most(cx, select(cx, negative, size, x), _LARGEST), _STEPS)
    near = typed(cx, "Exp", _polynomial(cx, _NEAR_TWO, z))
    found = select(cx, up, pair(cx, "Div", near, passed), pair(cx, "Mul", near, passed))
    found = pair(cx, "Mul", found, further)
    found = select(cx, compare(cx, "Equal", x, like(cx, 0, x)), typed(cx, "Reciprocal", x), found)
    whole, sine = _sine(cx, x)
    halves = pair(cx, "Mul", whole, like(cx, 0.5, x))
    odd = compare(cx, "NotEqual", halves, typed(cx, "Floor", halves))
    sine = select(cx, odd, typed(cx, "Neg", sine), sine)
    reflected = pair(cx, "Div", pair(cx, "Div", like(cx, math.pi, x), sine), near)
    reflected = select(cx, up, pair(cx, "Mul", reflected, passed), pair(cx, "Div", reflected, passed))
    reflected = pair(cx, "Div", pair(cx, "Div", reflected, further), size)
    reflected = where_constant(cx, compare(cx, "Equal", x, whole), math.nan, reflected)
    return select(cx, negative, reflected, found)


def _at_most(cx: Context, x: Value, bound: float) -> Value:
    """``x`` or the bound, whichever is smaller; NaN stays."""
    return where_constant(cx, compare(cx, "Greater", x, like(cx, bound, x)), bound, x)


def erfinv(cx: Context, x: Value) -> Value:
    """The inverse error function of float32 (Giles 2011). inf at 1, -inf at -1, NaN outside."""
    one = like(cx, 1, x)
    product = pair(cx, "Mul", pair(cx, "Sub", one, x), pair(cx, "Add", one, x))
    w = typed(cx, "Neg", typed(cx, "Log", product))
    near = _polynomial(cx, _ERFINV_NEAR, pair(cx, "Sub", w, like(cx, 2.5, x)))
    far = _polynomial(cx, _ERFINV_FAR, pair(cx, "Sub", typed(cx, "Sqrt", w), like(cx, 3, x)))
    factor = select(cx, compare(cx, "Less", w, like(cx, 5, x)), near, far)
    factor = where_constant(cx, isinf(cx, w), math.inf, factor)
    return pair(cx, "Mul", factor, x)


_FUNCTIONS: dict[str, Callable[[Context, Value], Value]] = {"gamma": gamma, "gammaln": log_gamma, "erfinv": erfinv}


def _register(name: str, formula: Callable[[Context, Value], Value]) -> None:
    def lower(cx: Context, a: Attributes, data: Value) -> Value:
        if data.dtype not in (np.float32, np.float16):
            raise Unsupported(f"its data are {data.dtype}; float32 and float16 are supported: cast them")
        return cx.cast(formula(cx, cx.cast(data, np.float32)), data.dtype)

    lower.__doc__ = (formula.__doc__ or "").split("\n")[0]
    operator(*(spelling for spelling in spellings(name) if spelling != "_npi_gamma"))(lower)  # that one is random


for _name, _formula in _FUNCTIONS.items():
    _register(_name, _formula)


# --- densities -------------------------------------------------------------------------------------------------------


def _density(cx: Context, a: Attributes, logarithm: Callable[..., Value], sample: Value, *parameters: Value) -> Value:
    """A density from its logarithm, with parameters for each row of samples."""
    return _exp_in_float64(cx, a, logarithm, sample, *(beside(cx, parameter, sample) for parameter in parameters))


def _exp_in_float64(cx: Context, a: Attributes, logarithm: Callable[..., Value], *inputs: Value) -> Value:
    """A density from its logarithm, in float64: in float32 little is left of the difference of its terms."""
    dtype = inputs[0].dtype
    if dtype not in (np.float32, np.float16) or any(value.dtype != dtype for value in inputs):
        raise Unsupported(f"its inputs are {', '.join(str(v.dtype) for v in inputs)}; cast all to float32")
    found = logarithm(cx, *(cx.cast(value, np.float64) for value in inputs))
    return cx.cast(found if a.is_log else typed(cx, "Exp", found), dtype)


def _sum(cx: Context, *terms: Value) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = pair(cx, "Add", total, term)
    return total


def _product(cx: Context, x: Value, y: Value) -> Value:
    return pair(cx, "Mul", x, y)


def _minus(cx: Context, x: Value, y: Value) -> Value:
    return pair(cx, "Sub", x, y)


@operator("_random_pdf_gamma")
def pdf_gamma(cx: Context, a: Attributes, sample: Value, alpha: Value, beta: Value) -> Value:
    """beta^alpha x^(alpha - 1) exp(-beta x) / gamma(alpha) at each sample x, or its logarithm."""

    def logarithm(cx: Context, x: Value, shape: Value, rate: Value) -> Value:
        first = _product(cx, shape, typed(cx, "Log", rate))
        second = _product(cx, _minus(cx, shape, like(cx, 1, x)), typed(cx, "Log", x))
        return _minus(cx, _minus(cx, _sum(cx, first, second), _product(cx, rate, x)), log_gamma(cx, shape))

    return _density(cx, a, logarithm, sample, alpha, beta)


@operator("_random_pdf_poisson")
def pdf_poisson(cx: Context, a: Attributes, sample: Value, lam: Value) -> Value:
    """lam^x exp(-lam) / gamma(x + 1) at each sample x, or its logarithm."""

    def logarithm(cx: Context, x: Value, rate: Value) -> Value:
        first = _minus(cx, _product(cx, x, typed(cx, "Log", rate)), log_gamma(cx, _sum(cx, x, like(cx, 1, x))))
        return _minus(cx, first, rate)

    return _density(cx, a, logarithm, sample, lam)


def _negative_binomial(cx: Context, x: Value, limit: Value, chance: Value) -> Value:
    one = like(cx, 1, x)
    choices = _minus(cx, log_gamma(cx, _sum(cx, x, limit)), log_gamma(cx, _sum(cx, x, one)))
    choices = _minus(cx, choices, log_gamma(cx, limit))
    failures = _product(cx, limit, typed(cx, "Log", chance))
    return _sum(cx, choices, failures, _product(cx, x, typed(cx, "Log", _minus(cx, one, chance))))


@operator("_random_pdf_negative_binomial")
def pdf_negative_binomial(cx: Context, a: Attributes, sample: Value, k: Value, p: Value) -> Value:
    """gamma(x + k) / (gamma(x + 1) gamma(k)) p^k (1 - p)^x at each sample x, or its logarithm."""
    return _density(cx, a, _negative_binomial, sample, k, p)


@operator("_random_pdf_generalized_negative_binomial")
def pdf_generalized_negative_binomial(cx: Context, a: Attributes, sample: Value, mu: Value, alpha: Value) -> Value:
    """The same with k = 1 / alpha and p = 1 / (mu alpha + 1)."""

    def logarithm(cx: Context, x: Value, mean: Value, spread: Value) -> Value:
        scaled = _sum(cx, _product(cx, mean, spread), like(cx, 1, x))
        return _negative_binomial(cx, x, typed(cx, "Reciprocal", spread), typed(cx, "Reciprocal", scaled))

    return _density(cx, a, logarithm, sample, mu, alpha)


@operator("_random_pdf_dirichlet")
def pdf_dirichlet(cx: Context, a: Attributes, sample: Value, alpha: Value) -> Value:
    """gamma(sum(alpha)) prod(x^(alpha - 1) / gamma(alpha)) over the last axis of each sample, or its logarithm."""
    between = sample.rank - alpha.rank
    if between < 0 or not alpha.rank:
        raise Unsupported(f"its inputs are {sample.type} and {alpha.type}; alpha has the leading axes and the last one")
    wide = cx.reshape(alpha, (*alpha.shape[:-1], *(1,) * between, alpha.shape[-1]))

    def logarithm(cx: Context, x: Value, weight: Value) -> Value:
        last = [sample.rank - 1]
        powers = _product(cx, _minus(cx, weight, like(cx, 1, x)), typed(cx, "Log", x))
        whole = log_gamma(cx, cx.reduce("ReduceSum", weight, last))
        parts = cx.reduce("ReduceSum", log_gamma(cx, weight), last)
        return _sum(cx, cx.reduce("ReduceSum", powers, last), _minus(cx, whole, parts))

    return _exp_in_float64(cx, a, logarithm, sample, wide)
