"""Wrong arguments of every function of the public API: each must end in a HarnessError that says something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness.frontend.params import write_params

from . import bad_input

DATA = np.ones((2, 3, 8, 8), np.float32)
PATHS: list[Any] = [None, 3, b"m", "", "/", "no/such/model", "a\0b", "x" * 5000, [], {}, object(), np.zeros(3), Path(),
                    "\ud800", "é" * 300, True, 1.5, ("a", "b")]  # fmt: skip


def _changed(**arrays: Any) -> dict[str, Any]:
    return {**bad_input.parameters(), **arrays}


PARAMS: list[Any] = [
    3, -1, 10**400, True, "", "no/such.params", "a\0b", "x" * 5000, "/", [1], ("a", "b"), object(), 1.5, {},
    {"conv_weight": None}, {"conv_weight": "text"}, {"conv_weight": object()}, {1: 2}, {"": np.zeros(1)},
    _changed(conv_weight=np.zeros((4, 3, 3), np.float32)), _changed(conv_weight=np.zeros((5, 3, 3, 3), np.float32)),
    _changed(conv_weight=np.zeros((4, 3, 3, 3), np.int32)), _changed(conv_weight=np.zeros((4, 3, 3, 3), np.float64)),
    _changed(conv_weight=np.zeros((4, 3, 3, 3), np.complex64)), _changed(fc_weight=np.zeros((0, 64), np.float32)),
    _changed(bn_gamma=np.zeros((), np.float32)), _changed(slope=np.zeros((3,), np.float32)),
    *(_changed(conv_bias=np.zeros(shape, np.float32)) for shape in ((1,) * 32, (1,), (3,), (5,), (4, 1))),
    _changed(conv_bias=np.broadcast_to(np.float32(1), (2**40,))),
    _changed(fc_bias=np.array(["a"] * 5)), _changed(fc_bias=np.zeros(5, "datetime64[s]")), _changed(fc_bias=[1, [2]]),
]  # fmt: skip
INPUTS: list[Any] = [
    None, {}, [], 3, "data", {"data": None}, {"data": "abc"}, {"data": 3}, {"data": (1.5,)}, {"data": (-1, 3, 8, 8)},
    {"data": ((1, 2), 3, 8, 8)}, {"data": ((3, 2, 1), 3, 8, 8)}, {"data": (2, 3, 8)}, {"data": (2, 4, 8, 8)}, {"data": ()},
    {"nope": (2, 3, 8, 8)}, {"data": (2, 3, 8, 8), "nope": (1,)}, {"data": (2, 3, 1, 1)},
    {"data": (True, 3, 8, 8)}, {3: (2, 3, 8, 8)}, {None: (1,)}, {"data": object()}, {"data": (0, 3, 8, 8)},
    {"data": (2**62, 3, 8, 8)}, {"data": (10**400, 3, 8, 8)}, {"data": ("n", 3, 8, 8)}, {"data": (1,) * 1000},
    {"data": ((1, 2, 2**70), 3, 8, 8)}, {"data": (float("nan"), 3, 8, 8)}, {"data": [[2, 3, 8, 8]]},
]  # fmt: skip
KEYWORDS: list[dict[str, Any]] = [
    {"engine": 3}, {"engine": "cuda"}, {"engine": None}, {"engine": []}, {"precision": "fp8x"}, {"precision": None},
    {"precision": 16}, {"precision": ["fp32"]}, {"fallback": "none"}, {"fallback": None}, {"min_segment_size": 0},
    {"min_segment_size": "2"}, {"min_segment_size": 1.5}, {"min_segment_size": True}, {"nosuch": 1}, {"threads": 0},
    {"threads": "2"}, {"threads": 10**30}, {"threads": float("nan")}, {"optimization": "most"}, {"optimization": []},
    {"calibrator": "x"}, {"calibrator": []}, {"percentile": "most"}, {"percentile": float("nan")}, {"percentile": 0},
    {"exclude": "conv"}, {"exclude": 3}, {"exclude": [3]}, {"exclude": ["conv999"]}, {"min_sqnr": "high"},
    {"min_sqnr": float("nan")}, {"calibration_table": 3}, {"calibration": 3},
    {"base_precision": "fp8"}, {"base_precision": 16}, {"min_channels": 0}, {"min_channels": "3"}, {"cache_dir": 3, "engine": "tensorrt"}, {"profile_to": 3},
]  # fmt: skip
ROWS = np.ones((2, 32), np.float32)
QUANTIZED: list[dict[str, Any]] = [  # with precision="int8"
    {}, {"calibration": 3}, {"calibration": []}, {"calibration": [{}]}, {"calibration": [{"data": "x"}]}, {"calibration": [3]},
    {"calibration": [{"data": ROWS * np.float32(np.nan)}]}, {"calibration": [{"data": ROWS * np.float32(np.inf)}]},
    {"calibration": [{"data": ROWS[:1]}]}, {"calibration": [{"data": ROWS.astype(np.float64)}]}, {"calibration": iter(())},
    {"calibration": "text"}, {"calibration": {"data": ROWS}}, {"calibration_table": "none.json"}, {"calibration_table": "a\0b"},
    {"calibration_table": "/"}, {"calibration": [{"data": ROWS}], "min_sqnr": 1e9},
]  # fmt: skip
CALLS: list[dict[str, Any]] = [
    {}, {"data": None}, {"data": 3}, {"data": "x"}, {"data": [[1], [1, 2]]}, {"data": object()}, {"nope": np.zeros(1)},
    {"data": DATA.astype(np.float64)}, {"data": DATA.astype(np.int8)}, {"data": DATA[..., 0]}, {"data": DATA[:1]},
    {"data": DATA.astype(object)}, {"data": DATA, "more": 1}, {"data": DATA.astype(">f4")}, {"data": b"x"},
    {"data": DATA.astype(np.complex64)}, {"data": np.ma.masked_array(DATA, DATA > 0)[:1]}, {"data": float("nan")},
]  # fmt: skip
DTYPES: list[Any] = ["float128", "complex64", 3.5, object, "S3", "datetime64", [], "bfloat", "\0", 10**30, "f4,f4"]
LOADS: list[dict[str, Any]] = [
    {"engine": 3}, {"engine": "cuda"}, {"engine": []}, {"precision": "fp8x"}, {"precision": 16}, {"precision": "int8"},
    {"nosuch": 1}, {"threads": 0}, {"threads": "2"}, {"optimization": []},
]  # fmt: skip


def make_files(folder: Path) -> str:
    """The good model's files, and a saved model beside them; the prefix."""
    (folder / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    write_params(folder / "m-0000.params", bad_input.parameters())
    harness.compile(str(folder / "m"), None, bad_input.INPUTS, "onnxruntime").save(folder / "saved")
    return str(folder / "m")


def _compile_and_call(files: str, params: Any, fallback: str) -> None:
    model = harness.compile(files, params, bad_input.INPUTS, "onnxruntime", fallback=fallback)
    model(data=DATA)  # what MXNet runs, it may only see here


def _quantize(files: str, keywords: dict[str, Any]) -> None:
    path = Path(files).with_name("wide.json")
    path.write_text(json.dumps(bad_input.wide_model()))
    harness.compile(
        str(path), bad_input.wide_parameters(), bad_input.WIDE_INPUTS, "onnxruntime", "int8", "error", **keywords
    )


def cases() -> dict[str, Callable[[str], Any]]:
    """Name -> a call that is wrong; it gets the prefix that :func:`make_files` gave."""
    found: dict[str, Callable[[str], Any]] = {}

    def add(what: str, values: list[Any], function: Callable[[str, Any], Any]) -> None:
        for number, value in enumerate(values):
            found[f"{what}-{number}-{type(value).__name__}"] = lambda files, value=value: function(files, value)

    shapes, model = bad_input.INPUTS, bad_input.INPUTS
    add("compile-source", PATHS, lambda files, value: harness.compile(value, {}, shapes))
    add("to_onnx-source", PATHS, lambda files, value: harness.to_onnx(value, {}, shapes))
    for fallback in ("error", "mxnet"):
        add(f"params-{fallback}", PARAMS, lambda files, value, way=fallback: _compile_and_call(files, value, way))
    add("inputs", INPUTS, lambda files, value: harness.compile(files, None, value, "onnxruntime", fallback="error"))
    add("to_onnx-inputs", INPUTS, lambda files, value: harness.to_onnx(files, None, value))
    add(
        "keyword", KEYWORDS,
        lambda files, value: harness.compile(files, None, model, **{"engine": "onnxruntime", **value}),
    )  # fmt: skip
    add("int8", QUANTIZED, _quantize)
    add("call", CALLS, lambda files, value: harness.load(Path(files).with_name("saved"))(**value))
    add("dtype", DTYPES, lambda files, value: harness.Input((1,), value))
    add("load", PATHS, lambda files, value: harness.load(value))
    add("load-keyword", LOADS, lambda files, value: harness.load(Path(files).with_name("saved"), **value))
    unwritable = [value for value in PATHS if str(value) not in ("no/such/model", "\ud800")]
    add("save", [*unwritable, "/proc/none", "/dev/null/x"], lambda files, value: _save(files, value))
    add("to_onnx-path", ["/proc/none/x.onnx", "", "a\0b", "x" * 5000, 3, [], "/"],
        lambda files, value: harness.to_onnx(files, None, shapes, path=value))  # fmt: skip
    add("to_onnx-precision", ["fp8x", None, 16, []], lambda files, value: harness.to_onnx(files, None, shapes, value))
    add(
        "to_onnx-option",
        [{"nosuch": 1}, {"threads": 1}],
        lambda files, value: harness.to_onnx(files, None, shapes, **value),
    )
    return found


def _save(files: str, value: Any) -> None:
    harness.load(Path(files).with_name("saved")).save(value)
