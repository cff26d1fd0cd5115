"""Offline inference: a saved artifact as what Ray Data's ``map_batches`` calls.

    import harness.ray, ray
    rows = ray.data.read_parquet("photos").map_batches(
        harness.ray.Predictor, fn_constructor_args=("model.mxtrt",), batch_size=64,
        compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1)

Ray makes an actor of the class, which loads the artifact once and keeps its engine; batches arrive as NumPy.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifact import load
from ..engines.shared_cache import import_fsspec
from ..errors import ArtifactError, InputError, OptionError
from ..inputs import Input
from ..model import Model
from ..numerics import metamorphic
from ..proof import random_samples

Array = npt.NDArray[Any]
_TOLERANCE = 2.0**-6  # of an output's largest value: a row that sees another row differs by far more than rounding


class Predictor:
    """Calls a saved model on batches of any number of rows.

    A batch is cut into pieces of the best size that the artifact was compiled for, and the last piece is filled up
    with copies of its last row where it is smaller than the smallest size; what they give is dropped.

    Args:
        artifact: the folder, or its fsspec address (``s3://...``; every actor then fetches it once).
        columns: input -> column; by default a column has the input's name, and a model of one input takes the only
            column.
        outputs: output -> column; by default the outputs' own names.
        keep: columns that are passed on beside the outputs.
        load_options: as for :func:`harness.load` (``engine``, ``precision``, and the engine's own).

    Raises:
        ArtifactError: as :func:`harness.load`, or the address cannot be fetched.
        OptionError: the first axis of the inputs is not one batch, or rows of it are not independent.
    """

    def __init__(
        self,
        artifact: str | Path,
        columns: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: Sequence[str] = (),
        **load_options: Any,
    ) -> None:
        self._fetched = _fetch(artifact) if "://" in str(artifact) else None  # its files are mapped: they stay as long
        self.model = load(self._fetched.name if self._fetched else artifact, **load_options)
        self.smallest, self.best, self.largest = rows_of(self.model.inputs)
        self.columns, self.keep = dict(columns or {}), tuple(keep)
        names = dict(outputs or {})
        _check_names("columns", self.columns, self.model.input_names)
        _check_names("outputs", names, self.model.output_names)
        self.names = [names.get(name, name) for name in self.model.output_names]
        taken = [name for name in {*self.names, *self.keep} if [*self.names, *self.keep].count(name) > 1]
        if taken:
            raise OptionError(
                f"outputs: two columns of the answer would be called {', '.join(map(repr, sorted(taken)))}"
            )
        if self.largest > 1:
            _check_independent(self.model)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs of each row, and the columns that are kept.

        Raises:
            InputError: a column is missing, or has another type or shape than the model takes.
        """
        given = {name: self._column(batch, name) for name in self.model.input_names}
        counts = {name: len(array) for name, array in given.items()}
        rows = next(iter(counts.values()))
        if any(count != rows for count in counts.values()):
            raise InputError(f"the columns have different numbers of rows: {counts}")
        kept = {name: np.asarray(_named(batch, name)) for name in self.keep}
        pieces = [self._piece(given, start, end) for start, end in cut(rows, self.smallest, self.best, self.largest)]
        answers = [np.concatenate(parts) for parts in zip(*pieces)] if pieces else self._nothing()
        return {**dict(zip(self.names, answers)), **kept}

    def _column(self, batch: Mapping[str, Any], name: str) -> Array:
        column = self.columns.get(name, name)
        others = [other for other in batch if other not in self.keep]
        if name not in self.columns and column not in batch and len(self.model.inputs) == 1 and len(others) == 1:
            column = others[0]
        array = np.asarray(_named(batch, column))
        if array.dtype == object and len(array):  # rows that arrow could not put together
            array = (
                np.stack([np.asarray(row) for row in array]) if len({np.shape(row) for row in array}) == 1 else array
            )
        if array.dtype.hasobject:
            raise InputError(
                f"column {column!r}: its rows are not arrays of one shape; the model takes {self.model.inputs[name]}"
            )
        return array

    def _piece(self, given: Mapping[str, Array], start: int, end: int) -> list[Array]:
        fill = max(self.smallest - (end - start), 0)
        arrays = {name: _filled(array[start:end], fill) for name, array in given.items()}
        answers = self.model(**arrays)
        for name, answer in zip(self.model.output_names, answers):
            if not answer.shape or answer.shape[0] != end - start + fill:
                raise OptionError(
                    f"output {name!r} has the shape {answer.shape} for {end - start + fill} rows: it has no row for each"
                )
        return [answer[: end - start] for answer in answers]

    def _nothing(self) -> list[Array]:
        """The outputs of no rows, with their types and, where they are known, shapes."""
        specs = [self.model.outputs[name] for name in self.model.output_names]
        return [np.zeros((0, *(s if isinstance(s, int) else 0 for s in spec.shape[1:])), spec.dtype) for spec in specs]


def rows_of(inputs: Mapping[str, Input]) -> tuple[int, int, int]:
    """The smallest, best and largest number of rows that a model takes.

    Raises:
        OptionError: its inputs do not agree about it.
    """
    firsts = {name: spec.shape[0] if spec.shape else None for name, spec in inputs.items()}
    if not firsts or len(set(firsts.values())) != 1 or None in firsts.values() or 0 in firsts.values():
        raise OptionError(f"the inputs have no first axis in common that could be the batch: {firsts or 'no inputs'}")
    size = next(iter(firsts.values()))
    if isinstance(size, tuple):
        return (max(size[0], 1), max(size[1], 1), size[2])
    return (int(size), int(size), int(size))  # type: ignore[arg-type]


def cut(rows: int, smallest: int, best: int, largest: int) -> list[tuple[int, int]]:
    """Where pieces start and end: the best size, and one for the rest; it joins the last if both fit together."""
    bounds = [*range(0, rows, best), rows]
    if len(bounds) > 2 and bounds[-1] - bounds[-3] <= largest and bounds[-1] - bounds[-2] < best:
        del bounds[-2]
    return list(itertools.pairwise(bounds))


def _filled(array: Array, fill: int) -> Array:
    return np.concatenate([array, np.repeat(array[-1:], fill, axis=0)]) if fill else np.ascontiguousarray(array)


def _named(batch: Mapping[str, Any], name: str) -> Any:
    if name not in batch:
        raise InputError(f"column {name!r} is missing; the batch has {', '.join(map(repr, batch)) or 'none'}")
    return batch[name]


def _check_names(what: str, given: Mapping[str, str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise OptionError(
            f"{what}: the model has no {', '.join(map(repr, unknown))}; it has {', '.join(map(repr, known))}"
        )


def _check_independent(model: Model) -> None:
    """OptionError if a reversed batch of drawn rows does not give the reversed answer."""
    (_, sample), *_ = random_samples(model.inputs, 1, 0)
    if next(iter(sample.values())).shape[0] < 2:
        sample = list(random_samples(model.inputs, 3, 0))[2][1]
    axes = dict.fromkeys(model.inputs, 0)
    bounds = [np.abs(answer.astype(np.float64)).max(initial=0) * _TOLERANCE for answer in model(**sample)]
    wide = [np.full(answer.shape, bound) for answer, bound in zip(model(**sample), bounds)]
    found = metamorphic.permuted_batch(model, sample, axes, [0] * len(wide), wide)
    for name, one in zip(model.output_names, found):
        if not one:
            raise OptionError(
                f"output {name!r}: rows of a batch are not independent of each other ({one.message}), so cutting a batch "
                f"would change answers; compile the model for one row, or for the size that is meant"
            )


def _fetch(address: str | Path) -> tempfile.TemporaryDirectory[str]:
    fsspec = import_fsspec(str(address))
    folder = tempfile.TemporaryDirectory(prefix="mxtrt-artifact-")
    try:
        system, path = fsspec.core.url_to_fs(str(address))
        system.get(f"{path.rstrip('/')}/", f"{folder.name}/", recursive=True)
    except Exception as error:  # noqa: BLE001 - every store has exceptions of its own
        raise ArtifactError(f"{address}: cannot be fetched: {type(error).__name__}: {error}") from None
    return folder
