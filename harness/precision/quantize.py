"""Q/DQ pairs placed where TensorRT's rules want them (symmetric, zero point 0).

Every input of a weighted operator is quantized: activations per tensor, weights per output channel; biases stay
float. Of a residual addition the skip input is quantized, so that convolution, addition and activation fuse. The
input of an average pool is quantized. A tensor has one pair, whoever reads it.

What TensorRT 10.6 refuses or gets wrong stays wide (found on H100 and H200): what reads a pooled volume, because it
moves the quantization up through what only selects values, and has no pooling of 8-bit volumes; over 16 bits all
volumes (I3D: 12.5 dB for 39); convolutions in groups of a number of channels that it has no kernel for; those in
groups whose result is not quantized again (a depthwise convolution over 16 bits: 0.3 dB for 36; larger groups over
float32 are right, and the others have not been tried); and what reads a depthwise convolution that is wide, activations
between. The last was blamed for what an activation with constants did (narrow.py); without it nothing has been run since.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..engines.layers import fused_result, owners_of, region_of
from ..errors import CalibrationError
from .calibration import DEFAULT_CALIBRATOR, collect, load_table, threshold
from .policy import TYPES
from .request import Request

Array = npt.NDArray[Any]

_LARGEST = {"int8": 127.0, "fp8": 448.0}
_TYPES = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
MIN_CHANNELS = 16  # narrower layers lose most, and save little but where they read the model's input
_PASSES = frozenset({"Concat", "Flatten", "Identity", "Relu", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_SMALLEST_SCALE = 2.0**-24  # of a tensor that is all zero


@dataclass(frozen=True, slots=True)
class Site:
    """An input of a node that is to be quantized: of activations, or constant weights with their channel axis."""

    node: str
    position: int
    tensor: str
    weight_axis: int | None = None


def find_sites(model: ir.Model, options: Mapping[str, Any] | None = None) -> list[Site]:
    """Where pairs go, in the order of the nodes; of the options, ``exclude``, ``min_channels`` and ``base_precision`` matter."""
    options = options or {}
    least = options.get("min_channels", MIN_CHANNELS)
    left_out = set(options.get("exclude", ()))
    owners = owners_of(model)
    wide = {name for name, nodes in owners.items() if name in left_out or not left_out.isdisjoint(nodes)}
    over_16_bits = options.get("base_precision", "fp32") != "fp32"
    if over_16_bits:
        wide.update(str(node.name) for node in model.graph if _reads_volume(node))
    volumes = _pooled_volumes(model.graph)
    while True:
        sites = _sites(model.graph, wide, volumes, least)
        more = _groups_read_wide(model.graph, sites, over_16_bits) | _behind_wide_depthwise(model.graph, sites)
        if not more:
            return sites
        wide |= more


def find_possible_sites(model: ir.Model, options: Mapping[str, Any]) -> list[Site]:
    """Those of every base precision, and both inputs of each sum: what a table must hold to serve them all."""
    found = [site for base in ("fp32", "fp16") for site in find_sites(model, {**options, "base_precision": base})]
    sums = {site.node for site in found}
    for node in model.graph:
        if node.op_type == "Add" and node.name in sums:
            found += [
                Site(str(node.name), i, str(value.name)) for i, value in enumerate(node.inputs) if value is not None
            ]
    return list(dict.fromkeys(found))


def _sites(graph: ir.Graph, wide: set[str], volumes: set[str], least: int) -> list[Site]:
    """The sites, but for those of the nodes ``wide`` and of those that read ``volumes``."""
    sites: list[Site] = []
    quantized: set[str] = set()
    for node in graph:
        name = str(node.name)
        if name in wide:
            continue
        found = _weighted(node, least) or _pooled(node) or _residual(node, quantized)
        if any(site.tensor in volumes for site in found):
            continue
        sites += found
        if found and found[-1].weight_axis is not None:
            quantized.add(name)
    return sites


def _groups_read_wide(graph: ir.Graph, sites: Sequence[Site], over_16_bits: bool) -> set[str]:
    """The quantized convolutions in groups (over float32: depthwise ones) whose result somebody reads in more bits."""
    weighted = {site.node for site in sites if site.weight_axis is not None}
    quantized = {(site.node, site.position) for site in sites}

    def is_read_wide(value: ir.Value) -> bool:
        result = fused_result(value)
        uses = ((str(node.name), position) for node, position in result.uses())
        return result.is_graph_output() or any(use not in quantized for use in uses)

    def is_grouped(node: ir.Node) -> bool:
        quantized_conv = node.op_type == "Conv" and node.name in weighted
        return quantized_conv and _group(node) > 1 and (over_16_bits or _is_depthwise(node))

    return {str(node.name) for node in graph if is_grouped(node) and is_read_wide(node.outputs[0])}


def _behind_wide_depthwise(graph: ir.Graph, sites: Sequence[Site]) -> set[str]:
    """The nodes that would read, in 8 bits, what a wide depthwise convolution gives out together with its activations."""
    weighted = {site.node for site in sites if site.weight_axis is not None}
    inputs = {(site.node, site.position) for site in sites if site.weight_axis is None}

    def is_wide_depthwise(node: ir.Node) -> bool:
        return node.op_type == "Conv" and node.name not in weighted and _is_depthwise(node)

    def is_fused(value: ir.Value) -> bool:
        only = all((use.node.name, use.idx) in inputs for use in value.uses()) and not value.is_graph_output()
        return only and any(map(is_wide_depthwise, region_of(value).before))

    return {
        str(node.name)
        for node in graph
        for position, value in enumerate(node.inputs)
        if value is not None and (node.name, position) in inputs and is_fused(value)
    }


def _is_depthwise(node: ir.Node) -> bool:
    weight = node.inputs[1]
    return _group(node) > 1 and weight is not None and weight.shape is not None and weight.shape[1] == 1


def _reads_volume(node: ir.Node) -> bool:
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    return shape is not None and len(shape) == 5


def _pooled_volumes(graph: ir.Graph) -> set[str]:
    """The values in which 8 bits would be 8 bits in a pooling over volumes, as TensorRT moves them."""
    found: set[str] = set()
    for node in graph:
        pooled = node.outputs[0].shape if node.op_type == "MaxPool" else None
        selects = pooled is not None and len(pooled) == 5
        passes = node.op_type in _PASSES and any(source is not None and source.name in found for source in node.inputs)
        if selects or passes:
            found.update(str(output.name) for output in node.outputs)
    return found


def _weighted(node: ir.Node, least: int) -> list[Site]:
    axis = _channel_axis(node)
    if axis is None:
        return []
    data, weight = node.inputs[0], node.inputs[1]
    assert data is not None and weight is not None
    shape = weight.shape
    if data.const_value is not None or weight.const_value is None or shape is None or data.dtype != ir.DataType.FLOAT:
        return []
    group = _group(node)
    sizes = shape.numpy()
    outputs = sizes[axis] * (group if node.op_type == "ConvTranspose" else 1)
    if node.op_type in ("Gemm", "MatMul"):
        inputs = math.prod(sizes) // max(sizes[axis], 1)
    else:
        inputs = sizes[0] if node.op_type == "ConvTranspose" else sizes[1] * group
    if min(inputs, outputs) < least or not _has_kernel(inputs // group, outputs // group, group):
        return []
    name = str(node.name)
    return [Site(name, 0, str(data.name)), Site(name, 1, str(weight.name), axis)]


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _has_kernel(inputs: int, outputs: int, group: int) -> bool:
    """Whether TensorRT 10.6 has 8-bit kernels for groups of so many channels.

    Built on an H200: depthwise, 4, 8, 16, 32; refused: 2, 3, 6, 18, 20, 24. Operator cells draw 16, 32 and 48.
    """
    even = all(size in (4, 8) or size % 16 == 0 for size in (inputs, outputs))
    return group == 1 or (inputs, outputs) == (1, 1) or even


def _channel_axis(node: ir.Node) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if _group(node) == 1 else None
    if node.op_type == "Gemm":
        plain = all(
            name not in node.attributes or node.attributes[name].as_float() == 1.0 for name in ("alpha", "beta")
        )
        transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
        if not plain or transposed:
            return None
        return 0 if "transB" in node.attributes and node.attributes["transB"].as_int() else 1
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        return 1 if weight is not None and weight.shape is not None and len(weight.shape) == 2 else None
    return None


def _pooled(node: ir.Node) -> list[Site]:
    if node.op_type not in ("AveragePool", "GlobalAveragePool"):
        return []
    data = node.inputs[0]
    if data is None or data.const_value is not None or data.dtype != ir.DataType.FLOAT:
        return []
    return [Site(str(node.name), 0, str(data.name))]


def _residual(node: ir.Node, quantized: set[str]) -> list[Site]:
    """The skip input of an addition whose other input is a quantized layer's only use."""
    if node.op_type != "Add" or any(value is None or value.const_value is not None for value in node.inputs):
        return []
    left, right = node.inputs
    assert left is not None and right is not None
    if left.dtype != ir.DataType.FLOAT or left.shape != right.shape:
        return []
    for branch, position, skip in ((left, 1, right), (right, 0, left)):
        producer = branch.producer()
        if producer is not None and producer.name in quantized and len(branch.uses()) == 1:
            return [Site(str(node.name), position, str(skip.name))]
    return []


