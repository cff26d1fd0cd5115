"""The four checks of a case: it runs, and its outputs have MXNet's type, shape and values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

import harness
from harness import numerics

from .case import Case
from .limitations import limitation_of
from .reference import MXNetRefuses, Reference
from .written import DYNAMIC_SPAN, explain, isolated, symbol_json

ENGINE_OPTIONS = {
    "onnxruntime": {"threads": 1},
    "tensorrt": {"plan_cache": False, "timing_cache": False, "contexts": 1, "optimization_level": 0},
}
ISOLATE = "MXTRT_ISOLATE"  # set by pytest's --isolate: each case in a process of its own


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
        parse_symbol(symbol_json(case)),
        params,
        inputs,
        engine=engine,
        precision=precision,
        fallback="error",
        **ENGINE_OPTIONS.get(engine, {}),
    )


def check(
    case: Case, engine: str = "onnxruntime", precision: str = "fp32", dynamic: bool = False, limited: bool = True
) -> float:
    """Run the four checks.

    Args:
        case: what to check.
        engine, precision: what runs it.
        dynamic: whether sizes that may vary are compiled as ranges.
        limited: whether known limitations excuse the case.

    Returns:
        The headroom: the largest error over its bound.

    Raises:
        AssertionError: with the case, what was found and expected, and how to run it again.
    """
    __tracebackhide__ = True
    limit = limitation_of(case, engine, precision) if limited else None
    if limit is not None and limit.effect != "LOOSE":
        return 0.0
    if limited and os.environ.get(ISOLATE):
        return isolated(case, engine, precision, dynamic)
    try:
        return _check(case, engine, precision, dynamic, loose=limit is not None)
    except Exception as error:
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"{case}\n{explain(case, engine, precision, dynamic)}")
        raise


def _check(case: Case, engine: str, precision: str, dynamic: bool, loose: bool) -> float:
    arrays = case.arrays()
    native, exact, bounds = references(case, arrays, precision)
    model = compiled(case, arrays, engine, precision, dynamic)
    found = model(**{name: arrays[name] for name in model.input_names})
    headroom, problem = judge(case, model, found, native, exact, bounds, precision)
    assert not problem or (loose and "headroom" in problem), f"{problem}\n{explain(case, engine, precision, dynamic)}"
    return headroom


def references(
    case: Case, arrays: dict[str, np.ndarray], precision: str
) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]]:
    """MXNet's answer in the case's own types, in float64 (or the same again, where it has no such kernel), and how far
    the latter moves when the inputs are rounded.

    Raises:
        MXNetRefuses: MXNet cannot run the case.
    """
    reference = Reference(case)
    native = reference.native(arrays)
    function: Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]] = reference
    try:
        exact = reference(arrays)
    except MXNetRefuses:
        function, exact = reference.native, native
    return native, exact, numerics.response(function, arrays, exact, precision, seed=case.seed)


def judge(
    case: Case,
    model: harness.Model,
    found: Sequence[np.ndarray],
    native: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    bounds: Sequence[np.ndarray],
    precision: str,
) -> tuple[float, str]:
    """The headroom, and what is wrong with the answer: number, types and shapes of outputs, values ("" if nothing is).

    Args:
        found: the answer of ``model``.
        native: MXNet's, in the case's own types.
        exact: MXNet's, in float64 where it can.
        bounds: how far each output moves when the inputs are rounded.
    """
    if len(found) != len(native):
        return math.inf, f"{len(found)} outputs, should be {len(native)} [{case}]"
    wrong_types = _wrong_types(model)
    if wrong_types:
        return math.inf, f"a type inside the model is not what ONNX infers: {wrong_types} [{case}]"
    declared = [model.outputs[name] for name in model.output_names]
    return judge_outputs(case, found, declared, native, exact, bounds, precision)


def judge_outputs(
    case: Case,
    found: Sequence[np.ndarray],
    declared: Sequence[harness.Input],
    native: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    bounds: Sequence[np.ndarray],
    precision: str,
) -> tuple[float, str]:
    """The headroom, and what is wrong with types, shapes (the declared ones too) and values ("" if nothing is)."""
    worst = 0.0
    for i, (actual, own, wanted, bound, spec) in enumerate(zip(found, native, exact, bounds, declared)):
        if actual.dtype != own.dtype or spec.dtype != own.dtype:
            kinds = f"{actual.dtype}, declared as {spec.dtype}, should be {own.dtype}"
            return math.inf, f"output {i} has the type {kinds} [{case}]"
        if actual.shape != own.shape or not _fits(spec.shape, own.shape):
            shapes = f"{actual.shape}, declared as {spec.shape}, should be {own.shape}"
            return math.inf, f"output {i} has the shape {shapes} [{case}]"
        values = wanted.astype(own.dtype) if own.dtype.kind in "biu" else wanted
        by = "fp32" if own.dtype == values.dtype == np.float32 else "fp64"
        result = numerics.compare(actual, values, bound, _precision_of(own.dtype, precision), case.terms, by)
        if not result:
            return result.headroom, f"output {i}: {result.message} (headroom {result.headroom:.3g}) [{case}]"
        worst = max(worst, result.headroom)
    return worst, ""


def _precision_of(dtype: np.dtype, precision: str) -> str:
    """What an output of this type was computed in, where the model's float32 is computed in ``precision``."""
    if dtype == np.float32:
        return precision
    return numerics.precision_of(dtype) if dtype.kind == "f" else "fp32"


def _wrong_types(model: harness.Model) -> str:
    """What ONNX's own inference says against the types that the lowering gave its values; "" if nothing."""
    for part in model.plan.models:
        if part is not None:
            try:
                onnx.shape_inference.infer_shapes(ir.to_proto(part), check_type=True, strict_mode=True, data_prop=True)
            except onnx.shape_inference.InferenceError as error:
                return str(error).strip().splitlines()[-1]
    return ""


def _fits(declared: Sequence[object], shape: Sequence[int]) -> bool:
    """Whether a shape is one that a model says it may give out."""
    if len(declared) != len(shape):
        return False
    for kind, size in zip(declared, shape):
        if isinstance(kind, int) and kind != size:
            return False
        if isinstance(kind, tuple) and not kind[0] <= size <= kind[2]:
            return False
    return True
