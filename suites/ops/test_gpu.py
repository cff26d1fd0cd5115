"""The TensorRT cells: every operator in every float precision, matrix products in TF32 too, and what INT8 quantizes
in INT8; against MXNet under the error model.

    pytest suites/ops -m gpu                          one process
    pytest suites/ops -m gpu -n 4 --dist loadgroup    four, each with its own engines
    MXTRT_GPU_SHARED=1 pytest suites/ops -m gpu -k "RNN and bf16"      a few cells, without those that share engines with them

Without a GPU the float precisions of 16 bits run in ONNX Runtime, which rounds every value as they do.

A cell that the engine refuses before the build, with its reason, is an expected failure: right or refused. A cell
that builds must be right; one that does not build although nothing refused it fails. Cells share engines
(:mod:`suites.ops.batch`).
"""

from __future__ import annotations

import functools
import os

import pytest

import harness
from harness.engines.base import get_engine

from . import attention, convolution, matrix, recurrent
from .batch import Outcome, draw_cases, run_cases
from .case import Spec, all_specs
from .int8_layers import LAYERS
from .test_operators import unique

SPECS = all_specs()
PRODUCTS = [spec for family in (convolution, matrix, recurrent, attention) for s in family.SPECS for spec in s.named()]
CELLS: dict[str, list[Spec]] = {"fp32": SPECS, "tf32": PRODUCTS, "fp16": SPECS, "bf16": SPECS, "int8": LAYERS}
EXAMPLES = int(os.environ.get("MXTRT_GPU_EXAMPLES", "3"))
EXAMPLES_WITHOUT = 2
ENGINE = os.environ.get("MXTRT_GPU_ENGINE", "tensorrt")  # "onnxruntime" rehearses the cells without a GPU
SHARED = int(os.environ.get("MXTRT_GPU_SHARED", "32"))  # operators to an engine


@functools.cache
def why_not() -> str:
    """Why the TensorRT engine cannot run here, "" if it can."""
    try:
        get_engine(ENGINE)
    except harness.EngineMissing as error:
        return str(error)
    return ""


@functools.cache
def outcomes(group: int, precision: str, engine: str = ENGINE, examples: int = EXAMPLES) -> dict[int, list[Outcome]]:
    """Spec -> the outcomes of its cases, for the operators that share engines."""
    specs = CELLS[precision]
    members = range(group * SHARED, min((group + 1) * SHARED, len(specs)))
    drawn = [(index, case) for index in members for case in draw_cases(specs[index], examples)]
    found = run_cases([case for _, case in drawn], engine, precision)
    return {index: [o for (i, _), o in zip(drawn, found) if i == index] for index in members}


PARAMETERS = [
    pytest.param(
        index, precision, id=f"{label}-{precision}", marks=pytest.mark.xdist_group(f"{precision}-{index // SHARED}")
    )
    for precision, specs in CELLS.items()
    for index, label in enumerate(unique([spec.operator for spec in specs]))
]


@pytest.mark.gpu
@pytest.mark.parametrize(("index", "precision"), PARAMETERS)
def test_cell(index: int, precision: str, record_property) -> None:
    if why_not():
        pytest.skip(why_not())
    record_property("operator", CELLS[precision][index].operator)
    record_property("precision", precision)
    results = outcomes(index // SHARED, precision)[index]
    right = [outcome.headroom for outcome in results if outcome.state == "right"]
    refused = [outcome.text for outcome in results if outcome.state in ("refused", "limited")]
    record_property("headroom", max(right, default=float("nan")))
    record_property("refused", "; ".join(sorted(set(refused))))
    wrong = [outcome.text for outcome in results if outcome.state == "wrong"]
    assert not wrong, "\n".join(wrong)
    if not right:
        pytest.xfail(f"refused: {refused[-1]}")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("group", range(-(-len(SPECS) // SHARED)))
def test_16_bits_without_a_gpu(group: int, precision: str) -> None:
    results = outcomes(group, precision, "onnxruntime", EXAMPLES_WITHOUT)
    wrong = [outcome.text for of_spec in results.values() for outcome in of_spec if outcome.state == "wrong"]
    assert not wrong, "\n".join(wrong)
