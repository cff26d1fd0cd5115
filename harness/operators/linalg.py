"""Linear algebra: BLAS-like products, diagonals and triangles, factorizations of small matrices.

ONNX has no factorization that TensorRT takes, so those of matrices up to ``LIMIT`` rows are written out step by step
(backward stable algorithms: elimination with partial pivoting, Cholesky, substitution). Where LAPACK stops with an
error (a singular or indefinite matrix), these give infinities or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..dims import Shape
from ..graph import TensorType
from .context import Array, Context, Value, static
from .matrix import check_equal, check_floats, product_of, transposed
from .registry import Unsupported, operator, refuse
from .reshaping import axis_of
from .schema import Attributes

LIMIT = 16  # rows of a matrix that is factorized; each row costs some 15 nodes

refuse(
    "a factorization by orthogonal matrices, whose signs and order are LAPACK's own choice",
    "_linalg_gelqf", "_linalg_syevd", "_npi_eig", "_npi_eigh", "_npi_eigvals", "_npi_eigvalsh", "_npi_svd",
    "_npi_pinv", "_npi_pinv_scalar_rcond",
)  # fmt: skip


# --- products --------------------------------------------------------------------------------------------------------


@operator("_linalg_gemm")
def gemm(cx: Context, a: Attributes, left: Value, right: Value, added: Value) -> Value:
    """``alpha * op(A) @ op(B) + beta * C``; the rows are along ``axis``, the columns along the last one."""
    check_floats(left, right, added)
    y = _gemm(cx, a, left, right)
    check_equal(y.shape, added.shape, "the product and C")
    return cx.op("Add", y, _scaled(cx, added, a.beta), type=y.type)


@operator("_linalg_gemm2")
def gemm2(cx: Context, a: Attributes, left: Value, right: Value) -> Value:
    """``alpha * op(A) @ op(B)``; the rows are along ``axis``, the columns along the last one."""
    check_floats(left, right)
    return _gemm(cx, a, left, right)


def _gemm(cx: Context, a: Attributes, left: Value, right: Value) -> Value:
    rank = left.rank
    if rank < 2 or right.rank != rank:
        raise Unsupported(f"its inputs are {left.type} and {right.type}; MXNet asks for equal ranks of 2 and more")
    axis = axis_of(a.axis, rank)
    if axis == rank - 1:
        raise Unsupported(f"axis={a.axis} of matrices with {rank} axes; the last one holds the columns")
    there = [*(i for i in range(rank) if i not in (axis, rank - 1)), axis, rank - 1]
    back = [there.index(i) for i in range(rank)]
    x, y = cx.transpose(left, there), cx.transpose(right, there)
    check_equal(x.shape[:-2], y.shape[:-2], "the leading axes")
    z = product_of(cx, transposed(cx, x, a.transpose_a), transposed(cx, y, a.transpose_b))
    return cx.transpose(_scaled(cx, z, a.alpha), back)


@operator("_linalg_syrk")
def syrk(cx: Context, a: Attributes, data: Value) -> Value:
    """``alpha * A @ A.T``, or with ``transpose`` ``alpha * A.T @ A``."""
    _check_matrix(data, square=False)
    turned = transposed(cx, data)
    y = product_of(cx, turned, data) if a.transpose else product_of(cx, data, turned)
    return _scaled(cx, y, a.alpha)


@operator("_linalg_trmm")
def trmm(cx: Context, a: Attributes, triangle: Value, data: Value) -> Value:
    """``alpha * op(A) @ B`` (``rightside``: ``alpha * B @ op(A)``), A's other triangle counting as zero."""
    _check_pair(triangle, data, a.rightside)
    factor = transposed(cx, _triangle(cx, triangle, a.lower), a.transpose)
    y = product_of(cx, data, factor) if a.rightside else product_of(cx, factor, data)
    return _scaled(cx, y, a.alpha)


@operator("_linalg_trsm")
def trsm(cx: Context, a: Attributes, triangle: Value, data: Value) -> Value:
    """Solves ``op(A) @ X = alpha * B`` (``rightside``: ``X @ op(A) = alpha * B``) for a triangular A."""
    _check_pair(triangle, data, a.rightside)
    matrix = transposed(cx, triangle, a.transpose)
    lower = a.lower != a.transpose
    if not a.rightside:
        return _scaled(cx, _substitute(cx, matrix, data, lower), a.alpha)
    x = _substitute(cx, transposed(cx, matrix), transposed(cx, data), not lower)
    return _scaled(cx, transposed(cx, x), a.alpha)


