"""Planted faults that change no answer, and why: places where two ways of writing give the same.

A fault that is listed here and is caught all the same is an error of this list; ``suites.meta.mutate`` says so.
"""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """Where (function, source line, kinds of fault; () is all), and why the answer stays the same."""

    function: str
    source: str
    kinds: tuple[str, ...]
    reason: str


EQUIVALENT = [
    Equivalent("_einsum", "if len(values) == 1 or kind.dtype.kind in \"iu\":  # TensorRT's Einsum does not take integers", (),
               "chooses between Einsum and a summed product, which give the same"),
    Equivalent(
        "contract",
        "if rhs.rank == 2 and list(left) == [lhs.rank - 1] and list(right) == [0] and lhs.rank > 1:",
        (),
        "chooses between MatMul and Einsum, which give the same",
    ),
    Equivalent(
        "contract",
        "if lhs.rank == rhs.rank == 2 and len(left) == 1:",
        (),
        "chooses between Gemm and Einsum, which give the same",
    ),
    Equivalent("contract", "if (left[0], right[0]) == (1, 0):", (), "chooses between MatMul and Gemm"),
    Equivalent("_einsum_dtype", 'return np.dtype(np.int32) if dtype.kind in "biu" and dtype.itemsize < 4 else dtype',
               ("constant + 1", "constant - 1", "comparison"), "int32 becomes int32"),
    Equivalent("_without_repeats", "while term.count(label) > 1:", ("constant + 1",),
               "ONNX Runtime's Einsum takes diagonals too; TensorRT's does not"),
    Equivalent("_one_at_least", "return y if y.rank or cx.np_shape else cx.unsqueeze(y, 0)", ("constant + 1",),
               "any axis of a scalar's result is its only one"),
    Equivalent("_small", 'n = static(matrix.shape[-1], "the number of rows of a matrix that is factorized")', (),
               "the matrix is square"),
]  # fmt: skip


def why_equivalent(function: str, source: str, kind: str) -> str | None:
    """The reason why a fault changes nothing; None if it is not known to."""
    name = function.rpartition(".")[2]
    for item in EQUIVALENT:
        if item.function == name and item.source == source and (not item.kinds or kind in item.kinds):
            return item.reason
    return None
