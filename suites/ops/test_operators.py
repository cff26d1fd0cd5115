"""Generated tests of every operator: each value of each attribute, and cases with everything drawn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, seed, settings

from .case import Spec, all_specs
from .check import check
from .coverage import PER_VALUE, seed_of

SPECS = all_specs()
PAIRS = [(spec, name, value) for spec in SPECS for name, value in spec.pairs()]


def unique(labels: list[str]) -> list[str]:
    """The labels, with a number behind each that has occurred before (an operator may have several specs)."""
    seen: Counter[str] = Counter()
    result = []
    for label in labels:
        seen[label] += 1
        result.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return result


LABELS = unique([spec.operator for spec in SPECS])
PAIR_LABELS = unique([f"{spec.operator}-{name}={value}" for spec, name, value in PAIRS])


@pytest.mark.parametrize("pair", PAIRS, ids=PAIR_LABELS)
def test_attribute_value(pair: tuple[Spec, str, object]) -> None:
    spec, name, value = pair

    @seed(seed_of(spec, name, value))
    @settings(max_examples=PER_VALUE)
    @given(case=spec.cases((name, value)))
    def run(case):
        check(case)

    @seed(seed_of(spec, name, value, "varying"))
    @settings(max_examples=1)
    @given(case=spec.cases((name, value)))
    def run_varying(case):
        if any(tensor.dynamic for tensor in case.inputs.values()):
            check(case, dynamic=True)

    run()
    run_varying()


@pytest.mark.parametrize("spec", SPECS, ids=LABELS)
def test_drawn(spec: Spec) -> None:
    @seed(seed_of(spec))
    @settings(max_examples=spec.examples)
    @given(case=spec.cases())
    def run(case):
        check(case)

    run()


@pytest.mark.parametrize("spec", SPECS, ids=LABELS)
def test_dynamic(spec: Spec) -> None:
    """The same with sizes that vary, for tensors that say which of theirs may."""

    @seed(seed_of(spec, "varying"))
    @settings(max_examples=spec.varying)
    @given(case=spec.cases())
    def run(case):
        if any(tensor.dynamic for tensor in case.inputs.values()):
            check(case, dynamic=True)

    run()
