"""``mxtrt explain --layers``: what an engine made of a part is traced back to MXNet's nodes, fused layers too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness import cli, layers
from harness.compiler import compile_graph
from harness.engines import base
from harness.engines.tensorrt import library as libraries
from harness.graph import Entry, Graph, Node

from . import bad_input
from .double import make_engine
from .test_cli import INPUT, _mxtrt, prefix  # noqa: F401 - the fixture is used by its name
from .test_plugins import nothing_stays_registered  # noqa: F401
from .test_precision import GRAPH, PARAMS, SAMPLES, SHAPE

FUSED = [  # of the residual network, in every precision: what runs as one
    {"stem", "stem_bn", "stem_relu"},
    {"conv1", "conv1_bn", "relu1"},
    {"conv2", "conv2_bn", "sum", "relu2"},
    {"pool"},
]


def residual(precision: str = "fp32", engine: str = "onnxruntime", **options: Any) -> harness.Model:
    samples = SAMPLES if precision == "int8" else None
    return compile_graph(GRAPH, PARAMS, {"data": SHAPE}, engine, precision, "error", samples, **options)


# --- ONNX Runtime --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimization", ["all", "extended", "basic", "disable"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_node_is_in_a_layer_whatever_is_optimized(precision: str, optimization: str) -> None:
    rows = layers.layers(residual(precision, optimization=optimization))
    found = {node for row in rows for node in row.nodes}
    assert found == {node.name for node in GRAPH.nodes if not node.is_variable}
    if optimization == "all":
        together = [set(row.nodes) for row in rows]
        for group in FUSED[: 3 if precision == "int8" else 4]:  # int8: the pool comes with a conversion
            assert any(group <= nodes for nodes in together), f"{group} run as one, traced are {together}"
    assert all(row.operators == tuple(_operators()[node] for node in row.nodes) for row in rows)


def _operators() -> dict[str, str]:
    return {node.name: node.operator for node in GRAPH.nodes}


def test_fused_layers_are_told_apart() -> None:
    """In float32 the answer is exact: no node in two layers, but for a layer that is two nodes of ONNX."""
    rows = layers.layers(residual())
    assert [set(row.nodes) for row in rows] == [*FUSED, set(), {"dense"}, {"dense"}]
    assert [row.kind for row in rows] == [
        "Conv", "Conv", "Conv", "GlobalAveragePool", "ReorderOutput", "Reshape", "Gemm",
    ]  # fmt: skip
    assert {row.precision for row in rows} == {"float"} and all(row.milliseconds is None for row in rows)


def test_times_are_of_the_runs_and_add_up() -> None:
    rows = layers.layers(residual(), runs=3, inputs=SAMPLES[0])
    assert all(row.milliseconds is not None and row.milliseconds >= 0 for row in rows)
    assert sum(row.share or 0 for row in rows) == pytest.approx(1)
    total = sum(row.milliseconds or 0 for row in rows)
    assert all(row.share == pytest.approx((row.milliseconds or 0) / total) for row in rows)


def test_a_loop_is_one_layer() -> None:
    """What ONNX Runtime reports of a loop's body is in the loop's time already."""
    nodes = (
        Node("data", "null"),
        Node("nms0", "_contrib_box_nms", (Entry(0),), {"overlap_thresh": "0.5"}),
        Node("minus0", "negative", (Entry(1),)),
    )
    model = compile_graph(Graph(nodes, (Entry(2),), ("y",)), {}, {"data": (1, 8, 6)}, "onnxruntime", fallback="error")
    rows = layers.layers(model, runs=2)
    assert {node for row in rows for node in row.nodes} == {"nms0", "minus0"}
    assert sum(row.kind == "Loop" for row in rows) == 1


def test_parts_without_layers_are_one_row() -> None:
    class Doubled:
        def infer(self, a: Any, x: Any) -> Any:
            return x

        def numpy(self, a: Any, x: np.ndarray) -> np.ndarray:
            return x * 2

    harness.plugin("Custom", op_type="layers")(Doubled)
    nodes = (
        Node("data", "null"), Node("relu0", "Activation", (Entry(0),), {"act_type": "relu"}),
        Node("mine0", "Custom", (Entry(1),), {"op_type": "layers"}),
    )  # fmt: skip
    model = compile_graph(Graph(nodes, (Entry(2),), ("y",)), {}, {"data": (2, 3)}, "onnxruntime", fallback="error")
    rows = layers.layers(model, runs=2)
    assert [(row.engine, row.nodes, row.operators) for row in rows] == [
        ("onnxruntime", ("relu0",), ("Activation",)), ("python", ("mine0",), ("Custom",)),
    ]  # fmt: skip
    assert rows[1].milliseconds


def test_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(harness.OptionError, match="'image' is not an input; the model takes data"):
        layers.layers(residual(), 1, {"image": SAMPLES[0]["data"]})
    with pytest.raises(harness.InputError, match="the shape is"):
        layers.layers(residual(), 1, {"data": np.zeros((1, 3, 5, 5), np.float32)})


# --- TensorRT, on the double ---------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    engine = make_engine()
    monkeypatch.setattr(libraries, "open_device", lambda ordinal: engine.cuda)
    monkeypatch.setattr(libraries, "find", lambda name: engine.library)
    base.get_engine.cache_clear()
    yield engine
    base.get_engine.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_s_layers_are_traced(precision: str, installed: Any, tmp_path: Path) -> None:
    model = residual(precision, "tensorrt", cache_dir=tmp_path)
    rows = layers.layers(model)
    assert {node for row in rows for node in row.nodes} == set(_operators()) - {
        n.name for n in GRAPH.nodes if n.is_variable
    }
    timed = layers.layers(model, 2, SAMPLES[0])
    assert {row.milliseconds for row in timed} >= {0.5}


INSPECTED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {  # what the inspector says -> (precision, tactic)
    "10.x": (
        {
            "Name": "a",
            "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
            "TacticName": "sm80_gemm",
        },
        ("Row major linear FP32", "sm80_gemm"),
    ),
    "a number": ({"Name": "a", "Outputs": [], "TacticValue": "0x0000000000000002"}, ("", "0x0000000000000002")),
    "apart": ({"Name": "a", "Outputs": [{"Format": "NHWC8", "Datatype": "Half"}]}, ("NHWC8 Half", "")),
    "names only": ({"Name": "a"}, ("", "")),
}


@pytest.mark.parametrize("what", INSPECTED)
def test_precision_and_tactic_are_the_inspector_s(what: str) -> None:
    from harness.engines.tensorrt.inspection import _layer

    item, wanted = INSPECTED[what]
    layer = _layer(item, {})
    assert (layer.precision, layer.tactic) == wanted


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(prefix: str, monkeypatch: Any, capsys: Any) -> None:  # noqa: F811
    run: Callable[..., Any] = lambda *more: _mxtrt(monkeypatch, capsys, "explain", prefix, *INPUT, *more)  # noqa: E731
    code, out, _ = run("--layers")
    assert code == cli.OK and "layers" in out and "FullyConnected" in out and "share" not in out
    code, out, _ = run("--profile", "--runs", "2")
    assert code == cli.OK and "share" in out and "%" in out
    code, out, _ = run("--profile", "--runs", "2", "--json")
    rows = json.loads(out)
    operators = {node["name"]: node["op"] for node in bad_input.good_model()["nodes"]}
    assert code == cli.OK and all(
        operators[node] == op for row in rows for node, op in zip(row["nodes"], row["operators"])
    )
    assert abs(sum(row["share"] for row in rows) - 1) < 1e-9
    code, _, err = run("--profile", "-d", "nosuch=x.npy")
    assert code == cli.FAILED and "x.npy" in err