def _substitute(cx: Context, matrix: Value, data: Value, lower: bool) -> Value:
    """X of ``matrix @ X = data``, row by row: forward for a lower triangle, backward for an upper one."""
    n = _small(matrix)
    rows: dict[int, Value] = {}
    order = range(n) if lower else range(n - 1, -1, -1)
    for i in order:
        known = sorted(rows)
        row = _rows(cx, data, i, i + 1)
        if known:
            part = cx.slice(matrix, [i, known[0]], [i + 1, known[-1] + 1], [matrix.rank - 2, matrix.rank - 1])
            row = cx.op(
                "Sub", row, product_of(cx, part, cx.concat([rows[k] for k in known], data.rank - 2)), type=row.type
            )
        rows[i] = cx.op("Div", row, _element(cx, matrix, i, i), type=row.type)
    return _stacked(cx, [rows[i] for i in range(n)], data.shape)


# --- diagonals and triangles -----------------------------------------------------------------------------------------


@operator("_linalg_sumlogdiag")
def sumlogdiag(cx: Context, a: Attributes, data: Value) -> Value:
    """The sum of the logarithms of the diagonal; of one matrix it has the shape (1,)."""
    n = _check_matrix(data)
    logs = cx.op("Log", _picked(cx, data, np.arange(n) * (n + 1)))
    y = cx.reduce("ReduceSum", logs, [logs.rank - 1], keepdims=data.rank == 2)
    return y


@operator("_linalg_extractdiag")
def extractdiag(cx: Context, a: Attributes, data: Value) -> Value:
    """The diagonal ``offset`` places above the main one."""
    n = _check_matrix(data)
    count = _count(n, a.offset)
    return _picked(cx, data, np.arange(count) * (n + 1) + _start(n, a.offset))


@operator("_linalg_extracttrian")
def extracttrian(cx: Context, a: Attributes, data: Value) -> Value:
    """The triangle at or beyond the diagonal ``offset`` as a vector, by rows (below) or columns (above)."""
    n = _check_matrix(data)
    return _picked(cx, data, _triangle_places(_count(n, a.offset), n, a.offset, _goes_down(a)))


@operator("_linalg_makediag")
def makediag(cx: Context, a: Attributes, data: Value) -> Value:
    """A matrix with this diagonal ``offset`` places above the main one, and zeros elsewhere."""
    count = static(data.shape[-1], "the length of the diagonal")
    n = count + abs(a.offset)
    return _placed(cx, data, np.arange(count) * (n + 1) + _start(n, a.offset), n)


@operator("_linalg_maketrian")
def maketrian(cx: Context, a: Attributes, data: Value) -> Value:
    """A matrix with this triangle, as ``_linalg_extracttrian`` gives it, and zeros elsewhere."""
    length = static(data.shape[-1], "the length of the triangle")
    count = math.isqrt(2 * length)
    if count * (count + 1) // 2 != length:
        raise Unsupported(f"{length} elements are no triangle")
    n = count + abs(a.offset)
    return _placed(cx, data, _triangle_places(count, n, a.offset, _goes_down(a)), n)


def _goes_down(a: Attributes) -> bool:
    """An offset other than 0 says by its sign which triangle is meant; ``lower`` then says nothing."""
    lower: bool = a.lower
    offset: int = a.offset
    return offset < 0 or (offset == 0 and lower)


def _count(n: int, offset: int) -> int:
    count = n - abs(offset)
    if count <= 0:
        raise Unsupported(f"offset={offset} lies outside a matrix with {n} rows")
    return count


def _start(n: int, offset: int) -> int:
    return offset if offset >= 0 else -offset * n


def _triangle_places(count: int, n: int, offset: int, down: bool) -> Array:
    long, short = np.tril_indices(count)
    return (long - offset) * n + short if down else short * n + long + offset


def _picked(cx: Context, data: Value, places: Array) -> Value:
    """Elements of each matrix by their place in row order."""
    n = data.shape[-1]
    flat = cx.reshape(data, (*data.shape[:-2], n * n))
    kind = TensorType(data.dtype, (*data.shape[:-2], len(places)))
    return cx.op("Gather", flat, cx.const(places.astype(np.int64)), type=kind, axis=flat.rank - 1)


