"""The small INT8 networks of scripts/gpu_int8.py, quantized: as good as INT8 is, and with nothing that TensorRT gets wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import onnx_ir as ir
import pytest

from harness import numerics
from harness.compiler import compile_graph
from harness.engines.layers import POINTWISE, WITH_CONSTANTS
from harness.engines.tensorrt.rewrite import rewritten
from harness.precision import Request, convert
from scripts import gpu_int8

pytestmark = pytest.mark.mxnet
VERDICTS = [
    (36, 37, True, "right"), (33.9, 37, True, "wrong"), (2, 28, True, "wrong"), (55, 68, True, "wrong"),
    (55, 68, False, gpu_int8.ALL_WIDE),
]  # fmt: skip
LEAST = 20.0  # dB: the depthwise ones with hard swish between have 22


def quantized(case: str, base: str) -> ir.Model:
    """What an engine gets of a case."""
    graph, params, inputs = gpu_int8.made(case)
    options = {"calibration": [inputs], "base_precision": base}
    shapes = {"data": inputs["data"].shape}
    (model,) = compile_graph(graph, params, shapes, "onnxruntime", "int8", "error", **options).plan.models
    assert model is not None
    return model


@pytest.mark.parametrize("base", gpu_int8.BASES)
@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_numbers(case: str, base: str) -> None:
    exact = gpu_int8.answer(case, "onnxruntime", "fp32")
    assert numerics.sqnr(gpu_int8.answer(case, "onnxruntime", "int8", base), exact) > LEAST


@pytest.mark.parametrize("base", gpu_int8.BASES)
@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_nothing_is_left_to_rewrite(case: str, base: str) -> None:
    model = quantized(case, base)
    assert rewritten(model) is model
    wanted = base == "fp32" or not case.startswith("volumes")
    assert any(node.op_type == "QuantizeLinear" for node in model.graph) == wanted


@pytest.mark.parametrize("base", gpu_int8.BASES)
@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_no_wide_depthwise_convolution_ends_in_8_bits(case: str, base: str) -> None:
    """TensorRT 10.6 over float16, a leaky ReLU or a hard swish between: 2 dB for 28 and 23."""
    model = quantized(case, base)
    pending = [node.inputs[0] for node in model.graph if node.op_type == "QuantizeLinear"]
    while pending:
        value = pending.pop()
        node = None if value is None else value.producer()
        if node is not None and node.op_type in POINTWISE | {"Cast"}:
            pending += node.inputs
        elif node is not None and node.op_type == "Conv":
            data, weight = node.inputs[:2]
            assert data is not None and weight is not None and weight.shape is not None
            assert weight.shape[1] != 1 or data.producer().op_type == "DequantizeLinear", node.name  # type: ignore[union-attr]


@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_no_activation_with_constants_ends_8_bits_in_float16(case: str) -> None:
    """TensorRT 10.6 writes 8 bits where 16 are read: 0.6 dB for 44 with a leaky ReLU."""
    graph, params, inputs = gpu_int8.made(case)
    (model,) = compile_graph(graph, params, {"data": inputs["data"].shape}, "onnxruntime").plan.models
    assert model is not None
    options = {"base_precision": "fp16"}
    model = convert(model, Request("int8", lambda: [inputs], options=options, narrow_types=("fp16",)))
    for node in model.graph:
        sources = {value.producer().op_type for value in node.inputs[:2] if value is not None and value.producer()}  # type: ignore[union-attr]
        for kinds, value in paths(node.outputs[0]) if node.op_type == "Conv" and "DequantizeLinear" in sources else ():
            own = kinds & (WITH_CONSTANTS | {"Tanh", "Softsign"})
            assert not own or value.dtype == ir.DataType.FLOAT or quantizes(value), (node.name, kinds)


def paths(value: ir.Value, kinds: frozenset[str] = frozenset()) -> Iterator[tuple[frozenset[str], ir.Value]]:
    """Along pointwise nodes from a value to where they end: the operators on the way, and the last value."""
    pointwise = [use.node for use in value.uses() if use.node.op_type in POINTWISE]
    for node in pointwise:
        yield from paths(node.outputs[0], kinds | {node.op_type})
    if len(pointwise) < len(value.uses()) or not pointwise:
        yield kinds, value


def quantizes(value: ir.Value) -> bool:
    kinds = {use.node.op_type for use in value.uses()}
    return kinds == {"QuantizeLinear"} or (
        kinds == {"Cast"} and all(map(quantizes, (use.node.outputs[0] for use in value.uses())))
    )


@pytest.mark.parametrize(("ours", "theirs", "quantizes", "verdict"), VERDICTS)
def test_the_verdict(ours: float, theirs: float, quantizes: bool, verdict: str) -> None:
    assert gpu_int8.verdict(ours, theirs, quantizes) == verdict


@pytest.mark.parametrize(("base", "wanted"), [("fp16", gpu_int8.ALL_WIDE), ("fp32", "right")])
def test_volumes_over_16_bits_have_no_verdict(base: str, wanted: str) -> None:
    assert gpu_int8.run_one("volumes", base, "onnxruntime")["state"] == wanted


def test_a_run_is_stored(tmp_path, monkeypatch) -> None:
    args = ["x", "--out", str(tmp_path), "--cases", "leaky;relu", "--bases", "fp16", "--engine", "onnxruntime"]
    monkeypatch.setattr("sys.argv", args)
    assert gpu_int8.main() == 0
    stored = json.loads((tmp_path / "int8.json").read_text())
    assert stored["counts"] == {"right": 2} and [row[0] for row in sorted(stored["rows"])] == ["leaky", "relu"]
    stored["cases"][0] |= {"state": "wrong"}
    (tmp_path / "before.json").write_text(json.dumps(stored))
    monkeypatch.setattr("sys.argv", [*args, "--resume", str(tmp_path / "before.json")])
    assert gpu_int8.main() == 0
    again = json.loads((tmp_path / "int8.json").read_text())["cases"]
    assert again[0] == stored["cases"][1], "kept as it was"
    assert [(row["case"], row["state"]) for row in again[1:]] == [(stored["cases"][0]["case"], "right")]