def find_ranges(model: ir.Model, sites: Iterable[Site], request: Request) -> dict[str, float]:
    """Activation tensor -> amax, from samples or from a table.

    Raises:
        CalibrationError: there are neither, a sample cannot be used, or the table lacks a tensor.
    """
    names = list(dict.fromkeys(site.tensor for site in sites if site.weight_axis is None))
    if "calibration_table" in request.options:
        ranges = load_table(request.options["calibration_table"])
        missing = [name for name in names if name not in ranges]
        if missing:
            raise CalibrationError(
                f"the calibration table {request.options['calibration_table']} has no range for {missing[0]!r} "
                f"and {len(missing) - 1} more tensors: it was made from another model; run mxtrt calibrate again"
            )
        return ranges
    if request.samples is None:
        raise CalibrationError(
            f"precision {request.precision} needs calibration=, an iterable of {{input: array}}, or calibration_table="
        )
    calibrator = request.options.get("calibrator", DEFAULT_CALIBRATOR[request.precision])
    percentile = float(request.options.get("percentile", 99.99))
    histograms = collect(model, names, request.samples())
    return {name: threshold(histogram, calibrator, percentile) for name, histogram in histograms.items()}


def insert(
    model: ir.Model, sites: Iterable[Site], ranges: Mapping[str, float], precision: str, base: str = "fp32"
) -> None:
    """Insert the pairs, in place; their scales are numbers that ``base``, what the rest is computed in, can hold."""
    graph = model.graph
    nodes = {str(node.name): node for node in graph}
    pairs: dict[str, ir.Value] = {}
    for site in sites:
        node = nodes[site.node]
        value = node.inputs[site.position]
        assert value is not None
        if site.weight_axis is not None:
            node.replace_input_with(site.position, _weights(graph, node, value, site.weight_axis, precision, base))
            continue
        if site.tensor not in pairs:
            pairs[site.tensor] = _pair(graph, value, ranges[site.tensor], precision, base)
        node.replace_input_with(site.position, pairs[site.tensor])


