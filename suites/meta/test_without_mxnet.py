"""The whole way on files that MXNet wrote: it runs in both environments, and in one of them there is no MXNet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import numerics, proof
from harness.frontend.params import read_params

DATA = Path(__file__).parent / "data"
SMALL, MIGRATED = str(DATA / "small"), DATA / "small.mxtrt"
SHAPE = (1, 3, 20, 20)


def _vectors() -> list[Path]:
    found = sorted(
        path for path in MIGRATED.rglob("*") if path.is_file() and "vector" in str(path.relative_to(MIGRATED))
    )
    assert found, f"{MIGRATED} holds no test vectors"
    return found


def _check(answers: list[np.ndarray], arrays: dict[str, np.ndarray]) -> None:
    for number, answer in enumerate(answers):
        reference, response = arrays[f"reference/{number}"], arrays[f"response/fp32/{number}"]
        verdict = numerics.compare(answer, np.asarray(reference), np.asarray(response), "fp32", 72)
        assert verdict, verdict.message


@pytest.mark.parametrize("path", _vectors(), ids=lambda path: path.name)
def test_compiled_from_the_files(path: Path) -> None:
    model = harness.compile(SMALL, inputs={"data": SHAPE}, engine="onnxruntime", fallback="error")
    assert len(model.segments) == 1
    arrays = read_params(path)
    _check(model(data=np.asarray(arrays["input/data"])), arrays)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = harness.compile(SMALL, inputs={"data": SHAPE}, engine="onnxruntime", fallback="error")
    model.save(tmp_path / "saved")
    data = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_array_equal(model(data=data)[0], harness.load(tmp_path / "saved")(data=data)[0])


def test_migrated_earlier_and_still_right() -> None:
    """Test vectors that MXNet answered when the folder was made."""
    verdicts = proof.verify(MIGRATED, engine="onnxruntime")
    assert proof.passed(verdicts), verdicts


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    """The vectors are a proof only if another network fails them."""
    params = read_params(f"{SMALL}-0000.params")
    params = {name: np.array(array) for name, array in params.items()}
    params["stem_weight"] *= np.float32(1.0005)
    model = harness.compile(f"{SMALL}-symbol.json", params, inputs={"data": SHAPE}, engine="onnxruntime")
    arrays = read_params(_vectors()[0])
    with pytest.raises(AssertionError, match="elements are wrong"):
        _check(model(data=np.asarray(arrays["input/data"])), arrays)


def test_mxnet_is_not_imported_on_the_way(tmp_path: Path) -> None:
    """Also where it is installed."""
    folder = shutil.copytree(MIGRATED, tmp_path / "migrated")
    code = f"""
import sys
sys.modules["mxnet"] = None
import numpy as np, harness
data = np.zeros({SHAPE}, np.float32)
model = harness.compile({SMALL!r}, inputs={{"data": {SHAPE}}}, engine="onnxruntime")
first, = model(data=data)
second, = harness.load({str(folder)!r})(data=data)
onnx = harness.to_onnx({SMALL!r}, inputs={{"data": {SHAPE}}})
assert onnx.graph.node and np.allclose(first, second)
assert not model.fallbacks
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_accelerator_says_what_it_needs(tmp_path: Path) -> None:
    """MXNet, and with NumPy 2 another NumPy first; and no library is compiled for nothing."""
    code = "import sys; sys.modules['mxnet'] = None; import harness.accelerator"
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("harness.errors.EngineMissing: MXNet ") and "pip install 'mxtrt[mxnet]'" in last
    assert list(tmp_path.iterdir()) == []
