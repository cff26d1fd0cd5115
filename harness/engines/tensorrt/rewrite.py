"""What TensorRT's parser has no sound form of, written out in operators that it has.

DeformConv: TensorRT-RTX lacks it, and TensorRT 10.6 hands its inputs to a plugin in another order and gives wrong
numbers without a word.

Convolutions in groups whose inputs have 8 bits and whose result is not quantized again: TensorRT 10.6 gives wrong numbers
without a word for depthwise ones over 16 bits, and is right for larger groups over float32; the others have not been
tried. All but the right ones get the floats that their weights' codes stand for, and have no 8-bit form. (The quantizer
makes none; MXNet's own INT8 graphs may have some.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from ..layers import fused_result

Array = npt.NDArray[np.float64]


def rewritten(model: ir.Model) -> ir.Model:
    """The model itself, or, where it has such nodes, a copy with each of them written out."""
    if not any(node.op_type == "DeformConv" or _ends_8_bits(node) for node in model.graph):
        return model
    copy = ir.Model(model.graph.clone(), ir_version=model.ir_version)
    for node in list(copy.graph):
        if node.op_type == "DeformConv":
            _write_out(copy.graph, node)
        elif _ends_8_bits(node):
            _write_weights(copy.graph, node)
    return copy


# --- convolutions in groups that end 8 bits --------------------------------------------------------------------------


def _ends_8_bits(node: ir.Node) -> bool:
    """Whether this is a convolution in groups of dequantized data and codes, whose result somebody reads in more bits."""
    if node.op_type != "Conv" or _integer(node, "group", 1) == 1:
        return False
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    if node.outputs[0].dtype == ir.DataType.FLOAT and (shape is None or shape[1] != 1):
        return False
    sources = [value.producer() for value in node.inputs[:2] if value is not None]
    if not all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
        return False
    weight = sources[1].inputs if sources[1] is not None else ()
    fixed = all(value is not None and value.const_value is not None for value in weight)
    result = fused_result(node.outputs[0])
    quantized = all(use.node.op_type == "QuantizeLinear" for use in result.uses())
    return fixed and (result.is_graph_output() or not quantized)


def _write_weights(graph: ir.Graph, node: ir.Node) -> None:
    weight = node.inputs[1]
    source = weight.producer() if weight is not None else None
    assert weight is not None and source is not None and weight.dtype is not None
    codes, scale, zero = (_numbers(value) for value in (*source.inputs, None)[:3])
    axis = _integer(source, "axis", 1)
    along = [-1 if i == axis else 1 for i in range(codes.ndim)]
    array = (codes - _spread(zero, along)) * _spread(scale, along)
    name = f"{weight.name}/constant"
    constant = ir.Value(name=name, shape=weight.shape, type=weight.type)
    constant.const_value = ir.Tensor(array.astype(weight.dtype.numpy()), dtype=weight.dtype, name=name)
    graph.register_initializer(constant)
    node.replace_input_with(1, constant)
    if not weight.uses():
        graph.remove(source, safe=True)


def _numbers(value: ir.Value | None) -> Array:
    """A constant, 0 if there is none."""
    return np.zeros(()) if value is None or value.const_value is None else value.const_value.numpy().astype(np.float64)


def _spread(array: Array, along: list[int]) -> Array:
    """One number for each channel, or one for all."""
    return array.reshape(along) if array.size > 1 else array.reshape(())


# --- deformable convolution ------------------------------------------------------------------------------------------


def _write_out(graph: ir.Graph, node: ir.Node) -> None:
    """The nodes of a DeformConv in its place; they bear its name, so that messages and layers lead back to MXNet's."""
    tape = Tape()
    result = _deform_conv(_Writer(tape, str(node.name)), node)
    for value in tape.initializers:
        graph.register_initializer(value)
    graph.insert_before(node, tape.nodes)
    old = node.outputs[0]
    last = result.producer()
    assert last is not None
    name = old.name
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    result.name, result.type, result.shape = name, old.type, old.shape
    last.name = node.name


class _Writer:
    """Nodes and constants with names below that of the node they stand for."""

    def __init__(self, tape: Tape, name: str) -> None:
        self._tape, self._name, self._count = tape, name, 0

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{self._name}/{kind}{self._count}"

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: int | str | list[int]) -> ir.Value:
        name = self._fresh(op_type)
        return self._tape.op(op_type, inputs, attributes, name=name, output=ir.Value(name=f"{name}/value"))

    def numbers(self, array: npt.ArrayLike, dtype: ir.DataType) -> ir.Value:
        name = self._fresh("constant")
        return self._tape.initializer(ir.Tensor(np.asarray(array, dtype.numpy()), name=name), name)

    def sizes(self, *sizes: int) -> ir.Value:
        return self.numbers(sizes, ir.DataType.INT64)

    def reshape(self, x: ir.Value, *sizes: int) -> ir.Value:
        return self.op("Reshape", x, self.sizes(*sizes))

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        return x if x.dtype == dtype else self.op("Cast", x, to=dtype.value)


