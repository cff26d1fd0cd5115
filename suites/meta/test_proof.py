"""An artifact that carries its proof: right answers pass, and whatever was changed afterwards is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import harness
from harness import manifest, proof
from harness.errors import ArtifactError, OptionError
from harness.frontend import compat
from harness.frontend.params import write_params

from . import bad_input

needs_mxnet = pytest.mark.skipif(not compat.available(), reason="MXNet gives the reference")
DATA = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


def _files(folder: Path) -> str:
    (folder / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    write_params(folder / "m-0000.params", bad_input.parameters())
    return str(folder / "m")


def _graph(folder: Path, nodes: list[dict[str, Any]], heads: list[list[int]], params: dict[str, np.ndarray]) -> str:
    """A model of these nodes and outputs [node, number]; its path prefix."""
    document = {"nodes": nodes, "heads": [[*head, 0] for head in heads], "attrs": {"mxnet_version": ["int", 10901]}}
    (folder / "g-symbol.json").write_text(json.dumps(document))
    write_params(folder / "g-0000.params", params)
    return str(folder / "g")


def _var(name: str) -> dict[str, Any]:
    return {"op": "null", "name": name, "inputs": []}


def _op(name: str, operator: str, *inputs: int, **attributes: str) -> dict[str, Any]:
    return {"op": operator, "name": name, "inputs": [[i, 0, 0] for i in inputs], "attrs": attributes}


@needs_mxnet
def test_migrate_and_verify(tmp_path: Path) -> None:
    _files(tmp_path)
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "a.npy", DATA)
    seen: list[tuple[int, int]] = []
    _, verdicts = proof.migrate(
        str(tmp_path / "m"), tmp_path / "out", inputs=bad_input.INPUTS, samples=tmp_path / "samples",
        progress=lambda done, total: seen.append((done, total)), engine="onnxruntime",
    )  # fmt: skip
    assert proof.passed(verdicts)
    assert seen == [(1, 2), (2, 2)]
    assert {verdict.vector for verdict in verdicts} == {"a.npy"}
    assert manifest.read_manifest(tmp_path / "out")["proof"]["reference"] == "float64"
    assert proof.passed(proof.verify(tmp_path / "out", engine="onnxruntime", precision="tf32"))
    with pytest.raises(OptionError, match="calibration"):
        proof.verify(tmp_path / "out", precision="int8")


def test_no_proof_is_said(tmp_path: Path) -> None:
    model = harness.compile(_files(tmp_path), None, bad_input.INPUTS, "onnxruntime")
    model.save(tmp_path / "saved")
    with pytest.raises(ArtifactError, match="migrate"):
        proof.verify(tmp_path / "saved")


# --- what was changed is found ---------------------------------------------------------------------------------------


def _altered(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of an artifact whose ONNX was changed, sealed again as if by its writer."""
    copy = folder.with_name("altered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    model = onnx.load(copy / "segment0.onnx")
    change(model)
    onnx.save(model, copy / "segment0.onnx")
    manifest.write_manifest(copy, json.loads((copy / "manifest.json").read_text()))
    return copy


def _scaled(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (tensor,) = (one for one in model.graph.initializer if one.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return change


@needs_mxnet
def test_one_per_cent_of_any_parameter_is_found(tmp_path: Path) -> None:
    """Each parameter of the network alone, and the epsilon of its normalization."""
    document = bad_input.good_model()
    for node in document["nodes"]:
        if node["op"] == "BatchNorm":
            node["attrs"]["eps"] = "0.01"
    prefix = _files(tmp_path)
    Path(f"{prefix}-symbol.json").write_text(json.dumps(document))
    out = tmp_path / "out"
    _, verdicts = proof.migrate(prefix, out, inputs=bad_input.INPUTS, vectors=1, engine="onnxruntime")
    assert proof.passed(verdicts)
    assert proof.unreached(out) == []
    assert proof.passed(proof.verify(_altered(out, lambda model: None)))
    for name, array in bad_input.parameters().items():
        params = {**bad_input.parameters(), name: array * np.float32(1.01)}
        wrong = harness.compile(prefix, params, bad_input.INPUTS, "onnxruntime")
        assert not proof.passed(proof.verify(out, model=wrong)), name

    def drop(model: onnx.ModelProto) -> None:
        (node,) = (one for one in model.graph.node if one.op_type == "BatchNormalization")
        kept = [one for one in node.attribute if one.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend(kept)

    assert not proof.passed(proof.verify(_altered(out, drop)))


@needs_mxnet
def test_token_ids_are_no_excuse(tmp_path: Path) -> None:
    """Ids are whole numbers in float32. Rounding does not move them, or any row of a table could be any other."""
    table = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    nodes = [_var("ids"), _var("table"), _op("rows", "Embedding", 0, 1, input_dim="50", output_dim="4")]
    prefix = _graph(tmp_path, nodes, [[2, 0]], {"table": table})
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "a.npy", np.arange(50, dtype=np.float32).reshape(1, 50))
    out = tmp_path / "out"
    _, verdicts = proof.migrate(
        prefix, out, inputs={"ids": (1, 50)}, samples=tmp_path / "samples", engine="onnxruntime"
    )
    assert proof.passed(verdicts)
    assert not proof.passed(proof.verify(_altered(out, _scaled("table", 1.01))))


@needs_mxnet
def test_what_no_answer_depends_on_is_said(tmp_path: Path) -> None:
    nodes = [
        _var("data"), _var("seen"), _var("unseen"),
        _op("a", "broadcast_add", 0, 1), _op("b", "broadcast_add", 0, 2), _op("c", "_mul_scalar", 4, scalar="0"),
        _op("d", "elemwise_add", 3, 5),
    ]  # fmt: skip
    ones = np.ones((1, 4), np.float32)
    prefix = _graph(tmp_path, nodes, [[6, 0]], {"seen": ones, "unseen": ones})
    proof.migrate(prefix, tmp_path / "out", inputs={"data": (2, 4)}, vectors=1, engine="onnxruntime")
    assert proof.unreached(tmp_path / "out") == ["unseen"]


@needs_mxnet
def test_a_jump_is_given_the_room_of_a_rounding(tmp_path: Path) -> None:
    """Sums half a roundoff apart are put in order: which comes first is anybody's guess, and what is summed is not.

    Moving 4,096 weights by a roundoff each averages out; only the rounding of the sums themselves mixes them up.
    """
    rng = np.random.default_rng(0)
    weight = np.repeat(rng.uniform(0.5, 1, (1, 4096)).astype(np.float32), 64, axis=0)
    weight[:, 0] *= 1 + 2.0**-13 * np.arange(64, dtype=np.float32)
    weight = rng.permuted(weight, axis=1)  # the same sums, rounded otherwise
    nodes = [
        _var("data"), _var("weight"),
        _op("sums", "FullyConnected", 0, 1, num_hidden="64", no_bias="True", flatten="True"),
        _op("order", "argsort", 2, axis="1"),
    ]  # fmt: skip
    prefix = _graph(tmp_path, nodes, [[3, 0], [2, 0]], {"weight": weight})
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "a.npy", np.full((4, 4096), 0.7, np.float32))
    out, samples = tmp_path / "out", tmp_path / "samples"
    _, verdicts = proof.migrate(prefix, out, inputs={"data": (4, 4096)}, samples=samples, engine="onnxruntime")
    assert proof.passed(verdicts), [verdict.message for verdict in verdicts]
    assert not proof.passed(proof.verify(_altered(out, _scaled("weight", 1.0001))))


@needs_mxnet
def test_an_operator_without_a_gradient_is_no_obstacle(tmp_path: Path) -> None:
    """MXNet's CachedOp wants the gradient of every node; a proof needs none."""
    nodes = [
        _var("data"),
        _op("order", "argsort", 0, axis="1"),
        _op("sign", "sign", 0),
        _op("h", "_histogram", 0, bin_cnt="4", range="(-9, 9)"),
    ]
    prefix = _graph(tmp_path, nodes, [[1, 0], [3, 0], [3, 1]], {})
    _, verdicts = proof.migrate(prefix, tmp_path / "out", inputs={"data": (2, 5)}, vectors=1, engine="onnxruntime")
    assert proof.passed(verdicts)
