"""The small INT8 networks of scripts/gpu_int8.py, quantized: as good as INT8 is, and with nothing that TensorRT gets wrong."""

from __future__ import annotations

import json

import pytest

from harness import numerics
from harness.compiler import compile_graph
from harness.engines.tensorrt.rewrite import rewritten
from scripts import gpu_int8

pytestmark = pytest.mark.mxnet
LEAST = 20.0  # dB: the depthwise ones with hard swish between have 22


@pytest.mark.parametrize("base", gpu_int8.BASES)
@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_numbers(case: str, base: str) -> None:
    exact = gpu_int8.answer(case, "onnxruntime", "fp32")
    assert numerics.sqnr(gpu_int8.answer(case, "onnxruntime", "int8", base), exact) > LEAST


@pytest.mark.parametrize("base", gpu_int8.BASES)
@pytest.mark.parametrize("case", gpu_int8.CASES)
def test_nothing_is_left_to_rewrite(case: str, base: str) -> None:
    graph, params, inputs = gpu_int8.made(case)
    options = {"calibration": [inputs], "base_precision": base}
    shapes = {"data": inputs["data"].shape}
    (model,) = compile_graph(graph, params, shapes, "onnxruntime", "int8", "error", **options).plan.models
    assert model is not None and rewritten(model) is model
    wanted = base == "fp32" or not case.startswith("volumes")
    assert any(node.op_type == "QuantizeLinear" for node in model.graph) == wanted


def test_a_run_is_stored(tmp_path, monkeypatch) -> None:
    args = ["x", "--out", str(tmp_path), "--cases", "leaky;relu", "--bases", "fp16", "--engine", "onnxruntime"]
    monkeypatch.setattr("sys.argv", args)
    assert gpu_int8.main() == 0
    stored = json.loads((tmp_path / "int8.json").read_text())
    assert stored["counts"] == {"right": 2} and [row[0] for row in sorted(stored["rows"])] == ["leaky", "relu"]