def _placed(cx: Context, data: Value, places: Array, n: int) -> Value:
    """A matrix of n rows with the vector's elements at these places: gathered from the vector and one zero behind it."""
    count = len(places)
    sources = np.full(n * n, count, np.int64)
    sources[places] = np.arange(count)
    pads = [0] * (2 * data.rank - 1) + [1]
    longer = TensorType(data.dtype, (*data.shape[:-1], count + 1))
    padded = cx.op("Pad", data, cx.ints(*pads), type=longer)
    kind = TensorType(data.dtype, (*data.shape[:-1], n, n))
    return cx.op("Gather", padded, cx.const(sources.reshape(n, n)), type=kind, axis=data.rank - 1)


# --- factorizations of small matrices --------------------------------------------------------------------------------


@operator("_linalg_potrf", "_npi_cholesky")
def potrf(cx: Context, a: Attributes, data: Value) -> Value:
    """The lower triangular L with ``L @ L.T = A`` of a symmetric positive definite A, whose lower triangle is read."""
    _check_matrix(data)
    return _cholesky(cx, data)


def _cholesky(cx: Context, data: Value) -> Value:
    """Column by column: each is what is left of A's after the product of those before, over the root of its first."""
    n = _small(data)
    if n == 0:
        return data
    columns: list[Value] = []
    for k in range(n):
        column = cx.slice(data, [k, k], [n, k + 1], [data.rank - 2, data.rank - 1])
        if columns:
            before = cx.concat([_rows(cx, c, k, n) for c in columns], data.rank - 1)
            own = transposed(cx, _rows(cx, before, 0, 1))
            column = cx.op("Sub", column, product_of(cx, before, own), type=column.type)
        column = cx.op("Div", column, cx.op("Sqrt", _rows(cx, column, 0, 1)), type=column.type)
        pads = [0] * data.rank * 2
        pads[data.rank - 2] = k
        whole = TensorType(data.dtype, (*data.shape[:-1], 1))
        columns.append(cx.op("Pad", column, cx.ints(*pads), type=whole) if k else column)
    return _stacked(cx, columns, data.shape, -1)


@operator("_linalg_potri")
def potri(cx: Context, a: Attributes, factor: Value) -> Value:
    """The inverse of ``A = L @ L.T``, from the lower triangular L."""
    n = _check_matrix(factor)
    _small(factor)
    half = _substitute(cx, factor, _identity(cx, factor, n), lower=True)
    return product_of(cx, transposed(cx, half), half)


@operator("_linalg_inverse")
def inverse(cx: Context, a: Attributes, data: Value) -> Value:
    """The inverse of each matrix."""
    n = _check_matrix(data)
    _small(data)
    return _solve(cx, data, _identity(cx, data, n))


@operator("_npi_tensorinv")
def tensorinv(cx: Context, a: Attributes, data: Value) -> Value:
    """The inverse of a tensor seen as a matrix: its first ``ind`` axes are the rows, the others the columns."""
    check_floats(data)
    shape = tuple(static(size, "a size of a tensor to invert") for size in data.shape)
    ind = a.ind
    if not 0 < ind < len(shape) or np.prod(shape[:ind]) != np.prod(shape[ind:]):
        raise Unsupported(f"ind={ind} does not cut the shape {shape} into two equal halves")
    n = int(np.prod(shape[:ind]))
    found = _solve(cx, cx.reshape(data, (n, n)), cx.const(np.eye(n, dtype=data.dtype)))
    return cx.reshape(found, shape[ind:] + shape[:ind])


@operator("_npi_solve")
def solve(cx: Context, a: Attributes, matrix: Value, data: Value) -> Value:
    """X of ``A @ X = B``; B has an axis of right-hand sides, or is a vector."""
    _check_matrix(matrix)
    check_floats(matrix, data)
    if data.rank == matrix.rank - 1:
        check_equal(matrix.shape[:-1], data.shape, "A without its last axis, and B")
        return cx.squeeze(_solve(cx, matrix, cx.unsqueeze(data, data.rank)), data.rank)
    check_equal(matrix.shape[:-1], data.shape[:-1], "A and B, without their last axes,")
    return _solve(cx, matrix, data)


