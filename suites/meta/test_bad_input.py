"""Whatever a caller gives ends in an answer or a HarnessError that says why: never another exception, hang or crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.errors import HarnessError, InputError, ModelError, OptionError, ParameterError

from . import bad_input

BATCHES = {"json": (3, 300), "params": (2, 300), "operator": (2, 300)}  # 2,100 cases
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [(kind, number * size, size) for kind, (batches, size) in BATCHES.items() for number in range(batches)],
)
def test_mutated_files(kind: str, first: int, count: int) -> None:
    command = [sys.executable, "-m", "suites.meta.bad_input", kind, str(first), str(count)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    last = ended.stderr.strip().splitlines()[-3:]
    assert ended.returncode == 0, f"the process ended with {ended.returncode} at {last}"
    *found, tally = map(json.loads, ended.stdout.splitlines())
    assert not found, "\n".join(map(str, found))
    assert sum(tally["tally"].values()) == count
    assert len(tally["tally"]) > 1, f"the mutations all end alike: {tally}"


@pytest.fixture
def files(tmp_path: Path) -> str:
    (tmp_path / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    bad_input.write_params(tmp_path / "m-0000.params", bad_input.parameters())
    return str(tmp_path / "m")


def test_the_good_model_answers(files: str) -> None:
    model = harness.compile(files, inputs=bad_input.INPUTS, engine="onnxruntime")
    softmax, *_ = model(data=np.ones((2, 3, 8, 8), np.float32))
    np.testing.assert_allclose(softmax.sum(axis=1), 1, rtol=1e-6)


def _cases(values: list[Any]) -> list[Any]:
    """Numbered: some values have no text of their own that is the same in every process."""
    return [pytest.param(value, id=f"{number}-{type(value).__name__}") for number, value in enumerate(values)]


def _changed(**arrays: Any) -> dict[str, Any]:
    return {**bad_input.parameters(), **arrays}


SOURCES: list[Any] = [
    None,
    3,
    b"m",
    "",
    "/",
    "no/such/model",
    "a\0b",
    "x" * 5000,
    [],
    {},
    object(),
    np.zeros(3),
    Path(),
]
PARAMS: list[Any] = [
    3, -1, True, "", "no/such.params", "a\0b", "x" * 5000, [1], ("a", "b"), object(), 1.5, {},
    {"conv_weight": None}, {"conv_weight": "text"}, {"conv_weight": object()}, {1: 2}, {"": np.zeros(1)},
    _changed(conv_weight=np.zeros((4, 3, 3), np.float32)), _changed(conv_weight=np.zeros((5, 3, 3, 3), np.float32)),
    _changed(conv_weight=np.zeros((4, 3, 3, 3), np.int32)), _changed(conv_weight=np.zeros((4, 3, 3, 3), np.float64)),
    _changed(conv_weight=np.zeros((4, 3, 3, 3), np.complex64)), _changed(fc_weight=np.zeros((0, 64), np.float32)),
    _changed(bn_gamma=np.zeros((), np.float32)), _changed(slope=np.zeros((3,), np.float32)),
]  # fmt: skip
INPUTS: list[Any] = [
    None, {}, [], 3, "data", {"data": None}, {"data": "abc"}, {"data": 3}, {"data": (1.5,)}, {"data": (-1, 3, 8, 8)},
    {"data": ((1, 2), 3, 8, 8)}, {"data": ((3, 2, 1), 3, 8, 8)}, {"data": (2, 3, 8)}, {"data": (2, 4, 8, 8)}, {"data": ()},
    {"nope": (2, 3, 8, 8)}, {"data": (2, 3, 8, 8), "nope": (1,)}, {"data": (2, 3, 1, 1)},
    {"data": (True, 3, 8, 8)}, {3: (2, 3, 8, 8)}, {None: (1,)}, {"data": object()}, {"data": (0, 3, 8, 8)},
]  # fmt: skip
KEYWORDS: list[dict[str, Any]] = [
    {"engine": 3}, {"engine": "cuda"}, {"engine": None}, {"engine": []}, {"precision": "fp8x"}, {"precision": None},
    {"precision": 16}, {"precision": ["fp32"]}, {"fallback": "none"}, {"fallback": None}, {"min_segment_size": 0},
    {"min_segment_size": "2"}, {"min_segment_size": 1.5}, {"min_segment_size": True}, {"nosuch": 1}, {"threads": 0},
    {"threads": "2"}, {"optimization": "most"}, {"optimization": []}, {"precision": "int8"}, {"precision": "int8", "calibration": 3},
    {"precision": "int8", "calibration": []}, {"precision": "int8", "calibration": [{}]},
    {"precision": "int8", "calibration": [{"data": "x"}]}, {"precision": "int8", "calibration": [3]},
    {"calibrator": "x"}, {"cache_dir": 3, "engine": "tensorrt"}, {"profile_to": 3},
]  # fmt: skip


@pytest.mark.parametrize("source", _cases(SOURCES))
@pytest.mark.parametrize("function", [harness.compile, harness.to_onnx], ids=["compile", "to_onnx"])
def test_wrong_source(function: Any, source: Any) -> None:
    with pytest.raises(HarnessError, match=r".{10}"):
        function(source, {}, bad_input.INPUTS)


@pytest.mark.parametrize("params", _cases(PARAMS))
@pytest.mark.parametrize("fallback", ["error", "mxnet"])
def test_wrong_params(files: str, params: Any, fallback: str) -> None:
    with pytest.raises(HarnessError, match=r".{10}"):
        model = harness.compile(files, params, bad_input.INPUTS, "onnxruntime", fallback=fallback)
        model(data=np.ones((2, 3, 8, 8), np.float32))  # what MXNet runs, it may only see here


@pytest.mark.parametrize("inputs", _cases(INPUTS))
def test_wrong_inputs(files: str, inputs: Any) -> None:
    with pytest.raises(HarnessError, match=r".{10}"):
        harness.compile(files, None, inputs, "onnxruntime", fallback="error")


@pytest.mark.parametrize("keywords", _cases(KEYWORDS))
def test_wrong_keyword(files: str, keywords: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=r".{10}"):
        harness.compile(files, None, bad_input.INPUTS, **{"engine": "onnxruntime", **keywords})


CALLS: list[dict[str, Any]] = [
    {}, {"data": None}, {"data": 3}, {"data": "x"}, {"data": [[1], [1, 2]]}, {"data": object()}, {"nope": np.zeros(1)},
    {"data": np.zeros((2, 3, 8, 8))}, {"data": np.zeros((2, 3, 8, 8), np.int8)}, {"data": np.zeros((2, 3, 8), np.float32)},
    {"data": np.zeros((1, 3, 8, 8), np.float32)}, {"data": np.zeros((2, 3, 8, 8), object)},
    {"data": np.zeros((2, 3, 8, 8), np.float32), "more": 1}, {"data": np.zeros((2, 3, 8, 8), ">f4")},
]  # fmt: skip


@pytest.mark.parametrize("call", _cases(CALLS))
def test_wrong_call(files: str, call: dict[str, Any]) -> None:
    model = harness.compile(files, None, bad_input.INPUTS, "onnxruntime")
    with pytest.raises(InputError, match="data|nope|more"):
        model(**call)


@pytest.mark.parametrize("dtype", _cases(["float128", "complex64", 3.5, object, "S3", "datetime64", [], "bfloat"]))
def test_wrong_input_type(dtype: Any) -> None:
    with pytest.raises(OptionError, match="none of float32"):
        harness.Input((1,), dtype)


def test_what_the_message_names(tmp_path: Path, files: str) -> None:
    with pytest.raises(ModelError, match="no/such"):
        harness.compile("no/such", inputs=bad_input.INPUTS)
    with pytest.raises(ParameterError, match=r"gone\.params"):
        harness.compile(files, "gone.params", bad_input.INPUTS)
    with pytest.raises(InputError, match="'fc_weight' is neither an input nor a parameter"):
        params = bad_input.parameters()
        del params["fc_weight"]
        harness.compile(files, params, bad_input.INPUTS, "onnxruntime", fallback="error")
    (tmp_path / "cycle.json").write_text(
        '{"nodes": [{"op": "relu", "name": "a", "inputs": [[1,0,0]]}, {"op": "relu", "name": "b", "inputs": [[0,0,0]]}],'
        ' "heads": [[1,0,0]]}'
    )
    with pytest.raises(ModelError, match="the inputs of 'a'"):
        harness.compile(str(tmp_path / "cycle.json"), {}, {})
