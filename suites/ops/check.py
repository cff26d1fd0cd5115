"""The four checks of a case: it runs, and its outputs have MXNet's type, shape and values."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

import harness
from harness import numerics

from .case import Case
from .limitations import limitation_of
from .reference import Answers, answers
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
    known = answers(case, arrays, precision)
    model = compiled(case, arrays, engine, precision, dynamic)
    found = model(**{name: arrays[name] for name in model.input_names})
    headroom, problem = judge(case, model, found, known, precision)
    assert not problem or (loose and "headroom" in problem), f"{problem}\n{explain(case, engine, precision, dynamic)}"
    return headroom


def judge(
    case: Case, model: harness.Model, found: Sequence[np.ndarray], known: Answers, precision: str
) -> tuple[float, str]:
    """The headroom, and what is wrong with the answer, after the name of the check that failed ("" if nothing is).

    Args:
        found: the answer of ``model``.
        known: MXNet's answers.
    """
    if len(found) != len(known.native):
        return math.inf, f"number of outputs: {len(found)}, should be {len(known.native)} [{case}]"
    wrong_types = _wrong_types(model)
    if wrong_types:
        return math.inf, f"inner types: not what ONNX infers: {wrong_types} [{case}]"
    declared = [model.outputs[name] for name in model.output_names]
    return judge_outputs(case, found, declared, known, precision)


def judge_outputs(
    case: Case,
    found: Sequence[np.ndarray],
    declared: Sequence[harness.Input],
    known: Answers,
    precision: str,
) -> tuple[float, str]:
    """The headroom, and what is wrong with types, shapes (the declared ones too) and values ("" if nothing is)."""
    worst = 0.0
    for i, (actual, own, wanted, bound, spec) in enumerate(
        zip(found, known.native, known.exact, known.bounds, declared)
    ):
        if actual.dtype != own.dtype or spec.dtype != own.dtype:
            kinds = f"{actual.dtype}, declared as {spec.dtype}, should be {own.dtype}"
            return math.inf, f"type: output {i} is {kinds} [{case}]"
        if actual.shape != own.shape or not _fits(spec.shape, own.shape, _sizes(case)):
            shapes = f"{actual.shape}, declared as {spec.shape}, should be {own.shape}"
            return math.inf, f"shape: output {i} is {shapes} [{case}]"
        values = wanted.astype(own.dtype) if own.dtype.kind in "biu" else wanted
        by = "fp32" if own.dtype == values.dtype == np.float32 else "fp64"
        result = numerics.compare(actual, values, bound, _precision_of(own.dtype, precision), case.terms, by)
        if not result:
            return result.headroom, f"values: output {i}: {result.message} (headroom {result.headroom:.3g}) [{case}]"
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
            proto = ir.to_proto(part)
            problem = _inferred(proto, data_prop=True)
            if "Invalid rank for" in problem:  # ONNX takes int64 vectors for shapes, and fails to broadcast those
                problem = _inferred(proto, data_prop=False)
            problem = problem or _not_scalar(part.graph)
            if problem:
                return problem
    return ""


def _not_scalar(graph: ir.Graph) -> str:
    """Inputs that ONNX wants without axes, and its inference does not ask for: engines differ in what they take."""
    for node in graph.all_nodes():
        if node.op_type == "Range" and any(value.shape is None or value.shape.rank() for value in node.inputs if value):
            return f"{node.name} (Range): its inputs are no scalars"
    return ""


def _inferred(proto: onnx.ModelProto, data_prop: bool) -> str:
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=data_prop)
    except onnx.shape_inference.InferenceError as error:
        return str(error).strip().splitlines()[-1]
    return ""


def _value(text: str, sizes: Mapping[str, int]) -> int | None:
    """What a symbolic size is; None where a size is in it that only a run tells."""
    try:
        return int(eval(text, {"__builtins__": {}}, dict(sizes)))  # a sum of products and floor divisions
    except NameError:
        return None


def _sizes(case: Case) -> dict[str, int]:
    """The sizes that a symbol may stand for, by its name."""
    return {f"{name}_{axis}": size for name, x in case.inputs.items() for axis, size in enumerate(x.shape)}


def _fits(declared: Sequence[object], shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
    """Whether a shape is one that a model says it gives out for inputs of the best sizes, as all cases have them."""
    if len(declared) != len(shape):
        return False
    for kind, size in zip(declared, shape):
        if isinstance(kind, int) and kind != size:
            return False
        if isinstance(kind, tuple) and not kind[0] <= size == kind[1] <= kind[2]:
            return False
        if isinstance(kind, str) and _value(kind, sizes) not in (None, size):
            return False
    return True
