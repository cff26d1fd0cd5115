"""Which ONNX operators may be computed in 16 bits, and which stay in float32.

Kept wide: what sums many terms outside of a matrix unit, what exponentiates, and norms and losses (MXNet #19747: BERT
in float16 gave NaN because exp and sum were separate). Positions and indices are kept wide too: above 2,048 float16
has no odd integers.
"""

from __future__ import annotations

WIDE = frozenset({
    "CumSum", "Exp", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "Log", "LogSoftmax",
    "LpNormalization", "MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "Pow", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Softmax", "SoftmaxCrossEntropyLoss", "Softplus", "Sqrt", "Erf", "GridSample", "NonMaxSuppression", "RoiAlign",
    "DeformConv", "BatchNormalization", "Sinh", "Cosh", "Tan", "Acosh", "Asinh", "Atanh", "Mod", "Einsum",
    "Loop", "Scan", "If", "QuantizeLinear", "DequantizeLinear", "IsInf", "IsNaN",
})  # fmt: skip

# Recurrences over sequences of unequal length: TensorRT 10.6 mixes types within them.
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
SEQUENCE_LENGTHS = 4  # the position of that input

# These move values without changing them: they follow their input, and cost no cast.
NEUTRAL = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GlobalMaxPool", "Identity",
    "MaxPool", "Max", "Min", "Clip", "Neg", "Abs", "Pad", "Relu", "Reshape", "ReverseSequence", "ScatterElements",
    "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze",
    "Where", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin",
})  # fmt: skip

# Inputs of these positions are float32 whatever the data are.
FIXED_INPUTS: dict[str, frozenset[int]] = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}

# Where positions come from.
POSITIONS = frozenset({"Range", "Cast", "Shape", "Size", "ConstantOfShape", "EyeLike", "NonZero"})

# These jump: a last bit of their input decides a whole step of their output. They, what becomes an integer, and the
# arithmetic before them stay wide.
JUMPS = frozenset({"Round", "Floor", "Ceil", "Mod"})

# Rounded at once, these are sums of integers that were exact: MXNet's INT8 products.
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})

# Positions stay positions through these.
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Floor", "Ceil", "Round", "Neg", "Max", "Min", "Clip", "Where"})
