"""Linear algebra: how its attributes and shapes are drawn."""

from __future__ import annotations

import numpy as np

from .case import DEFAULT, Attributes, Draw, Inputs, Spec, Tensor
from .matrix import BOTH, FLOATS, length

SCALES = [DEFAULT, 1.0, -2.5, 0.0]
OFFSETS = [DEFAULT, -2, -1, 0, 1, 2]


def _lead(d: Draw) -> tuple[int, ...]:
    return d.shape((0, 2), high=3)


def _first(lead: tuple[int, ...]) -> tuple[int, ...]:
    return (0,) if lead else ()


def gemm(d: Draw, a: Attributes) -> Inputs:
    axis = a.get("axis", -2)
    lead = d.shape((max(axis, -axis - 2), 2), high=3)
    m, k, n = d.sizes(3, 1, 4)
    left = (k, m) if a.get("transpose_a", False) else (m, k)
    right = (n, k) if a.get("transpose_b", False) else (k, n)
    place = axis % (len(lead) + 2)
    kind = d.pick(FLOATS)

    def with_rows(matrix: tuple[int, int]) -> tuple[int, ...]:
        return (*lead[:place], matrix[0], *lead[place:], matrix[1])

    return {
        "A": Tensor(with_rows(left), kind),
        "B": Tensor(with_rows(right), kind, const=d.boolean()),
        "C": Tensor(with_rows((m, n)), kind),
    }


def gemm2(d: Draw, a: Attributes) -> Inputs:
    inputs = gemm(d, a)
    del inputs["C"]
    return inputs


def syrk(d: Draw, a: Attributes) -> Inputs:
    lead = _lead(d)
    return {"A": Tensor((*lead, *d.sizes(2)), d.pick(FLOATS), dynamic=(*_first(lead), len(lead) + d.integer(0, 1)))}


def triangular(d: Draw, a: Attributes) -> Inputs:
    lead, n = _lead(d), d.integer(1, 4)
    kind = d.pick(FLOATS)
    shape = (d.integer(1, 3), n) if a.get("rightside", False) else (n, d.integer(1, 3))
    rng = np.random.default_rng(d.integer(0, 1000))
    # The diagonal stays away from 0, and the triangle that must not be read is there to be read.
    matrix = rng.uniform(-1, 1, (*lead, n, n)) + np.eye(n) * rng.choice([-3, 3], n)
    return {
        "A": Tensor(matrix.shape, kind, values=matrix, dynamic=_first(lead)),
        "B": Tensor((*lead, *shape), kind, dynamic=_first(lead)),
    }


def square(d: Draw, a: Attributes) -> Inputs:
    lead = _lead(d)
    n = d.integer(1 + abs(a.get("offset", 0)), 5)
    return {"A": Tensor((*lead, n, n), d.pick(FLOATS), dynamic=_first(lead))}


def positive(d: Draw, a: Attributes) -> Inputs:
    lead, n = _lead(d), d.integer(1, 4)
    return {"A": Tensor((*lead, n, n), d.pick(FLOATS), low=0.1, high=5, dynamic=_first(lead))}


def vector(d: Draw, a: Attributes) -> Inputs:
    lead = _lead(d)
    return {"A": Tensor((*lead, d.integer(1, 5)), d.pick(FLOATS), dynamic=_first(lead))}


def triangle_vector(d: Draw, a: Attributes) -> Inputs:
    lead = _lead(d)
    return {"A": Tensor((*lead, d.pick([6, 10, 3, 1])), d.pick(FLOATS), dynamic=_first(lead))}


def definite(d: Draw, a: Attributes) -> Inputs:
    """A symmetric positive definite matrix; its upper triangle is not to be read."""
    lead, n = _lead(d), d.integer(1, 5)
    rng = np.random.default_rng(d.integer(0, 1000))
    half = rng.uniform(-1, 1, (*lead, n, n))
    matrix = half @ np.swapaxes(half, -1, -2) + np.eye(n)
    return {"A": Tensor(matrix.shape, d.pick(FLOATS), values=matrix, dynamic=_first(lead))}


def factor(d: Draw, a: Attributes) -> Inputs:
    lead, n = _lead(d), d.integer(1, 4)
    rng = np.random.default_rng(d.integer(0, 1000))
    matrix = np.tril(rng.uniform(-1, 1, (*lead, n, n))) + np.eye(n) * 2
    return {"A": Tensor(matrix.shape, d.pick(FLOATS), values=matrix, dynamic=_first(lead))}


