"""A saved model comes back the same, proves itself, and nothing damaged is ever loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness import manifest, saving
from harness.errors import ArtifactError, EngineMissing, HarnessError
from harness.frontend import compat
from harness.frontend.params import write_params

from . import bad_input

needs_mxnet = pytest.mark.skipif(not compat.available(), reason="MXNet is not installed")
ROOT = Path(__file__).resolve().parents[2]
DATA = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> harness.Model:
    return _compile(tmp_path)


def _compile(folder: Path, **options: Any) -> harness.Model:
    (folder / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    write_params(folder / "m-0000.params", bad_input.parameters())
    return harness.compile(str(folder / "m"), None, bad_input.INPUTS, "onnxruntime", **options)


def _same(one: harness.Model, other: harness.Model) -> None:
    assert (one.input_names, one.output_names) == (other.input_names, other.output_names)
    assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    assert (one.segments, one.fallbacks) == (other.segments, other.fallbacks)
    for left, right in zip(one(data=DATA), other(data=DATA), strict=True):
        np.testing.assert_array_equal(left, right)


def test_save_and_load(tmp_path: Path, model: harness.Model) -> None:
    model.save(tmp_path / "saved")
    (tmp_path / "m-0000.params").unlink()  # the artifact stands alone
    loaded = harness.load(tmp_path / "saved")
    _same(model, loaded)
    loaded.save(tmp_path / "again")
    loaded.save(tmp_path / "saved")  # over the folder it came from
    _same(model, harness.load(tmp_path / "again", engine="onnxruntime", threads=1))
    _same(model, harness.load(tmp_path / "saved"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "m-symbol.json", "saved"]


@needs_mxnet
def test_parts_that_mxnet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _compile(tmp_path, min_segment_size=1000)
    assert {segment.engine for segment in model.segments} == {"mxnet"}
    model.save(tmp_path / "saved")
    _same(model, harness.load(tmp_path / "saved"))
    monkeypatch.setattr(compat, "available", lambda: False)
    with pytest.raises(EngineMissing, match=r"segment0\.json.*MXNet"):
        harness.load(tmp_path / "saved")


def test_loading_needs_no_mxnet(tmp_path: Path, model: harness.Model) -> None:
    model.save(tmp_path / "saved")
    code = (
        "import sys; sys.modules['mxnet'] = None; import harness, numpy as np; "
        f"m = harness.load({str(tmp_path / 'saved')!r}); print(m(data=np.zeros((2, 3, 8, 8), np.float32))[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "(2, 5)", done.stderr


def test_dynamic_sizes_outputs_that_are_inputs_and_no_inputs(tmp_path: Path) -> None:
    nodes = [{"op": "null", "name": n, "inputs": []} for n in ("data", "w")]
    nodes.append({"op": "Activation", "name": "act", "attrs": {"act_type": "relu"}, "inputs": [[0, 0, 0]]})
    for heads, inputs in (([[2, 0, 0], [0, 0, 0], [1, 0, 0]], {"data": ((1, 2, 4), 3)}), ([[1, 0, 0]], {})):
        (tmp_path / "s.json").write_text(json.dumps({"nodes": nodes, "heads": heads}))
        model = harness.compile(str(tmp_path / "s.json"), {"w": np.float32([1, 2])}, inputs, "onnxruntime")
        model.save(tmp_path / "saved")
        loaded = harness.load(tmp_path / "saved")
        assert (loaded.inputs, loaded.outputs) == (model.inputs, model.outputs)
        given = {name: np.ones((3, 3), np.float32) for name in inputs}
        for left, right in zip(model(**given), loaded(**given), strict=True):
            np.testing.assert_array_equal(left, right)


def test_every_damaged_file_is_named(tmp_path: Path, model: harness.Model) -> None:
    saved = tmp_path / "saved"
    model.save(saved)
    for path in sorted(saved.iterdir()):
        good = path.read_bytes()
        middle = len(good) // 2
        for bad in (
            good[:middle],
            good[:-3],
            b"",
            good + b"x",
            good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :],
            None,
        ):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(ArtifactError, match=path.name.replace(".", r"\.")):
                harness.load(saved)
        path.write_bytes(good)
    harness.load(saved)


def _rewrite(saved: Path, **changes: Any) -> None:
    """The manifest with changes and a digest that fits them."""
    document = {**json.loads((saved / "manifest.json").read_text()), **changes}
    document["digest"] = manifest.digest(document)
    (saved / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"format": "1"}, {"files": {"../x": {}}}, {"files": None}, {"segments": [{}]}, {"program": {}},
     {"engine": "none"}, {"inputs": [{"name": "data", "shape": [-1], "dtype": "float32"}]}, {"outputs": 3}],
    ids=str,
)  # fmt: skip
def test_manifests_that_say_something_else(tmp_path: Path, model: harness.Model, changes: dict[str, Any]) -> None:
    model.save(tmp_path / "saved")
    _rewrite(tmp_path / "saved", **changes)
    with pytest.raises(HarnessError, match=r".{10}"):
        harness.load(tmp_path / "saved")
    if changes == {"format": 2}:
        with pytest.raises(ArtifactError, match="update mxtrt"):
            harness.load(tmp_path / "saved")


def test_a_failed_save_leaves_the_old_one(
    tmp_path: Path, model: harness.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "saved")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_write_onnx", full)
    with pytest.raises(ArtifactError, match="No space"):
        model.save(tmp_path / "saved")
    monkeypatch.undo()
    _same(model, harness.load(tmp_path / "saved"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_not_ours_is_not_replaced(tmp_path: Path, model: harness.Model) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    for folder in (tmp_path / "work", tmp_path / "work" / "thesis.txt", "", "a\0b", 3, "/proc/nope"):
        with pytest.raises(ArtifactError):
            model.save(folder)  # type: ignore[arg-type]
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"
    for folder in (tmp_path / "none", "", None, 3):
        with pytest.raises(ArtifactError):
            harness.load(folder)  # type: ignore[arg-type]
