"""What is written out for TensorRT's parser: the same numbers, and accepted by its builder."""

from __future__ import annotations

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

pytestmark = pytest.mark.mxnet
DEFORMABLE = [spec for spec in all_specs() if "DeformableConvolution" in spec.operator]


def model_of(spec, number=0, precision="fp32"):
    case = draw_cases(spec, number + 1)[number]
    arrays = case.arrays()
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
