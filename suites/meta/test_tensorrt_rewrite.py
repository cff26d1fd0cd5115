"""What is written out for TensorRT's parser: the same numbers, and accepted by its builder."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from harness import numerics
from harness.engines.tensorrt import build, check_model
from harness.engines.tensorrt import library as libraries
from harness.engines.tensorrt.rewrite import rewritten
from harness.precision.calibration import onnxruntime_session, run_named
from suites.ops.batch import draw_cases
from suites.ops.case import all_specs
from suites.ops.check import compiled
from suites.ops.limitations import limitation_of

pytestmark = pytest.mark.mxnet
DEFORMABLE = [spec for spec in all_specs() if "DeformableConvolution" in spec.operator]


def model_of(spec, number=0, precision="fp32"):
    case = draw_cases(spec, number + 1)[number]
    arrays = case.arrays()
    limit = limitation_of(case, "onnxruntime", precision)
    if limit is not None and limit.before is not None:
        pytest.skip(limit.reason)
    return compiled(case, arrays, "onnxruntime", precision).plan.models[0], arrays


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("spec", DEFORMABLE, ids=lambda spec: spec.operator)
def test_deformable_convolution_keeps_its_numbers(spec, number, precision):
    model, arrays = model_of(spec, number, precision)
    other = rewritten(model)
    assert "DeformConv" in [node.op_type for node in model.graph], "the model itself stays as it was"
    assert "DeformConv" not in [node.op_type for node in other.graph]
    onnx.checker.check_model(ir.to_proto(other), full_check=True)
    inputs = {value.name: arrays[value.name] for value in model.graph.inputs}
    (exact,), (found,) = (run_named(onnxruntime_session(m), inputs).values() for m in (model, other))
    assert numerics.compare(found, exact, 0.0, precision, arrays["weight"].size)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("spec", DEFORMABLE, ids=lambda spec: spec.operator)
def test_the_builder_takes_it(spec, precision):
    pytest.importorskip("tensorrt_rtx_bindings")
    assert not check_model(model_of(spec, 0, precision)[0], "part", ("SM89",))


def test_a_model_without_such_nodes_is_not_copied():
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 22]> f (float[2] x) => (float[2] y) { y = Relu (x) }'
        )
    )
    assert rewritten(model) is model


def grouped(after: str, kind: str, group: int, symmetric: bool = False) -> ir.Model:
    """Codes, dequantized, convolved in groups; ``after`` makes y of c.

    Scale and zero point of the weight are per channel; ``symmetric``: the zero point is 0, as TensorRT wants it.
    """
    shape, size = "[1, 16, 4, 4]", {"float": 1, "float16": 10}[kind]
    text = f"""<ir_version: 10, opset_import: ["": 22]> f (int8{shape} x) => ({kind}{shape} y)
        <int8[16, {16 // group}, 3, 3] codes, {kind}[16] scale, int8[16] zero, {kind} step, int8 none = {{0}}> {{
        d = DequantizeLinear(x, step, none) w = DequantizeLinear<axis=0>(codes, scale, zero)
        c = Conv<group={group}, pads=[1, 1, 1, 1]>(d, w) {after} }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    arrays = {
        "codes": rng.integers(-127, 128, (16, 16 // group, 3, 3)).astype(np.int8),
        "scale": rng.uniform(0.01, 0.02, 16).astype(onnx.helper.tensor_dtype_to_np_dtype(size)),
        "zero": rng.integers(*((0, 1) if symmetric else (-3, 4)), 16).astype(np.int8), "step": np.array(0.5, onnx.helper.tensor_dtype_to_np_dtype(size)),
    }  # fmt: skip
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


ENDS = {  # what makes y of a convolution in groups -> whether its result leaves 8 bits
    "y = Identity(c)": True, "r = Relu(c) y = Tanh(r)": True, "y = Relu(c)": True,
    "q = QuantizeLinear(c, step, none) y = DequantizeLinear(q, step, none)": False,
    "r = Relu(c) q = QuantizeLinear(r, step, none) y = DequantizeLinear(q, step, none)": False,
    "q = QuantizeLinear(c, step, none) e = DequantizeLinear(q, step, none) y = Add(e, c)": True,
}  # fmt: skip


@pytest.mark.parametrize("group", [1, 4, 16])
@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("after", ENDS)
def test_groups_that_end_8_bits_have_float_weights(after: str, kind: str, group: int) -> None:
    model = grouped(after, kind, group)
    other = rewritten(model)
    wrong = group == 16 or (group == 4 and kind == "float16")
    assert (other is not model) == (ENDS[after] and wrong)
    (conv,) = [node for node in other.graph if node.op_type == "Conv"]
    assert (conv.inputs[1].const_value is not None) == (other is not model)
    onnx.checker.check_model(ir.to_proto(other), full_check=True)
    x = {"x": np.random.default_rng(1).integers(-20, 21, (1, 16, 4, 4)).astype(np.int8)}
    (exact,), (found,) = (run_named(onnxruntime_session(m), x).values() for m in (model, other))
    np.testing.assert_allclose(
        found, exact, rtol=2e-3 if kind == "float16" else 1e-6, atol=1e-2 if kind == "float16" else 1e-5
    )


def test_linear_sampling_is_set_where_a_parser_read_another_mode():
    """The parser of TensorRT 10.6 takes "linear" for "nearest"; RTX's reads it, so it is set wrong here by hand."""
    pytest.importorskip("tensorrt_rtx_bindings")
    library = libraries.find("tensorrt_rtx")
    spec = next(spec for spec in all_specs() if spec.operator == "BilinearSampler")
    model, _ = model_of(spec)
    job = build.start(library, build.Recipe("part", model, targets=("SM89",)))
    (layer,) = [
        layer for layer in map(job.network.get_layer, range(job.network.num_layers))
        if layer.type == library.trt.LayerType.GRID_SAMPLE
    ]  # fmt: skip
    layer.__class__ = library.trt.IGridSampleLayer
    layer.interpolation_mode = library.trt.InterpolationMode.NEAREST
    build._set_sampling(library, job.network, model)
    assert layer.interpolation_mode == library.trt.InterpolationMode.LINEAR