def _deform_conv(w: _Writer, node: ir.Node) -> ir.Value:
    """im2col at moved places, then a matrix product (ONNX's DeformConv, opset 19; in two dimensions).

    Samples are the four cells around each place, taken by the nearest-neighbour GridSample, which gives 0 outside, and
    weighted by the exact fractions; a bilinear GridSample would round the place itself once more.
    """
    data, weight, offset, bias, mask = (*node.inputs, None, None)[:5]
    assert data is not None and weight is not None and offset is not None and data.dtype is not None
    kind, exact = data.dtype, ir.DataType.FLOAT
    _, channels, height, width = _sizes(data)
    filters = _sizes(weight)[0]
    rows, cols = _sizes(offset)[2:]
    group, parts = (_integer(node, name, 1) for name in ("group", "offset_group"))
    home = _home(node, (rows, cols))
    taps, places = home.shape[1], rows * cols

    cells = w.reshape(w.cast(data, exact), -1, channels // parts, height, width)
    moves = w.reshape(w.cast(offset, exact), -1, taps, 2, places)
    where = w.op("Add", moves, w.numbers(home, exact))
    corner = w.op("Floor", where)
    far = w.op("Sub", where, corner)
    near = w.op("Sub", w.numbers(1, exact), far)
    near_y, near_x, far_y, far_x = (w.op("Gather", x, w.sizes(i), axis=2) for x in (near, far) for i in (0, 1))
    samples = None
    for step, row, col in (((0, 0), near_y, near_x), ((0, 1), near_y, far_x), ((1, 0), far_y, near_x), ((1, 1), far_y, far_x)):  # fmt: skip
        share = w.op("Transpose", w.op("Mul", row, col), perm=[0, 2, 1, 3])
        taken = w.op("Mul", _at_cells(w, cells, corner, step, (height, width)), share)
        samples = taken if samples is None else w.op("Add", samples, taken)
    assert samples is not None
    if mask is not None:
        samples = w.op("Mul", samples, w.reshape(w.cast(mask, exact), -1, 1, taps, places))
    terms = channels // group * taps
    columns = w.cast(w.reshape(samples, -1, group, terms, places), kind)
    product = w.op("MatMul", w.reshape(weight, 1, group, filters // group, terms), columns)
    result = w.reshape(product, -1, filters, rows, cols)
    return result if bias is None else w.op("Add", result, w.reshape(bias, 1, filters, 1, 1))


def _at_cells(w: _Writer, cells: ir.Value, corner: ir.Value, step: tuple[int, int], sizes: tuple[int, int]) -> ir.Value:
    """The cells at ``corner + step`` (n, taps, y and x, places), 0 outside: (n, channels, taps, places)."""
    scale = np.array([2 / size for size in sizes]).reshape(1, 1, 2, 1)
    shift = np.array([(2 * more + 1) / size - 1 for more, size in zip(step, sizes)]).reshape(1, 1, 2, 1)
    exact = ir.DataType.FLOAT
    grid = w.op("Add", w.op("Mul", corner, w.numbers(scale, exact)), w.numbers(shift, exact))
    turned = w.op("Gather", w.op("Transpose", grid, perm=[0, 1, 3, 2]), w.sizes(1, 0), axis=3)  # x before y
    return w.op("GridSample", cells, turned, mode="nearest", padding_mode="zeros", align_corners=0)


def _home(node: ir.Node, sizes: tuple[int, int]) -> Array:
    """Where each tap of the kernel lies without an offset: (1, taps, y and x, places)."""
    kernel = _integers(node, "kernel_shape", ())
    strides, dilations = (_integers(node, name, (1, 1)) for name in ("strides", "dilations"))
    pads = _integers(node, "pads", (0, 0, 0, 0))
    axes = [
        np.arange(kernel[i])[:, None] * dilations[i] + np.arange(sizes[i])[None] * strides[i] - pads[i] for i in (0, 1)
    ]
    y, x = axes[0][:, None, :, None], axes[1][None, :, None, :]
    home: Array = (
        np.stack(np.broadcast_arrays(y, x), axis=2).reshape(1, kernel[0] * kernel[1], 2, -1).astype(np.float64)
    )
    return home


def _sizes(value: ir.Value) -> list[int]:
    """The sizes; the first may be symbolic, and is -1 then."""
    assert value.shape is not None
    return [size if isinstance(size, int) else -1 for size in value.shape]


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default
