"""What older versions of ONNX Runtime get wrong is refused, or kept from happening; with the engine told that it is one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import harness
from harness.compiler import compile_graph
from harness.engines import base, onnxruntime, onnxruntime_versions
from harness.graph import Entry, Graph, Node

PADDED = {"pool_type": "avg", "kernel": "(3, 2)", "count_include_pad": "True"}


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    engine: Any = base.get_engine("onnxruntime")
    real = engine.release

    def pretend(*numbers: int) -> None:
        if any(real < mended <= numbers for mended in ((1, 24), (1, 25), (1, 26))):
            pytest.skip(f"this is {engine.version}")
        monkeypatch.setattr(engine, "release", numbers)

    return pretend


def pooled(**attributes: str) -> np.ndarray:
    """The mean that MXNet and every version from 1.25 on give of ones."""
    nodes = (Node("data", "null"), Node("pool0", "Pooling", (Entry(0),), {**PADDED, **attributes}))
    net = Graph(nodes, (Entry(1),), ("y",))
    model = compile_graph(net, {}, {"data": (1, 1, 4, 4)}, "onnxruntime", fallback="error")
    return model(data=np.ones((1, 1, 4, 4), np.float32))[0]


@pytest.mark.parametrize("numbers", [(1, 22), (1, 24), (1, 25), (2, 0)], ids=str)
def test_a_mean_over_different_padding(numbers: tuple[int, int], release: Any) -> None:
    release(*numbers)
    if numbers < (1, 25):
        with pytest.raises(harness.UnsupportedOperator, match=r"padding that differs between the axes"):
            pooled(pad="(1, 0)")
    else:
        np.testing.assert_allclose(pooled(pad="(1, 0)")[0, 0, -1], 2 / 3)
    for right in ({"pad": "(1, 1)"}, {"pad": "(0, 0)"}, {"pad": "(1, 0)", "count_include_pad": "False"}):
        assert pooled(**right).size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_float64_are_not_fused(dtype: type, release: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = onnxruntime._disabled
    monkeypatch.setattr(onnxruntime, "_disabled", lambda *given: seen.append(real(*given)) or seen[-1])
    nodes = (Node("data", "null"), Node("dot0", "batch_dot", (Entry(0), Entry(0)), {"transpose_b": "True"}))
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(dtype)
    for numbers in ((1, 25), (1, 26)):
        release(*numbers)
        inputs = {"data": harness.Input(x.shape, np.dtype(dtype).name)}
        model = compile_graph(Graph(nodes, (Entry(1),), ("y",)), {}, inputs, "onnxruntime", fallback="error")
        np.testing.assert_allclose(model(data=x)[0], x @ x.swapaxes(1, 2), rtol=1e-5, atol=1e-6)
    assert seen == [["MatmulTransposeFusion"] if dtype == np.float64 else None, None]


@pytest.mark.parametrize("numbers", [(1, 22), (1, 24), (1, 25), (1, 26), (1, 27), (2, 0)], ids=str)
def test_models_are_stamped_and_erf_keeps_nan(numbers: tuple[int, int]) -> None:
    """What is handed over is as the version wants it, in the bodies of loops too; the model itself stays as it was."""
    text = """
        <ir_version: 10, opset_import: ["": 22]> net (float[n] x, bool c) => (float[n] y, float[n] z) {
            y = Erf(x)
            z = If (c) <
                then_branch = then () => (float[n] t) { t = Erf(x) },
                else_branch = otherwise () => (float[n] e) { e = Neg(x) }>
        }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    before = ir.to_proto(model).SerializeToString()
    payload, _ = onnxruntime.serialise(model, functools.partial(onnxruntime_versions.mend, release=numbers))
    assert ir.to_proto(model).SerializeToString() == before
    assert isinstance(payload, bytes)
    written = onnx.load_from_string(payload)
    assert [entry.version for entry in written.opset_import] == [22 if numbers >= (1, 25) else 21]
    kinds = [node.op_type for node in (*written.graph.node, *written.graph.node[-1].attribute[0].g.node)]
    assert kinds.count("Where") == (0 if numbers >= (1, 27) else 2)
    engine: Any = base.get_engine("onnxruntime")
    if engine.release < (1, 27) <= numbers:
        pytest.skip(f"handed over as it should be; {engine.version} has no NaN by itself")
    x = np.array([np.nan, np.inf, -np.inf, 0.5], np.float32)
    found = engine.library.InferenceSession(payload).run(None, {"x": x, "c": np.array(True)})
    for array in found:
        np.testing.assert_allclose(array, [np.nan, 1, -1, 0.52049988], rtol=1e-6)


@pytest.mark.parametrize("numbers", [(1, 23), (1, 24)], ids=str)
def test_one_number_is_not_normalized(numbers: tuple[int, int], release: Any) -> None:
    release(*numbers)
    variables = tuple(Node(name, "null") for name in ("data", "gamma", "beta"))
    net = Graph((*variables, Node("norm0", "LayerNorm", tuple(map(Entry, range(3))))), (Entry(3),), ("y",))
    shapes = {"data": (2, 1), "gamma": (1,), "beta": (1,)}
    if numbers < (1, 24):
        with pytest.raises(harness.UnsupportedOperator, match="onnxruntime 1.23 does not normalize one number"):
            compile_graph(net, {}, shapes, "onnxruntime", fallback="error")
    else:
        model = compile_graph(net, {}, shapes, "onnxruntime", fallback="error")
        found = model(data=np.ones((2, 1), np.float32), gamma=np.ones(1, np.float32), beta=np.ones(1, np.float32))[0]
        np.testing.assert_array_equal(found, np.ones((2, 1)))
