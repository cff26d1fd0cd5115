"""The TensorRT cells: every operator in every float precision, against MXNet under the error model.

    pytest suites/ops -m gpu

A cell that the engine refuses, with its reason, is an expected failure: right or refused. A cell that builds must be
right; one that does not build although nothing refused it fails.
"""

from __future__ import annotations

import functools
import os

import pytest
from hypothesis import given, settings

import harness
from harness.engines.base import get_engine

from .case import Spec, all_specs
from .check import check
from .test_operators import LABELS

SPECS = all_specs()
PRECISIONS = ("fp32", "fp16", "bf16")
EXAMPLES = int(os.environ.get("MXTRT_GPU_EXAMPLES", "3"))

pytestmark = pytest.mark.gpu


@functools.cache
def why_not() -> str:
    """Why the TensorRT engine cannot run here, "" if it can."""
    try:
        get_engine("tensorrt")
    except harness.EngineMissing as error:
        return str(error)
    return ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("spec", SPECS, ids=LABELS)
def test_cell(spec: Spec, precision: str, record_property) -> None:
    if why_not():
        pytest.skip(why_not())
    headrooms: list[float] = []
    refusals: list[str] = []

    @settings(max_examples=EXAMPLES)
    @given(case=spec.cases())
    def run(case):
        try:
            headrooms.append(check(case, "tensorrt", precision))
        except harness.UnsupportedOperator as refusal:
            refusals.append(refusal.blocked[0].reason)

    record_property("operator", spec.operator)
    record_property("precision", precision)
    run()
    record_property("headroom", max(headrooms, default=float("nan")))
    record_property("refused", "; ".join(sorted(set(refusals))))
    if not headrooms:
        pytest.xfail(f"refused: {refusals[-1]}")
