"""Relations that a right answer keeps, whatever it is: no reference is needed to check them.

A function here is anything that takes named arrays and returns a list of arrays: a compiled model, for one. Which axis
of an input or output is the batch is said by the caller; an input without one (a parameter) is passed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import Comparison, compare

Array = npt.NDArray[Any]
Function = Callable[..., Sequence[Array]]
Axes = Mapping[str, int]


def equal_rows(
    function: Function,
    inputs: Mapping[str, Array],
    batch: Axes,
    outputs: Sequence[int],
    precision: str = "fp32",
    terms: int = 1,
) -> list[Comparison]:
    """Rows of the batch that are equal give rows of the answer that are equal, but for a few roundings.

    Vectorised kernels compute the end of an array with other instructions than the rest, so "to the last bit" would be
    false of right engines.

    Args:
        function: takes the arrays by name.
        inputs: its inputs; those in ``batch`` are replaced by copies of their first row.
        batch: the batch axis of each input that has one.
        outputs: the batch axis of each output.
    """
    repeated = {
        name: np.repeat(np.take(array, [0], batch[name]), array.shape[batch[name]], batch[name])
        if name in batch
        else array
        for name, array in inputs.items()
    }
    answers = function(**repeated)
    return [
        compare(
            answer, np.repeat(np.take(answer, [0], axis), answer.shape[axis], axis), precision=precision, terms=terms
        )
        for answer, axis in zip(answers, outputs)
    ]


def permuted_batch(
    function: Function,
    inputs: Mapping[str, Array],
    batch: Axes,
    outputs: Sequence[int],
    bounds: Sequence[Array],
    precision: str = "fp32",
    terms: int = 1,
) -> list[Comparison]:
    """A reversed batch gives the reversed answer; ``bounds`` are the responses of the error model."""
    reversed_inputs = {name: np.flip(a, batch[name]).copy() if name in batch else a for name, a in inputs.items()}
    turned = [np.flip(answer, axis) for answer, axis in zip(function(**reversed_inputs), outputs)]
    return _same(turned, function(**inputs), bounds, precision, terms)


def split_batch(
    function: Function,
    inputs: Mapping[str, Array],
    batch: Axes,
    outputs: Sequence[int],
    bounds: Sequence[Array],
    precision: str = "fp32",
    terms: int = 1,
) -> list[Comparison]:
    """Row by row gives what the whole batch gives; the function must take a batch of 1."""
    size = batch_size(inputs, batch)
    rows = [
        function(**{name: np.take(a, [row], batch[name]) if name in batch else a for name, a in inputs.items()})
        for row in range(size)
    ]
    joined = [np.concatenate([row[i] for row in rows], axis) for i, axis in enumerate(outputs)]
    return _same(joined, function(**inputs), bounds, precision, terms)


def same_answers(
    first: Function,
    second: Function,
    inputs: Mapping[str, Array],
    bounds: Sequence[Array],
    precision: str = "fp32",
    terms: int = 1,
) -> list[Comparison]:
    """Two builds of one model (fixed and varying sizes, cut and whole) give the same answer."""
    return _same(first(**inputs), second(**inputs), bounds, precision, terms)


def batch_size(inputs: Mapping[str, Array], batch: Axes) -> int:
    """The size that all batch axes have.

    Raises:
        ValueError: they differ, or there is none.
    """
    sizes = {inputs[name].shape[axis] for name, axis in batch.items()}
    if len(sizes) != 1:
        raise ValueError(f"the batch axes have the sizes {sorted(sizes)}")
    return int(sizes.pop())


def _same(
    found: Sequence[Array], wanted: Sequence[Array], bounds: Sequence[Array], precision: str, terms: int
) -> list[Comparison]:
    """Both sides carry the error that one answer may have: each is half of what the bound of ``compare`` is doubled to."""
    return [
        compare(x, y.astype(np.float64) if y.dtype.kind == "f" else y, 2 * np.asarray(bound), precision, terms)
        for x, y, bound in zip(found, wanted, bounds)
    ]
