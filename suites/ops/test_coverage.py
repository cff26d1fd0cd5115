"""Every operator is lowered or has a reason, every lowered one has cases, every attribute value is seen."""

from __future__ import annotations

import pytest

from harness.operators import registry
from harness.operators.schema import schemas

from .case import all_specs
from .coverage import all_uncovered, gaps

GAPS = "fewer than two values"
SPECIFIED = {spec.operator for spec in all_specs()}


@pytest.fixture(scope="module")
def found() -> dict[str, list[tuple[str, tuple[object, ...]]]]:
    return gaps()


LOOPS = {"_foreach", "_while_loop", "_cond"}  # suites/ops/test_control.py draws whole graphs


def test_lowered_operators_have_cases() -> None:
    assert not sorted(set(registry.definitions()) - SPECIFIED - LOOPS)


def test_cases_are_of_lowered_operators() -> None:
    assert not sorted(SPECIFIED - set(registry.definitions()))


def test_operators_have_a_lowering_or_a_reason() -> None:
    without = [name for name, info in registry.operators().items() if info.reason == "has no lowering yet"]
    assert not sorted(without)


@pytest.mark.parametrize("operator", sorted(registry.definitions()))
def test_attribute_values_are_seen(operator: str, found: dict[str, list[tuple[str, tuple[object, ...]]]]) -> None:
    left = [f"{name}: {', '.join(map(str, values)) or GAPS}" for name, values in found.get(operator, [])]
    assert not left, f"{operator}: no case takes {'; '.join(left)}"


def test_explanations_are_of_known_attributes() -> None:
    for item in all_uncovered():
        assert item.reason.strip()
        for operator in item.operators:
            kind = schemas()[operator].attributes[item.attribute]
            assert not kind.choices or set(item.values) <= set(kind.choices), (operator, item)
