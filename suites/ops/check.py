"""The four checks of a case: it runs, and its outputs have MXNet's type, shape and values."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

import harness
from harness import numerics
from harness.engines.mxnet import graph_json
from harness.graph import Entry, Graph, Node

from .case import Case
from .reference import MXNetRefuses, Reference, node_of

DYNAMIC_SPAN = 3


def symbol_json(case: Case) -> str:
    """The case as MXNet's JSON: one operator and its variables."""
    variables = [Node(name, "null") for name in case.inputs]
    node = replace(node_of(case), inputs=tuple(Entry(i) for i in range(len(variables))))
    heads = tuple(Entry(len(variables), i) for i in range(case.outputs))
    return json.dumps(graph_json(Graph((*variables, node), heads, (), case.np_shape)))


def compiled(case: Case, arrays: dict[str, np.ndarray], engine: str, precision: str, dynamic: bool = False):
    """The case compiled by mxtrt, without fallback."""
    from harness.compiler import compile_graph
    from harness.frontend.symbol import parse_symbol

    inputs = {}
    for name, tensor in case.inputs.items():
        if not tensor.const:
            sizes = tuple(
                (1, size, size + DYNAMIC_SPAN) if dynamic and axis in tensor.dynamic and size else size
                for axis, size in enumerate(arrays[name].shape)
            )
            inputs[name] = harness.Input(sizes, arrays[name].dtype)
    params = {name: arrays[name] for name, tensor in case.inputs.items() if tensor.const}
    return compile_graph(
        parse_symbol(symbol_json(case)), params, inputs, engine=engine, precision=precision, fallback="error", threads=1
    ) if engine == "onnxruntime" else compile_graph(
        parse_symbol(symbol_json(case)), params, inputs, engine=engine, precision=precision, fallback="error"
    )


def check(case: Case, engine: str = "onnxruntime", precision: str = "fp32", dynamic: bool = False) -> float:
    """Run the four checks.

    Returns:
        The headroom: the largest error over its bound.

    Raises:
        AssertionError: with the case, what was found and expected, and how to run it again.
    """
    __tracebackhide__ = True
    arrays = case.arrays()
    reference = Reference(case)
    native = reference.native(arrays)
    try:
        exact = reference(arrays)
    except MXNetRefuses:
        exact = native
    bounds = numerics.response(reference, arrays, exact, precision, seed=case.seed)
    model = compiled(case, arrays, engine, precision, dynamic)
    found = model(**{name: arrays[name] for name in model.input_names})
    assert len(found) == len(native), f"{len(found)} outputs, should be {len(native)} [{case}]"
    worst = 0.0
    for i, (actual, own, wanted, bound) in enumerate(zip(found, native, exact, bounds)):
        where = f"output {i} [{case}]\n{reproduce(case)}"
        assert actual.dtype == own.dtype, f"the type is {actual.dtype}, should be {own.dtype}: {where}"
        assert actual.shape == own.shape, f"the shape is {actual.shape}, should be {own.shape}: {where}"
        values = wanted.astype(own.dtype) if own.dtype.kind in "biu" else wanted
        kind = precision if own.dtype == np.float32 else numerics.precision_of(own.dtype) if own.dtype.kind == "f" else "fp32"
        result = numerics.compare(actual, values, bound, kind, case.terms)
        assert result, f"{result.message} (headroom {result.headroom:.3g}): {where}"
        worst = max(worst, result.headroom)
    return worst


def reproduce(case: Case) -> str:
    """A snippet that runs the case on its own."""
    return (
        f"  from suites.ops.case import Case, Tensor\n  from suites.ops.check import check\n"
        f"  check({case!r})"
    )
