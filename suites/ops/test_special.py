"""Special functions over their whole domain, densely: poles, zeros, extrema and where one formula gives way to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from harness import numerics

from .case import Case, Tensor
from .check import compiled
from .reference import Reference

Array = np.ndarray
POINTS = 3000


def about(*places: float) -> list[Array]:
    """Points within a tenth and within 1e-5 of some places."""
    spread = np.linspace(-1, 1, POINTS // 20)
    return [place + spread * width for place in places for width in (0.1, 1e-5)]


def either_sign(array: Array) -> list[Array]:
    return [array, -array]


GAMMA = [
    np.linspace(-38, 36, POINTS),
    *either_sign(np.geomspace(1e-37, 30, POINTS)),
    *about(-1, -2, -20, -33, 0.25, 1, 1.25, 1.4616, 2, 2.25, 8, -0.504, -1.5735, -2.6107),
    np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 35.04, 35.05, 1e30]),
]
DOMAINS = {
    "gamma": GAMMA,
    "gammaln": [*GAMMA, *either_sign(np.geomspace(1, 4e36, POINTS)), *about(-2.45702, -2.74768, -3.14358)],
    "erfinv": [
        np.linspace(-1.1, 1.1, POINTS),
        *either_sign(np.geomspace(1e-37, 1, POINTS)),
        *either_sign(1 - np.geomspace(6e-8, 0.5, POINTS)),
        np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]),
    ],
}


@pytest.mark.parametrize("operator", DOMAINS)
def test_over_the_whole_domain(operator: str) -> None:
    x = np.concatenate(DOMAINS[operator]).astype(np.float32)
    case = Case(operator, {}, {"data": Tensor(x.shape, values=x)})
    found = compiled(case, {"data": x}, "onnxruntime", "fp32")(data=x)[0]
    reference = Reference(case)

    def exact(arrays: Mapping[str, Array]) -> Sequence[Array]:
        return reference({name: array.astype(np.float64) for name, array in arrays.items()})

    wide = {"data": x.astype(np.float64)}  # in float32 a perturbation of half a unit would be rounded away
    wanted = exact(wide)[0]
    response = numerics.response(exact, wide, [wanted], "fp32", draws=16)[0]
    inside = ~(np.isfinite(wanted) & (np.abs(wanted) > np.finfo(np.float32).max))
    assert np.isinf(found[~inside]).all()
    result = numerics.compare(found[inside], wanted[inside], response[inside], "fp32")
    assert result, f"{result.message}, of {x[inside][np.isfinite(wanted[inside])].size}"
