"""The layers that INT8 quantizes, on the CPU: quantized, and held to MXNet under the error model."""

from __future__ import annotations

import pytest

from harness.precision.quantize import find_sites

from .batch import draw_cases, run_cases
from .case import Case, Spec
from .check import compiled
from .int8_layers import LAYERS
from .limitations import limitation_of

EXAMPLES = 12


def cases_of(spec: Spec) -> list[Case]:
    return [case for case in draw_cases(spec, EXAMPLES) if limitation_of(case, "onnxruntime", "int8") is None]


@pytest.mark.parametrize("spec", LAYERS, ids=[spec.operator for spec in LAYERS])
def test_int8(spec):
    cases = cases_of(spec)
    outcomes = run_cases(cases, "onnxruntime", "int8")
    wrong = [outcome.text for outcome in outcomes if outcome.state != "right"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("spec", LAYERS, ids=[spec.operator for spec in LAYERS])
def test_every_case_has_something_to_quantize(spec):
    for case in cases_of(spec):
        model = compiled(case, case.arrays(), "onnxruntime", "fp32")
        assert find_sites(model.plan.models[0]), case