def _regular(d: Draw, lead: tuple[int, ...], n: int) -> np.ndarray:
    """A well-conditioned matrix whose rows must be exchanged."""
    rng = np.random.default_rng(d.integer(0, 1000))
    matrix = rng.uniform(-1, 1, (*lead, n, n)) + 3 * np.eye(n)
    order = rng.permuted(np.broadcast_to(np.arange(n), (*lead, n)), axis=-1)
    return np.take_along_axis(matrix, order[..., None], axis=-2)


def regular(d: Draw, a: Attributes) -> Inputs:
    lead, n = _lead(d), d.integer(1, 5)
    matrix = _regular(d, lead, n)
    return {"A": Tensor(matrix.shape, d.pick(FLOATS), values=matrix, dynamic=_first(lead))}


def singular(d: Draw, a: Attributes) -> Inputs:
    matrix = np.array([[[1, 2], [2, 4]], [[0, 3], [2, 1]], [[0, 0], [0, 0]]], np.float64)
    return {"A": Tensor(matrix.shape, d.pick(FLOATS), values=matrix)}


def system(d: Draw, a: Attributes) -> Inputs:
    lead, n = _lead(d), d.integer(1, 5)
    kind = d.pick(FLOATS)
    matrix = _regular(d, lead, n)
    return {
        "A": Tensor(matrix.shape, kind, values=matrix, dynamic=_first(lead)),
        "B": Tensor((*lead, n, n) if d.boolean() else (*lead, n), kind, dynamic=_first(lead)),
    }


def tensorinv(d: Draw, a: Attributes) -> Inputs:
    ind = a.get("ind", 2)
    shape = {1: (4, 2, 2), 2: d.pick([(2, 2, 4), (3, 2, 3, 2), (1, 2, 2, 1)]), 3: (1, 2, 2, 4)}[ind]
    matrix = _regular(d, (), int(np.prod(shape[:ind]))).reshape(shape)
    return {"a": Tensor(shape, d.pick(FLOATS), values=matrix)}


def tensorsolve(d: Draw, a: Attributes) -> Inputs:
    matrix = _regular(d, (), 4).reshape(2, 2, 2, 2)
    kind = d.pick(FLOATS)
    return {"a": Tensor(matrix.shape, kind, values=matrix), "b": Tensor((2, 2), kind)}


SPECS = [
    Spec("_linalg_gemm", {"transpose_a": BOTH, "transpose_b": BOTH, "alpha": SCALES, "beta": SCALES, "axis": [DEFAULT, -2, 0, 1, -3]},
         gemm, terms=length),
    Spec("_linalg_gemm2", {"transpose_a": BOTH, "transpose_b": BOTH, "alpha": SCALES, "axis": [DEFAULT, -2, 0, 1, -3]},
         gemm2, terms=length),
    Spec("_linalg_syrk", {"transpose": BOTH, "alpha": SCALES}, syrk, terms=length),
    Spec("_linalg_trmm", {"transpose": BOTH, "rightside": BOTH, "lower": BOTH, "alpha": SCALES}, triangular, terms=length),
    Spec("_linalg_trsm", {"transpose": BOTH, "rightside": BOTH, "lower": BOTH, "alpha": SCALES}, triangular, terms=length),
    Spec("_linalg_sumlogdiag", {}, positive, terms=length),
    Spec("_linalg_extractdiag", {"offset": OFFSETS}, square),
    Spec("_linalg_extracttrian", {"offset": OFFSETS, "lower": BOTH}, square, examples=15),
    Spec("_linalg_makediag", {"offset": OFFSETS}, vector),
    Spec("_linalg_maketrian", {"offset": OFFSETS, "lower": BOTH}, triangle_vector, examples=15),
    Spec("_linalg_potrf", {}, definite, terms=length),
    Spec("_npi_cholesky", {}, definite, np_shape=True, terms=length),
    Spec("_linalg_potri", {}, factor, terms=length),
    Spec("_linalg_inverse", {}, regular, terms=length),
    Spec("_linalg_inverse", {}, regular, np_shape=True, terms=length),
    Spec("_linalg_det", {}, regular, terms=length),
    Spec("_linalg_det", {}, regular, np_shape=True, terms=length),
    Spec("_linalg_det", {}, singular, terms=length),
    Spec("_linalg_slogdet", {}, regular, terms=length, outputs=2),
    Spec("_linalg_slogdet", {}, regular, np_shape=True, terms=length, outputs=2),
    Spec("_linalg_slogdet", {}, singular, terms=length, outputs=2),
    Spec("_npi_solve", {}, system, np_shape=True, terms=length),
    Spec("_npi_tensorinv", {"ind": [DEFAULT, 1, 2, 3]}, tensorinv, np_shape=True, terms=length),
    Spec("_npi_tensorsolve", {"a_axes": [DEFAULT, (0,), (1, 0)]}, tensorsolve, np_shape=True, terms=length),
]  # fmt: skip
