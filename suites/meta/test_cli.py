"""The command line as a user meets it: exit codes, JSON, and never a traceback for a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import cli
from harness.engines import onnxruntime
from harness.frontend import compat
from harness.frontend.params import write_params
from harness.manifest import write_manifest

from . import bad_input

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    (tmp_path / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    write_params(tmp_path / "m-0000.params", bad_input.parameters())
    return str(tmp_path / "m")


def _mxtrt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mxtrt", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


INPUT = ("-i", "data=2,3,8,8", "--engine", "onnxruntime")


@pytest.mark.parametrize("command", ["convert", "migrate", "calibrate"])
def test_a_saved_model_is_not_the_source(
    prefix: str, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str
) -> None:
    saved = str(tmp_path / "saved")
    _mxtrt(monkeypatch, capsys, "compile", prefix, *INPUT, "--out", saved)
    rest = {"convert": ["x.onnx"], "migrate": ["--out", "x"], "calibrate": ["--out", "x", "--samples", "."]}[command]
    code, _, err = _mxtrt(monkeypatch, capsys, command, saved, *rest)
    assert code == cli.FAILED and "is a saved model" in err


def test_a_models_life(prefix: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    saved, answer = str(tmp_path / "saved"), tmp_path / "y.npz"
    code, out, _ = _mxtrt(monkeypatch, capsys, "compile", prefix, *INPUT, "--out", saved, "--json")
    assert code == cli.OK
    assert json.loads(out)["segments"][0]["engine"] == "onnxruntime"
    code, out, _ = _mxtrt(monkeypatch, capsys, "explain", saved)
    assert code == cli.OK
    assert "FullyConnected" in out
    np.save(tmp_path / "x.npy", np.ones((2, 3, 8, 8), np.float32))
    code, out, _ = _mxtrt(
        monkeypatch, capsys, "run", saved, "-d", f"data={tmp_path / 'x.npy'}", "--out", str(answer), "--json"
    )
    assert code == cli.OK
    assert json.loads(out)[0]["name"] == "softmax_output"
    np.testing.assert_allclose(np.load(answer)["softmax_output"].sum(1), 1, rtol=1e-6)
    code, out, _ = _mxtrt(monkeypatch, capsys, "convert", prefix, str(tmp_path / "m.onnx"), "-i", "data=2,3,8,8")
    assert (code, out.strip()) == (cli.OK, str(tmp_path / "m.onnx"))


@pytest.mark.skipif(not compat.available(), reason="MXNet gives the reference")
def test_migrate_and_verify(prefix: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out_dir = str(tmp_path / "proved")
    code, out, _ = _mxtrt(monkeypatch, capsys, "migrate", prefix, *INPUT, "--out", out_dir, "--vectors", "1", "--json")
    assert (code, json.loads(out)["ok"]) == (cli.OK, True)
    code, out, _ = _mxtrt(monkeypatch, capsys, "verify", out_dir)
    assert code == cli.OK
    assert "every answer is MXNet's" in out


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    ((), cli.WRONG_USE, "Usage"),
    (("nonsense",), cli.WRONG_USE, "nonsense"),
    (("run",), cli.WRONG_USE, "MODEL"),
    (("migrate", "m", "--out", "x", "--vectors", "0"), cli.WRONG_USE, "vectors"),
    (("run", "no/such/model"), cli.FAILED, "no/such/model"),
    (("explain", "PREFIX"), cli.FAILED, "'data' is neither an input nor a parameter"),
    (("explain", "PREFIX", "-i", "data"), cli.FAILED, "NAME=VALUE"),
    (("explain", "PREFIX", "-i", "data=a,b"), cli.FAILED, "1,3,224,224"),
    (("explain", "PREFIX", "-i", "data=1:2,3,8,8"), cli.FAILED, "min"),
    (("explain", "PREFIX", "-i", "data=2,3,8,8@int7"), cli.FAILED, "int7"),
    (("explain", "PREFIX", *INPUT, "-O", "nosuch=1"), cli.FAILED, "nosuch"),
    (("explain", "PREFIX", *INPUT, "-O", "engine=1"), cli.FAILED, "--engine"),
    (("explain", "PREFIX", "--engine", "cuda", "-i", "data=1"), cli.FAILED, "cuda"),
    (("run", "PREFIX", *INPUT, "-d", "data=none.npy"), cli.FAILED, "none.npy"),
    (("run", "PREFIX", *INPUT, "-d", "nope=PREFIX-0000.params"), cli.FAILED, "PREFIX-0000.params"),
    (("verify", "PREFIX"), cli.FAILED, "manifest.json"),
    (("convert", "PREFIX", "/proc/none/x.onnx", "-i", "data=2,3,8,8"), cli.FAILED, "/proc/none"),
    (("explain", "PREFIX"), cli.FAILED, "inputs= is -i NAME=SHAPE"),
    (("explain", "PREFIX", "-i", "data=2,,8,8"), cli.FAILED, "--input data=2,,8,8"),
    (("explain", "PREFIX", "-i", "data=2,3,8,-8"), cli.FAILED, "--input data=2,3,8,-8"),
    (("explain", "PREFIX", *INPUT, "-i", "data=1"), cli.FAILED, "given twice"),
    (("compile", "PREFIX", "--out", "/tmp/x", *INPUT, "--precision", "int8"), cli.FAILED, "mxtrt calibrate"),
    (("run", "PREFIX", *INPUT, "--out", "/proc/none/y.npz"), cli.FAILED, "/proc/none/y.npz"),
    (("demo", "--output", "/proc/none"), cli.FAILED, "/proc/none"),
    (("verify", "PREFIX", "-O", "model=1"), cli.FAILED, "model"),
    (("\0",), cli.WRONG_USE, "No such command"),
    (("explain", "x" * 5000, *INPUT), cli.FAILED, "xxx"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_mistakes(prefix: str, monkeypatch: Any, capsys: Any, arguments: Any, code: int, words: str) -> None:
    found, out, err = _mxtrt(monkeypatch, capsys, *(a.replace("PREFIX", prefix) for a in arguments))
    assert found == code, err
    assert words.replace("PREFIX", prefix) in out + err
    assert "Traceback" not in err


def _one_node(folder: Path, operator: str, **attributes: str) -> str:
    """A model of one node with the input x; its path."""
    nodes = [
        {"op": "null", "name": "x", "inputs": []},
        {"op": operator, "name": "node", "inputs": [[0, 0, 0]], "attrs": attributes},
    ]
    (folder / "one.json").write_text(json.dumps({"nodes": nodes, "heads": [[1, 0, 0]]}))
    return str(folder / "one.json")


def test_check_builds_a_model_its_saved_form_and_ranges(
    prefix: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    saved = str(tmp_path / "saved")
    _mxtrt(monkeypatch, capsys, "compile", prefix, *INPUT, "--out", saved)
    small = _one_node(tmp_path, "relu")
    for arguments in ((saved,), (small, "-i", "x=1:2:4,3"), (small, "-i", "x=2,3", "--precision", "fp16")):
        code, out, err = _mxtrt(monkeypatch, capsys, "check", *arguments, "--target", "SM89", "--json")
        assert code == cli.OK, out + err
        found = json.loads(out)
        assert (found["ok"], found["parts"], found["findings"], found["fallbacks"]) == (True, 1, [], [])
        assert found["library"].startswith("TensorRT-RTX") and found["compute_capabilities"] == ["SM89"]
    code, out, _ = _mxtrt(monkeypatch, capsys, "check", small, "-i", "x=2,3")
    assert code == cli.OK
    assert re.search(r"TensorRT-RTX \S+ builds 1 of 1 part\(s\) for SM89, SM120", out)
    code, _, err = _mxtrt(monkeypatch, capsys, "check", small, "-i", "x=2,3", "--target", "SM1")
    assert code == cli.FAILED and "SM120" in err and "--target" in err


def test_check_says_what_only_mxnet_runs(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """With the reason of the capability record: the parser itself takes float64, and computes in float32."""
    model = _one_node(tmp_path, "sqrt")
    code, out, _ = _mxtrt(monkeypatch, capsys, "check", model, "-i", "x=2,3@float64", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["findings"]) == (cli.NO, False, [])
    assert [(item["node"], item["operator"]) for item in found["fallbacks"]] == [("node", "sqrt")]
    assert "float64" in found["fallbacks"][0]["reason"]
    code, out, _ = _mxtrt(monkeypatch, capsys, "check", model, "-i", "x=2,3@float64")
    assert code == cli.NO and "no float64" in out


def test_check_gives_the_builders_own_words(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """For what the capability record does not know: here it is made to know nothing."""
    from harness.engines.tensorrt.judge import Judge

    monkeypatch.setattr(Judge, "refuse", lambda self, fragment: None)
    model = _one_node(tmp_path, "topk", k="4000", ret_typ="value")
    code, out, _ = _mxtrt(monkeypatch, capsys, "check", model, "-i", "x=1,5000", "--json")
    (finding, *_) = json.loads(out)["findings"]
    assert (code, finding["stage"], finding["owner"], finding["operator"]) == (cli.NO, "builder", "node", "TopK")
    assert finding["signature"].startswith("float[1, 5000]") and finding["segment"] == 0 and finding["reason"]
    code, out, _ = _mxtrt(monkeypatch, capsys, "check", model, "-i", "x=1,5000")
    assert code == cli.NO and "builds 0 of 1" in out and finding["reason"].split()[0] in out


def test_explain_builds_nothing(prefix: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Neither a model nor a saved one, not even where its engine is missing."""
    saved = tmp_path / "saved"
    _mxtrt(monkeypatch, capsys, "compile", prefix, *INPUT, "--out", str(saved))
    document = json.loads((saved / "manifest.json").read_text())
    write_manifest(saved, {**document, "engine": "tensorrt"})
    monkeypatch.setattr(onnxruntime.OnnxRuntimeEngine, "build", lambda *_: 1 / 0)
    for arguments, engine in (((prefix, *INPUT), "onnxruntime"), ((str(saved),), "tensorrt")):
        code, out, err = _mxtrt(monkeypatch, capsys, "explain", *arguments, "--json")
        assert code == cli.OK, err
        assert [part["engine"] for part in json.loads(out)["segments"]] == [engine]