@operator("_npi_tensorsolve")
def tensorsolve(cx: Context, a: Attributes, tensor: Value, data: Value) -> Value:
    """X of ``tensordot(A, X, X.ndim) = B``; the axes ``a_axes`` of A are moved to its end first."""
    check_floats(tensor, data)
    axes = [axis % tensor.rank for axis in a.a_axes or ()]
    moved = cx.transpose(tensor, [*(i for i in range(tensor.rank) if i not in axes), *axes])
    shape = tuple(static(size, "a size of a tensor to solve for") for size in moved.shape)
    rows, columns = shape[: data.rank], shape[data.rank :]
    n = int(np.prod(rows))
    check_equal(rows, data.shape, "A's first axes and B")
    if np.prod(columns) != n:
        raise Unsupported(f"A of the shape {shape} is no square system for B of the shape {data.shape}")
    found = _solve(cx, cx.reshape(moved, (n, n)), cx.reshape(data, (n, 1)))
    return cx.reshape(found, columns)


@operator("_linalg_det")
def det(cx: Context, a: Attributes, data: Value) -> Value:
    """The determinant of each matrix; of one matrix it has the shape (1,), under NumPy semantics ()."""
    _check_matrix(data)
    sign, pivots = _pivots(cx, data)
    y = cx.op("Mul", sign, cx.reduce("ReduceProd", pivots, [pivots.rank - 1]), type=sign.type)
    return _one_at_least(cx, y)


@operator("_linalg_slogdet")
def slogdet(cx: Context, a: Attributes, data: Value) -> list[Value]:
    """The sign of each determinant and the logarithm of its magnitude (0 and -inf of a singular matrix)."""
    _check_matrix(data)
    sign, pivots = _pivots(cx, data)
    signs = cx.reduce("ReduceProd", cx.op("Sign", pivots), [pivots.rank - 1])
    logs = cx.reduce("ReduceSum", cx.op("Log", cx.op("Abs", pivots)), [pivots.rank - 1])
    outputs = [cx.op("Mul", sign, signs, type=sign.type), logs]
    return [_one_at_least(cx, y) for y in outputs]


def _one_at_least(cx: Context, y: Value) -> Value:
    return y if y.rank or cx.np_shape else cx.unsqueeze(y, 0)


class _Elimination:
    """Gauss-Jordan elimination with partial pivoting, all matrices of a stack at once.

    Rows stay in place: ``choices`` holds, per step, the one-hot row of the pivot, and ``used`` which rows are done.
    """

    def __init__(self, cx: Context, matrix: Value, data: Value | None) -> None:
        self.cx = cx
        self.n = _small(matrix)
        axis = matrix.rank - 1
        self.rows = cx.concat([matrix, data], axis) if data is not None else matrix
        self.axis = axis
        self.pivots: list[Value] = []
        self.places: list[Value] = []
        self.choices: list[Value] = []
        self.free: Value | None = None
        for k in range(self.n):
            self._step(k, full=data is not None)

    def _step(self, k: int, full: bool) -> None:
        cx, rows = self.cx, self.rows
        zero, one = (cx.const(np.array(v, rows.dtype)) for v in (0, 1))
        column = cx.slice(rows, [k], [k + 1], [self.axis])
        size = cx.op("Abs", column)
        if self.free is not None:
            size = cx.op("Where", self.free, size, cx.const(np.array(-1, rows.dtype)), type=size.type)
        place = cx.op("ArgMax", size, axis=self.axis - 1, keepdims=1)
        order = cx.const(np.arange(self.n, dtype=np.int64).reshape(-1, 1))
        chosen = cx.op("Equal", order, place, type=TensorType(np.dtype(bool), column.shape))
        choice = transposed(cx, cx.cast(chosen, rows.dtype))
        pivot_row = product_of(cx, choice, rows)
        pivot = cx.slice(pivot_row, [k], [k + 1], [self.axis])
        safe = pivot if full else cx.op("Where", cx.op("Equal", pivot, zero), one, pivot, type=pivot.type)
        unit_row = cx.op("Div", pivot_row, safe, type=pivot_row.type)
        eliminated = cx.op("Sub", rows, cx.op("Mul", column, unit_row, type=rows.type), type=rows.type)
        self.rows = cx.op("Where", chosen, unit_row, eliminated, type=rows.type) if full else eliminated
        rest = cx.op("Not", chosen)
        self.free = rest if self.free is None else cx.op("And", self.free, rest, type=rest.type)
        self.pivots.append(pivot)
        self.places.append(place)
        self.choices.append(choice)


