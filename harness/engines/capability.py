"""What TensorRT's libraries cannot do, as data, so that a network is cut around it before anything is built.

Sources: runs of TensorRT-RTX 1.7.1's parser and builder over every ONNX node model, runs of TensorRT 10.6 over the
operator cells (reports/gpu/cells.json), NVIDIA's support matrices, and the parser's own list of operators, which is
asked for everything that is not in a table here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import onnx

from .. import plugins
from ..operators.context import Fragment, Value


class Knows(Protocol):
    """A library that says which ONNX operators its parser has."""

    @property
    def label(self) -> str: ...

    @property
    def is_rtx(self) -> bool: ...

    @property
    def takes_plugins(self) -> bool: ...

    def has_operator(self, op_type: str) -> bool: ...

    def lacks_plugin(self, op_type: str) -> str | None: ...


MAX_RANK = 8
MAX_TOP_K = 3840
STANDARD_MINIMUM = (7, 5)
RTX_SUPPORTED = "7.5, 8.0, 8.6, 8.9 and 12.0 or later"

RTX_LACKS = {  # option -> why RTX refuses it
    "version_compatible": "the lean runtime is not part of it",
    "hardware": "its plans run on every GPU they were built for",
    "editable_timing_cache": "it has no timing cache",
    "fail_on_timing_miss": "it has no timing cache",
}

# Operators that the parser takes and the library then cannot build, or takes only as part of another.
_NEVER = {
    "Unique": "its output's size depends on data in a way that TensorRT does not support",
    "Det": "TensorRT has no determinant",
    "DFT": "TensorRT has no Fourier transform",
    "STFT": "TensorRT has no Fourier transform",
    "BitShift": "TensorRT has no bit operations",
    "BitwiseAnd": "TensorRT has no bit operations",
    "BitwiseOr": "TensorRT has no bit operations",
    "BitwiseXor": "TensorRT has no bit operations",
    "BitwiseNot": "TensorRT has no bit operations",
    "Compress": "TensorRT has no Compress",
    "CumProd": "TensorRT has no CumProd",
    "Col2Im": "TensorRT has no Col2Im",
    "AffineGrid": "TensorRT has no AffineGrid",
    "MaxUnpool": "TensorRT has no MaxUnpool",
    "MatMulInteger": "TensorRT has no integer matrix product",
    "ConvInteger": "TensorRT has no integer convolution",
    "DynamicQuantizeLinear": "TensorRT quantizes with constant scales only",
    "Bernoulli": "TensorRT's random numbers are not MXNet's",
    "Multinomial": "TensorRT's random numbers are not MXNet's",
    "RandomNormal": "TensorRT's random numbers are not MXNet's",
    "RandomNormalLike": "TensorRT's random numbers are not MXNet's",
    "RandomUniform": "TensorRT's random numbers are not MXNet's",
    "RandomUniformLike": "TensorRT's random numbers are not MXNet's",
}
_NOT_ON_RTX = {
    "NonZero": "TensorRT-RTX has no NonZero",
    "NonMaxSuppression": "TensorRT-RTX has no implementation",
}

REWRITTEN = frozenset({"DeformConv"})  # engines/tensorrt/rewrite.py writes them out in others

_FLOATS = frozenset({"float16", "bfloat16", "float32"})
_WIDE = _FLOATS | {"int32", "int64"}
_ALL = _WIDE | {"bool"}
_MOVED = _ALL | {"int8", "uint8"}  # 8 bits are float32 inside of TensorRT (tensorrt/integers.py)

# Operators whose inputs may have other types than floating point, int32 and int64, or must not have those.
_TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("Cast", "QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
         "Flatten", "Concat", "Slice", "Split", "Gather", "Expand", "Tile", "Shape", "Size", "Where", "GatherElements",
         "GatherND", "ScatterND", "ScatterElements", "Equal", "DepthToSpace", "SpaceToDepth", "Pad",
         "ReverseSequence"), _MOVED),
    "MaxPool": _FLOATS | {"int8", "uint8"},
    **dict.fromkeys(("If", "Loop", "ConstantOfShape", "Trilu", "Not", "And", "Or", "Xor", "NonZero"), _ALL),
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "LRN",
         "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "LpNormalization",
         "Softmax", "LogSoftmax", "Sqrt", "Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh",
         "Tanh", "Asinh", "Acosh", "Atanh", "Sigmoid", "Erf", "Reciprocal", "Floor", "Ceil", "Round", "Elu", "Selu",
         "Celu", "Gelu", "LeakyRelu", "PRelu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish",
         "ThresholdedRelu", "LSTM", "GRU", "RNN", "GridSample", "IsNaN", "IsInf", "DeformConv", "RoiAlign"), _FLOATS),
}  # fmt: skip
# Inputs that are indices, shapes or flags, whose types follow rules of their own: operator -> first such position.
_AUXILIARY = {
    "Reshape": 1, "Squeeze": 1, "Unsqueeze": 1, "Slice": 1, "Split": 1, "Gather": 1, "Expand": 1, "Tile": 1,
    "GatherElements": 1, "GatherND": 1, "ConstantOfShape": 0, "LSTM": 4, "GRU": 4, "RNN": 4, "Pad": 1, "TopK": 1,
    "Resize": 1, "RoiAlign": 2, "ReverseSequence": 1, "Trilu": 1, "OneHot": 0, "Range": 0, "CumSum": 1,
    "NonMaxSuppression": 2, "If": 0, "Loop": 0, "QuantizeLinear": 1, "DequantizeLinear": 1,
}  # fmt: skip
_NO_TYPE = {
    "float64": "TensorRT has no float64 and would compute in float32; cast the model to float32 on purpose",
    "int16": "TensorRT has no int16", "uint16": "TensorRT has no uint16", "uint32": "TensorRT has no uint32",
    "uint64": "TensorRT has no uint64", "complex64": "TensorRT has no complex numbers",
    "complex128": "TensorRT has no complex numbers",
}  # fmt: skip


def refuse_device(is_rtx: bool, compute_capability: tuple[int, int]) -> str | None:
    """Why a library does not support a GPU, or None."""
    version = "{}.{}".format(*compute_capability)
    if is_rtx and not (compute_capability in ((7, 5), (8, 0), (8, 6), (8, 9)) or compute_capability >= (12, 0)):
        return f"its compute capability is {version}, and TensorRT-RTX supports {RTX_SUPPORTED}; use engine='tensorrt'"
    if not is_rtx and compute_capability < STANDARD_MINIMUM:
        return f"its compute capability is {version}, and TensorRT needs 7.5 or later; use engine='onnxruntime'"
    return None


def refuse(fragment: Fragment, library: Knows) -> str | None:
    """Why a library cannot run a fragment, or None: the first reason found."""
    for node in fragment.nodes:
        reason = _refuse_node(node, fragment, library)
        if reason is not None:
            return reason
    return None


def _refuse_node(node: onnx.NodeProto, fragment: Fragment, library: Knows) -> str | None:
    if plugins.is_plugin(node):
        return _refuse_plugin(node, fragment, library)
    known = _NEVER.get(node.op_type) or (_NOT_ON_RTX.get(node.op_type) if library.is_rtx else None)
    if known:
        return known
    values = [fragment.values.get(name) for name in (*node.input, *node.output) if name]
    reason = _refuse_values(value for value in values if value is not None) or _refuse_types(node, fragment)
    if reason is None and not library.is_rtx:
        reason = _refuse_standard(node, fragment)
    rule = _RULES.get(node.op_type)
    if reason is None and rule is not None:
        reason = rule(node, fragment, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
    if reason is None and not library.has_operator(node.op_type) and node.op_type not in REWRITTEN:
        reason = f"{library.label} has no ONNX operator {node.op_type}"
    return reason or library.lacks_plugin(node.op_type)


def _refuse_plugin(node: onnx.NodeProto, fragment: Fragment, library: Knows) -> str | None:
    """Why a library cannot run a user's plugin."""
    if not library.takes_plugins:
        return f"{library.label} takes no plugins written in Python"
    held = {attribute.name: onnx.helper.get_attribute_value(attribute).decode() for attribute in node.attribute}
    call = plugins.read_call(held["call"], held["plugin_version"])
    if not call.plugin.has_cuda:
        return f"{call.plugin.label} has no method cuda"
    if not call.plugin.has_infer and any(size < 0 for _, shape in call.outputs for size in shape):
        return f"{call.plugin.label} has no method infer, and its outputs' sizes vary"
    values = [fragment.values[name] for name in (*node.input, *node.output)]
    reason = _refuse_values(values)
    odd = next((value.dtype.name for value in values if value.dtype.name not in _ALL), None)
    return reason or (f"TensorRT's plugins take no {odd}" if odd else None)


