"""NVIDIA's own parser and builder on every lowering, without a GPU; and what the capability record says beforehand.

A case may be refused with a reason, and then never reaches the builder; or it is built. What the builder refuses
although the record knew nothing of it would end a user's compilation instead of leaving one node to MXNet.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import harness
from harness import compiler
from harness.engines import base, capability
from harness.graph import TensorType
from harness.operators.context import Context, Value
from suites.ops.case import Spec, all_specs
from suites.ops.check import compiled
from suites.ops.limitations import limitation_of

from .double import DoubleTensorRT
from .rtx import Judge

SPECS = all_specs()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("spec", SPECS, ids=[f"{number}-{spec.operator}" for number, spec in enumerate(SPECS)])
def test_every_lowering_is_built_or_refused_beforehand(
    spec: Spec, precision: str, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_engine = base.get_engine
    monkeypatch.setattr(compiler, "get_engine", lambda name: judge if name == judge.name else get_engine(name))

    @settings(max_examples=1)
    @given(case=spec.cases())
    def run(case: Any) -> None:
        try:
            compiled(case, case.arrays(), judge.name, precision)
        except harness.UnsupportedOperator as refusal:
            assert all(blocked.reason for blocked in refusal.blocked)
        except harness.BuildError as error:  # what the judge accepts is built by ONNX Runtime then
            assert limitation_of(case, "onnxruntime", precision), error
        except harness.ModelError:
            return  # no model of MXNet's at all, which suites/ops judges

    run()


# --- the record, rule by rule ----------------------------------------------------------------------------------------


class Library:
    """A library whose parser has every operator but one."""

    takes_plugins = True

    def __init__(self, is_rtx: bool = False) -> None:
        self.is_rtx, self.label = is_rtx, "TensorRT of a test"

    def has_operator(self, op_type: str) -> bool:
        return op_type != "Mish"

    def lacks_plugin(self, op_type: str) -> str | None:
        return "TensorRT of a test lacks the plugin" if op_type == "RoiAlign" and not self.is_rtx else None


NUMBERS = itertools.count()


def value(shape: tuple[int, ...] = (2, 3, 8, 8), dtype: str = "float32") -> Value:
    return Value(f"x{next(NUMBERS)}", TensorType(np.dtype(dtype), shape))


def const(*values: int) -> Value:
    return Value(f"k{next(NUMBERS)}", TensorType(np.dtype("int64"), (len(values),)), np.array(values))


def refused(op: str, *inputs: Value, rtx: bool = False, outputs: int = 1, **attributes: Any) -> str | None:
    context = Context("node", {})
    context.ops(op, *inputs, outputs=outputs, types=[TensorType(inputs[0].dtype, (1,))] * outputs, **attributes)
    return capability.refuse(context.fragment, Library(rtx))


REFUSED: dict[str, str | None] = {
    "float64": refused("Relu", value(dtype="float64")),
    "int16": refused("Identity", value(dtype="int16")),
    "uint8 arithmetic": refused("Add", value(dtype="uint8"), value(dtype="uint8")),
    "int8 Clip": refused("Clip", value(dtype="int8")),
    "int32 Sqrt": refused("Sqrt", value(dtype="int32")),
    "nine axes": refused("Relu", value((1,) * 9)),
    "TopK 3841": refused("TopK", value((1, 5000)), const(3841), outputs=2),
    "TopK of a computed k": refused("TopK", value((1, 50)), value((1,), "int64"), outputs=2),
    "dilated pooling": refused("MaxPool", value(), kernel_shape=[2, 2], dilations=[2, 2]),
    "pooling with indices": refused("MaxPool", value(), kernel_shape=[2, 2], outputs=2),
    "LpPool 3": refused("LpPool", value(), kernel_shape=[2, 2], p=3),
    "even LRN": refused("LRN", value(), size=4),
    "training": refused("BatchNormalization", value(), training_mode=1),
    "layer norm's mean": refused("LayerNormalization", value(), outputs=2),
    "float Mod": refused("Mod", value(), value()),
    "antialias": refused("Resize", value(), antialias=1),
    "crop and resize": refused("Resize", value(), coordinate_transformation_mode="tf_crop_and_resize"),
    "vector by batch": refused("MatMul", value((3,)), value((2, 3, 4))),
    "scatter add": refused("ScatterND", value(), value(dtype="int64"), value(), reduction="add"),
    "half Celu": refused("Celu", value(dtype="float16")),
    "computed axes": refused("ReduceSum", value(), value((1,), "int64")),
    "computed depth": refused("OneHot", value((2,), "int64"), value((1,), "int64")),
    "4-D convolution": refused("Conv", value((1,) * 6), kernel_shape=[1] * 4),
    "strided dilated deconvolution": refused("ConvTranspose", value(), strides=[2, 2], dilations=[2, 2]),
    "argmax of a vector": refused("ArgMax", value((5,))),
    "einsum in capitals": refused("Einsum", value((2, 2)), equation="Ab->bA"),
    "an operator never built": refused("Unique", value((5,))),
    "an operator the parser lacks": refused("Mish", value()),
    "NonZero on RTX": refused("NonZero", value(), rtx=True),
    "an operator whose plugin is missing": refused("RoiAlign", value(), value((1, 4)), value((1,), "int64")),
}
ACCEPTED: dict[str, str | None] = {
    "TopK 3840": refused("TopK", value((1, 5000)), const(3840), outputs=2),
    "eight axes": refused("Relu", value((1,) * 8)),
    "odd LRN": refused("LRN", value(), size=5),
    "uint8 Cast": refused("Cast", value(dtype="uint8"), to=1),
    "int32 Mul": refused("Mul", value(dtype="int32"), value(dtype="int32")),
    "int64 indices": refused("Gather", value(), value((2,), "int64")),
    "half Relu": refused("Relu", value(dtype="float16")),
    "strided deconvolution": refused("ConvTranspose", value(), strides=[2, 2], dilations=[1, 1]),
    "float fmod": refused("Mod", value(), value(), fmod=1),
    "einsum": refused("Einsum", value((2, 2)), equation="ab->ba"),
    "NonZero elsewhere": refused("NonZero", value()),
    "RoiAlign where its plugin is": refused("RoiAlign", value(), value((2, 4)), value((2,), "int64"), rtx=True),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_has_a_reason(what: str) -> None:
    assert REFUSED[what] and "TensorRT" in str(REFUSED[what])


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_is_not_refused(what: str) -> None:
    assert ACCEPTED[what] is None


def test_the_parser_is_asked_once(judge: Judge) -> None:
    assert judge.library.has_operator("Conv") and not judge.library.has_operator("NoSuchOperator")
    assert judge.library._operators["Conv"] and len(judge.library._operators) > 150
    assert DoubleTensorRT.__doc__  # the double is named as one
