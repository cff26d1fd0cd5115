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
from harness.frontend import compat

from . import bad_input

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    (tmp_path / "m-symbol.json").write_text(json.dumps(bad_input.good_model()))
    bad_input.write_params(tmp_path / "m-0000.params", bad_input.parameters())
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
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_mistakes(prefix: str, monkeypatch: Any, capsys: Any, arguments: Any, code: int, words: str) -> None:
    found, out, err = _mxtrt(monkeypatch, capsys, *(a.replace("PREFIX", prefix) for a in arguments))
    assert found == code, err
    assert words.replace("PREFIX", prefix) in out + err
    assert "Traceback" not in err


def test_operators_doctor_and_cache(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = _mxtrt(monkeypatch, capsys, "operators", "convolution", "--json")
    assert code == cli.OK
    assert {row["name"]: row["lowered"] for row in json.loads(out)}["Convolution"] is True
    code, out, _ = _mxtrt(monkeypatch, capsys, "doctor", "--json")
    assert code == cli.OK
    assert {row["what"]: row["state"] for row in json.loads(out)}["ONNX Runtime"] == "ok"
    for command in ("list", "verify", "prune"):
        code, out, _ = _mxtrt(monkeypatch, capsys, "cache", command, "--cache-dir", str(tmp_path / "none"), "--json")
        assert (code, json.loads(out)) == (cli.OK, [])


def test_a_defect_is_called_one(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(cli, "_open", lambda *_: 1 / 0)
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