def _scale(amax: Array, precision: str, base: str) -> Array:
    """The scale of a range, in float32, rounded up to a number of ``base``: what lies in the range is not clipped."""
    scale = np.maximum(amax / _LARGEST[precision], _SMALLEST_SCALE).astype(np.float32)
    if base == "fp32":
        return scale
    kind = TYPES[base].numpy()
    largest = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
    rounded = np.minimum(scale, np.float32(largest)).astype(kind)
    higher = np.nextafter(rounded, np.array(np.inf, kind))
    up = np.where((rounded.astype(np.float32) < scale) & np.isfinite(higher), higher, rounded)
    return up.astype(np.float32)


def _pair(graph: ir.Graph, value: ir.Value, amax: float, precision: str, base: str) -> ir.Value:
    scales = _constant(graph, f"{value.name}/scale", _scale(np.array(amax, np.float32), precision, base))
    zero = _constant(graph, f"{value.name}/zero_point", np.zeros((), _TYPES[precision].numpy()))
    down = _node("QuantizeLinear", [value, scales, zero], f"{value.name}/quantized", value.shape, _TYPES[precision])
    up = _node(
        "DequantizeLinear", [down.outputs[0], scales, zero], f"{value.name}/dequantized", value.shape, ir.DataType.FLOAT
    )
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], (down, up))
    else:
        graph.insert_after(producer, (down, up))
    return up.outputs[0]


def _weights(graph: ir.Graph, node: ir.Node, value: ir.Value, axis: int, precision: str, base: str) -> ir.Value:
    """Constant weights as their codes and a DequantizeLinear with one scale per output channel."""
    name = f"{value.name}/dequantized"
    assert value.const_value is not None
    array = value.const_value.numpy().astype(np.float32)
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = _scale(np.abs(array).max(axis=others), precision, base)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    scaled = array / scale.reshape(shape)
    codes = np.clip(np.rint(scaled), -127, 127) if precision == "int8" else scaled
    quantized = _constant(graph, f"{value.name}/codes", codes.astype(_TYPES[precision].numpy()))
    scales = _constant(graph, f"{value.name}/scale", scale)
    zeros = _constant(graph, f"{value.name}/zero_point", np.zeros(scale.shape, _TYPES[precision].numpy()))
    up = _node("DequantizeLinear", [quantized, scales, zeros], name, value.shape, ir.DataType.FLOAT, axis=axis)
    graph.insert_before(node, up)
    return up.outputs[0]


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    existing = graph.initializers.get(name)
    if existing is not None:
        return existing
    dtype = ir.DataType.from_numpy(array.dtype)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype))
    value.const_value = ir.Tensor(array, dtype=dtype, name=name)
    graph.register_initializer(value)
    return value


def _node(
    op_type: str, inputs: list[ir.Value], name: str, shape: ir.Shape | None, dtype: ir.DataType, axis: int | None = None
) -> ir.Node:
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", op_type, inputs, attributes=attributes, name=f"{name}/{op_type}")
    node.outputs[0].name = name
    node.outputs[0].shape = shape
    node.outputs[0].type = ir.TensorType(dtype)
    return node
