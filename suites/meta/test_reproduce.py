"""A failure explains itself: its command and its program run, and say what the test said."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from suites.ops.case import Case, Tensor
from suites.ops.check import check
from suites.ops.written import command, from_json, isolated, snippet, to_json

ROOT = Path(__file__).parents[2]
CASE = Case(
    "dot",
    {"transpose_b": "True"},
    {"lhs": Tensor((2, 3), dynamic=(0,)), "rhs": Tensor((4, 3), values=np.arange(12.0).reshape(4, 3), const=True)},
    seed=7,
    terms=3,
)


def test_json_keeps_everything() -> None:
    again = from_json(to_json(CASE))
    assert str(again) == str(CASE)
    assert again.terms == CASE.terms
    assert again.inputs["rhs"].const
    assert again.inputs["lhs"].dynamic == (0,)
    for name, array in CASE.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


@pytest.mark.mxnet
@pytest.mark.parametrize("dynamic", [False, True])
def test_program_runs(dynamic: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet(CASE, dynamic=dynamic)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()]
    assert len(lines) == 2
    assert lines[0].split("[")[0] == lines[1].split("[")[0]


@pytest.mark.mxnet
def test_command_runs() -> None:
    arguments = shlex.split(command(CASE))[1:]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("right")


@pytest.mark.mxnet
def test_command_fails_where_the_check_fails() -> None:
    impossible = Case("dot", {}, {"lhs": Tensor((2, 3)), "rhs": Tensor((4, 5))})
    with pytest.raises(AssertionError, match="MXNetRefuses"):
        isolated(impossible, "onnxruntime", "fp32", False)


@pytest.mark.mxnet
def test_failure_names_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from suites.ops import check as module

    def wrong(case, arrays, engine, precision, dynamic):
        model = original(case, arrays, engine, precision, dynamic)
        return _Wrong(model)

    original = module.compiled
    monkeypatch.setattr(module, "compiled", wrong)
    with pytest.raises(AssertionError) as caught:
        check(CASE)
    text = str(caught.value)
    for part in ("dot", "transpose_b=True", "float32[2, 3]", "seed=7", "should be", "headroom", "-m suites.ops.reproduce",
                 "import harness"):  # fmt: skip
        assert part in text, part


class _Wrong:
    """A model whose answers are off by 1."""

    def __init__(self, model: object) -> None:
        self.model = model
        self.input_names, self.output_names = model.input_names, model.output_names
        self.outputs, self.plan = model.outputs, model.plan

    def __call__(self, **arrays: np.ndarray) -> list[np.ndarray]:
        return [answer + 1 for answer in self.model(**arrays)]