def _refuse_values(values: Iterable[Value]) -> str | None:
    for value in values:
        if value.dtype.name in _NO_TYPE:
            return _NO_TYPE[value.dtype.name]
        if value.rank > MAX_RANK:
            return f"TensorRT's tensors have at most {MAX_RANK} axes, this one has {value.rank}"
    return None


def _refuse_types(node: onnx.NodeProto, fragment: Fragment) -> str | None:
    allowed = _TYPES.get(node.op_type, _WIDE)
    for name in node.input[: _AUXILIARY.get(node.op_type, len(node.input))]:
        value = fragment.values.get(name)
        if value is None or value.dtype.name in allowed:
            continue
        if node.op_type == "Where" and name == node.input[0]:
            continue
        return f"TensorRT's {node.op_type} takes no {value.dtype.name}"
    return None


def _refuse_standard(node: onnx.NodeProto, fragment: Fragment) -> str | None:
    """What TensorRT 10.6 refuses and RTX takes: measured on a GPU."""
    value = fragment.values.get(node.input[0]) if node.input and node.input[0] else None
    kind = value.dtype.name if value is not None else ""
    values = [fragment.values[name] for name in (*node.input, *node.output) if name in fragment.values]
    if any(not v.shape and v.const is None and v.dtype.name in ("int8", "uint8") for v in values):
        return "TensorRT gives a single number of 8 bits an axis"
    is_quantized = any(other.op_type == "QuantizeLinear" for other in fragment.nodes)
    if node.op_type in ("AveragePool", "MaxPool") and is_quantized and values[0].rank == 5:
        return "TensorRT finds no implementation of pooling 8-bit integers over three axes"
    if node.op_type == "IsInf" and kind in ("float16", "bfloat16"):
        return "TensorRT's IsInf takes float32 only"
    constants = [_constant(node, fragment, position) for position in range(len(node.input))]
    if node.op_type == "And" and any(constant is not None and not np.any(constant) for constant in constants):
        return "TensorRT finds no implementation of And with a constant that is all false"
    return None