def _solve(cx: Context, matrix: Value, data: Value) -> Value:
    """X of ``matrix @ X = data``."""
    n = _small(matrix)
    if n == 0 or 0 in data.shape:
        return data
    done = _Elimination(cx, matrix, data)
    bounds = [cx.ints(n), cx.ints(np.iinfo(np.int32).max), cx.ints(done.axis)]
    right = cx.op("Slice", done.rows, *bounds, type=TensorType(data.dtype, data.shape))
    return product_of(cx, cx.concat(done.choices, done.axis - 1), right)


def _pivots(cx: Context, data: Value) -> tuple[Value, Value]:
    """The sign of the permutation of each matrix's rows, and the pivots of its elimination."""
    if 0 in data.shape:
        raise Unsupported("the determinant of an empty matrix: MXNet gives 0, NumPy 1")
    lead = data.shape[:-2]
    done = _Elimination(cx, data, None)
    pivots = _joined(cx, done.pivots, lead)
    places = cx.cast(_joined(cx, done.places, lead), data.dtype)
    axis = len(lead)
    later = cx.unsqueeze(places, axis)
    earlier = cx.unsqueeze(places, axis + 1)
    pair = TensorType(data.dtype, (*lead, done.n, done.n))
    signs = cx.op("Sign", cx.op("Sub", later, earlier, type=pair))
    above = cx.const(np.triu(np.ones((done.n, done.n), bool), 1))
    signs = cx.op("Where", above, signs, cx.const(np.ones((), data.dtype)), type=pair)
    return cx.reduce("ReduceProd", signs, [axis, axis + 1]), pivots


def _joined(cx: Context, parts: Sequence[Value], lead: Shape) -> Value:
    """Values of the shape (..., 1, 1), side by side as (..., n)."""
    flat = [cx.op("Squeeze", x, cx.ints(x.rank - 1), type=TensorType(x.dtype, (*lead, 1))) for x in parts]
    return _stacked(cx, flat, (*lead, len(parts)), -1)


# --- shared ----------------------------------------------------------------------------------------------------------


def _scaled(cx: Context, x: Value, factor: float) -> Value:
    return x if factor == 1 else cx.op("Mul", x, cx.const(np.array(factor, x.dtype)), type=x.type)


def _triangle(cx: Context, x: Value, lower: bool) -> Value:
    return cx.op("Trilu", x, type=x.type, upper=0 if lower else 1)


def _element(cx: Context, x: Value, i: int, j: int) -> Value:
    return cx.slice(x, [i, j], [i + 1, j + 1], [x.rank - 2, x.rank - 1])


def _rows(cx: Context, x: Value, start: int, end: int) -> Value:
    if start == 0 and end == x.shape[-2]:
        return x
    return cx.slice(x, [start], [end], [x.rank - 2])


def _stacked(cx: Context, parts: Sequence[Value], shape: Shape, axis: int = -2) -> Value:
    if len(parts) == 1:
        return parts[0]
    return cx.op("Concat", *parts, type=TensorType(parts[0].dtype, shape), axis=len(shape) + axis)


def _identity(cx: Context, like: Value, n: int) -> Value:
    """The identity for each matrix of a stack."""
    eye = cx.const(np.eye(n, dtype=like.dtype))
    return eye if like.rank == 2 else cx.op("Expand", eye, cx.shape(like.shape, like), type=like.type)


def _small(matrix: Value) -> int:
    n = static(matrix.shape[-1], "the number of rows of a matrix that is factorized")
    if n > LIMIT:
        raise Unsupported(f"it factorizes matrices with {n} rows; up to {LIMIT} are written out as ONNX")
    return n


def _check_matrix(data: Value, square: bool = True) -> int:
    """Refuse what MXNet refuses; the number of rows of a square matrix."""
    check_floats(data)
    if data.rank < 2:
        raise Unsupported(f"its input is {data.type}, and no matrix")
    if not square:
        return 0
    rows, columns = (static(size, "the size of a square matrix") for size in data.shape[-2:])
    if rows != columns:
        raise Unsupported(f"its matrices have {rows} rows and {columns} columns; they must be square")
    return rows


def _check_pair(triangle: Value, data: Value, right: bool) -> None:
    _check_matrix(triangle)
    check_floats(triangle, data)
    if triangle.rank != data.rank:
        raise Unsupported(f"its inputs are {triangle.type} and {data.type}; MXNet asks for equal ranks")
    check_equal(triangle.shape[:-2], data.shape[:-2], "the leading axes")
    axis = -1 if right else -2
    check_equal(triangle.shape[-1:], (data.shape[axis],), "the axes it sums over")