def test_version_and_help(monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = _mxtrt(monkeypatch, capsys, "--version")
    assert code == cli.OK and re.fullmatch(r"mxtrt \d+\.\d+\.\d+\n", out)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = _mxtrt(monkeypatch, capsys, "--help")
    assert code == cli.OK
    assert "..." not in out.partition("Commands:")[2], "a command's line is cut at 80 columns"


def test_operators_doctor_and_cache(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = _mxtrt(monkeypatch, capsys, "operators", "convolution", "--json")
    assert code == cli.OK
    assert {row["name"]: row["lowered"] for row in json.loads(out)}["Convolution"] is True
    code, out, _ = _mxtrt(monkeypatch, capsys, "operators", "nosuchname")
    assert code == cli.NO and "nosuchname" in out
    code, out, _ = _mxtrt(monkeypatch, capsys, "doctor", "--json")
    assert code == cli.OK
    assert {row["what"]: row["state"] for row in json.loads(out)}["ONNX Runtime"] == "ok"
    for command in ("list", "verify", "prune"):
        code, out, _ = _mxtrt(monkeypatch, capsys, "cache", command, "--cache-dir", str(tmp_path / "none"), "--json")
        assert (code, json.loads(out)) == (cli.OK, [])


def test_a_defect_is_called_one(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(cli.models, "plan_model", lambda *_: 1 / 0)
    code, _, err = _mxtrt(monkeypatch, capsys, "explain", "m")
    assert code == cli.DEFECT
    assert "ZeroDivisionError" in err


def test_the_documentation_has_every_command_and_code() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = [
        command.name or command.callback.__name__.removesuffix("_command") for command in cli.app.registered_commands
    ]
    assert [name for name in [*commands, "cache"] if f"`mxtrt {name}" not in text and f"`{name}`" not in text] == []
    codes = [cli.OK, cli.NO, cli.WRONG_USE, cli.FAILED, cli.DEFECT, cli.INTERRUPTED]
    assert re.findall(r"^\| (\d+) \|", text, re.M) == list(map(str, codes))


def test_help_and_import_are_light() -> None:
    """Neither asks for a heavy library; the time is a loose bound for a busy machine."""
    heavy = "mxnet onnxruntime onnx onnx_ir tensorrt tensorrt_rtx pycuda numpy"
    code = f"import sys, harness, harness.cli; print([m for m in {heavy.split()!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "harness.cli", "--help"], capture_output=True, env=environment, check=True)
    assert time.perf_counter() - start < 5
