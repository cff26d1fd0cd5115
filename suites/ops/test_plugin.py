"""The generated tests of every operator, for operators whose implementation is a user's plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings

import harness
from harness.operators import registry

from .case import Spec
from .check import check, compiled
from .plugin import PLUGIN_SPECS, registered

PAIRS = [(spec, name, value) for spec in PLUGIN_SPECS for name, value in spec.pairs()]


@pytest.fixture(autouse=True, scope="module")
def plugins_are_there() -> Iterator[None]:
    with registered():
        yield


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{spec.operator}-{name}={value}" for spec, name, value in PAIRS])
def test_attribute_value(pair: tuple[Spec, str, object]) -> None:
    spec, name, value = pair

    @settings(max_examples=2)
    @given(case=spec.cases((name, value)))
    def run(case):
        check(case)

    run()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("spec", PLUGIN_SPECS, ids=[spec.operator for spec in PLUGIN_SPECS])
def test_drawn(spec: Spec, precision: str) -> None:
    @settings(max_examples=spec.examples)
    @given(case=spec.cases())
    def run(case):
        model = compiled(case, case.arrays(), "onnxruntime", precision)
        assert "python" in [segment.engine for segment in model.segments] and not model.fallbacks
        check(case, precision=precision)
        if any(tensor.dynamic for tensor in case.inputs.values()):
            check(case, precision=precision, dynamic=True)

    run()


@pytest.mark.parametrize("spec", PLUGIN_SPECS, ids=[spec.operator for spec in PLUGIN_SPECS])
def test_without_its_plugin_an_operator_is_as_before(spec: Spec) -> None:
    from harness import plugins

    kept = dict(plugins._registered)
    plugins._registered.clear()
    try:

        @settings(max_examples=1)
        @given(case=spec.cases())
        def run(case):
            if spec.operator in registry.definitions():
                model = compiled(case, case.arrays(), "onnxruntime", "fp32")
                assert [segment.engine for segment in model.segments] == ["onnxruntime"]
                return
            with pytest.raises(harness.UnsupportedOperator):
                compiled(case, case.arrays(), "onnxruntime", "fp32")

        run()
    finally:
        plugins._registered.update(kept)
