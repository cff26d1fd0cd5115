"""Relations between answers, of every operator whose specs say that axis 0 of its inputs is a batch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from harness.numerics import metamorphic

from .case import Case, Spec, all_specs
from .check import compiled
from .coverage import drawn
from .limitations import limitation_of
from .reference import Reference, answers


def batch_of(case: Case) -> dict[str, int]:
    """The inputs whose axis 0 may vary: the batch, if all of them have the same size there."""
    return {
        name: 0 for name, tensor in case.inputs.items() if 0 in tensor.dynamic and tensor.shape and not tensor.const
    }


# What these give depends on the shape or the position, not on the row.
_NO_BATCH = frozenset({"shape_array", "size_array", "_contrib_index_array", "_contrib_arange_like"})


def has_batch(case: Case) -> bool:
    """Whether axis 0 of some inputs is a batch of 2 and more: MXNet's own first row of the answer, and no other, then
    depends on their first rows.
    """
    batch = batch_of(case)
    sizes = {case.inputs[name].shape[0] for name in batch}
    if case.operator in _NO_BATCH or len(sizes) != 1 or min(sizes) < 2 or limitation_of(case, "onnxruntime", "fp32"):
        return False
    arrays = case.arrays()
    changed = dict(arrays)
    for name in batch:
        changed[name] = arrays[name].copy()
        changed[name][0] = arrays[name][-1]
    reference = Reference(case)
    answers, others = reference.native(arrays), reference.native(changed)
    if any(x.shape[:1] != (min(sizes),) for x in answers):
        return False
    return all(np.array_equal(x[1:], y[1:], equal_nan=x.dtype.kind == "f") for x, y in zip(answers, others))


def batched(spec: Spec) -> bool:
    """Whether a spec says that axis 0 of an input may vary."""
    return any(batch_of(case) for case in drawn(spec.cases(), 3))


SPECS = [spec for spec in all_specs() if batched(spec)]


@pytest.mark.parametrize("spec", SPECS, ids=[f"{spec.operator}-{number}" for number, spec in enumerate(SPECS)])
def test_batch(spec: Spec) -> None:
    @settings(max_examples=2)
    @given(case=spec.cases())
    def run(case: Case) -> None:
        if has_batch(case):
            check_relations(case)

    run()


def check_relations(case: Case) -> None:
    """All relations of one case."""
    arrays = case.arrays()
    known = answers(case, arrays, "fp32")
    bounds = known.bounds
    batch, outputs = batch_of(case), [0] * len(known.exact)
    fixed = partial(_call, compiled(case, arrays, "onnxruntime", "fp32"))
    varying = partial(_call, compiled(case, arrays, "onnxruntime", "fp32", dynamic=True))
    inputs = {name: array for name, array in arrays.items() if not case.inputs[name].const}
    found = {
        "equal rows": metamorphic.equal_rows(fixed, inputs, batch, outputs, terms=case.terms),
        "permuted batch": metamorphic.permuted_batch(fixed, inputs, batch, outputs, bounds, terms=case.terms),
        "split batch": metamorphic.split_batch(varying, inputs, batch, outputs, bounds, terms=case.terms),
        "fixed and varying sizes": metamorphic.same_answers(fixed, varying, inputs, bounds, terms=case.terms),
    }
    for relation, results in found.items():
        for number, result in enumerate(results):
            assert result, f"{relation}: output {number}: {result.message} [{case}]"


def _call(model: object, **arrays: np.ndarray) -> list[np.ndarray]:
    return model(**{name: arrays[name] for name in model.input_names})