# --- rules of single operators ---------------------------------------------------------------------------------------

Attributes = dict[str, Any]
Rule = Callable[[onnx.NodeProto, Fragment, Attributes], "str | None"]
_RULES: dict[str, Rule] = {}


def _rule(*operators: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def _constant(node: onnx.NodeProto, fragment: Fragment, position: int) -> Any:
    """The constant at an input, None if it is absent or not constant."""
    if position >= len(node.input) or not node.input[position]:
        return None
    value = fragment.values.get(node.input[position])
    return None if value is None else value.const


def _refuse_unless_constant(
    node: onnx.NodeProto, fragment: Fragment, positions: Iterable[int], what: str
) -> str | None:
    for position in positions:
        given = position < len(node.input) and bool(node.input[position])
        if given and _constant(node, fragment, position) is None:
            return f"TensorRT wants the {what} of {node.op_type} to be constant"
    return None


@_rule("TopK")
def _top_k(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    k = _constant(node, fragment, 1)
    if k is None:
        return "TensorRT wants a constant k"
    if int(np.max(k)) > MAX_TOP_K:
        return f"TensorRT's TopK gives at most {MAX_TOP_K} values, this one {int(np.max(k))}"
    return None


@_rule("AveragePool", "MaxPool", "LpPool")
def _pool(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    if any(step != 1 for step in attributes.get("dilations", ())):
        return "TensorRT's pooling has no dilation"
    if len(node.output) > 1 and node.output[1]:
        return "TensorRT's pooling gives no indices"
    if node.op_type == "LpPool" and attributes.get("p", 2) not in (1, 2):
        return "TensorRT's LpPool has p = 1 or 2 only"
    if len(attributes.get("kernel_shape", ())) > 3:
        return "TensorRT pools over at most three axes"
    return None


@_rule("LayerNormalization")
def _layer_norm(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    return "TensorRT's LayerNormalization has one output" if any(node.output[1:]) else None


@_rule("BatchNormalization")
def _batch_norm(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    return "TensorRT's BatchNormalization does not train" if attributes.get("training_mode", 0) else None


@_rule("LRN")
def _lrn(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    return "TensorRT's LRN has an odd window" if attributes.get("size", 1) % 2 == 0 else None


@_rule("Mod")
def _mod(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    value = fragment.values.get(node.input[0])
    if attributes.get("fmod", 0) == 0 and value is not None and value.dtype.name in _FLOATS:
        return "TensorRT's Mod with the sign of the divisor takes integers only"
    return None


@_rule("Resize")
def _resize(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    if attributes.get("antialias", 0):
        return "TensorRT's Resize has no antialiasing"
    mode = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if mode in (b"tf_crop_and_resize", b"half_pixel_symmetric"):
        return f"TensorRT's Resize has no {mode.decode()}"
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return "TensorRT's Resize only stretches"
    return None


@_rule("MatMul")
def _matmul(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    left, right = (fragment.values.get(name) for name in node.input)
    if left is not None and right is not None and {left.rank, right.rank} & {1} and max(left.rank, right.rank) > 2:
        return "TensorRT's MatMul takes no vector with a batch of matrices"
    return None


@_rule("ScatterND", "ScatterElements")
def _scatter(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    reduction = attributes.get("reduction", b"none")
    return None if reduction == b"none" else f"TensorRT's {node.op_type} does not reduce ({reduction.decode()})"


@_rule("Celu")
def _celu(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    value = fragment.values.get(node.input[0])
    return "TensorRT's Celu takes float32 only" if value is not None and value.dtype.name != "float32" else None


@_rule("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
       "ReduceLogSumExp", "ReduceSumSquare", "Squeeze", "Unsqueeze", "CumSum")  # fmt: skip
def _axes(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    return _refuse_unless_constant(node, fragment, (1,), "axes")


@_rule("OneHot")
def _one_hot(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    return _refuse_unless_constant(node, fragment, (1,), "depth")


@_rule("Conv", "ConvTranspose")
def _conv(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    if len(attributes.get("kernel_shape", ())) > 3:
        return "TensorRT convolves over at most three axes"
    steps = (max(attributes.get(name, (1,))) for name in ("strides", "dilations"))
    if node.op_type == "ConvTranspose" and min(steps) > 1:
        return "TensorRT's deconvolution has a stride or a dilation, not both"
    return None


@_rule("DeformConv")
def _deform_conv(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    values = [fragment.values.get(name) for name in node.input[:3]]
    if any(not isinstance(size, int) for value in values if value is not None for size in value.shape[1:]):
        return "DeformConv is written out for TensorRT with fixed sizes behind the batch; fix height and width"
    return None


@_rule("Einsum")
def _einsum(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    equation = attributes.get("equation", b"").decode()
    return None if equation == equation.lower() else f"TensorRT's Einsum has small letters only, not {equation!r}"


@_rule("ArgMax", "ArgMin")
def _arg(node: onnx.NodeProto, fragment: Fragment, attributes: Attributes) -> str | None:
    value = fragment.values.get(node.input[0])
    return f"TensorRT's {node.op_type} takes at least two axes" if value is not None and value.rank < 2 else None
