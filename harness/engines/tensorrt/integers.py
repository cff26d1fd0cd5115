"""8-bit integers as TensorRT has them: int8 between a QuantizeLinear and its DequantizeLinear, and nowhere else.

Whatever else a model does with int8, and all that it does with uint8, is done on the same numbers in float32, which
holds them exactly. Inputs and outputs of the model keep their types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..layers import owner_of

_SMALL = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
_FLOAT, _INT32 = ir.DataType.FLOAT, ir.DataType.INT32


def with_wide_integers(model: ir.Model) -> ir.Model:
    """The model in that form: itself where it is already, else a changed copy whose constants are the same."""
    if not any(_is_widened(value) for value in _values(model.graph)):
        return model
    copy = model.clone()
    _Widening(copy.graph).run()
    return copy


def _values(graph: ir.Graph) -> list[ir.Value]:
    computed = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *computed]


def _is_widened(value: ir.Value) -> bool:
    """Whether a value is computed with as float32."""
    if value.dtype not in _SMALL:
        return False
    readers = [(user.op_type, position) for user, position in value.uses()]
    if value.const_value is not None:
        own = {("DequantizeLinear", 0)} if value.dtype == ir.DataType.INT8 else set()
        zero_points = {("QuantizeLinear", 2), ("DequantizeLinear", 2)}
        return not set(readers) <= own | zero_points
    producer = value.producer()
    dequantized = all(reader == ("DequantizeLinear", 0) for reader in readers)
    if producer is None or producer.op_type == "QuantizeLinear":  # an input of the model, or a pair
        pair = dequantized and all(_has_one_scale(node) for node in [producer, *(user for user, _ in value.uses())])
        return not (pair and (value.dtype == ir.DataType.INT8 or (not readers and producer is None)))
    return bool(readers) or producer.op_type != "Cast"


def _has_one_scale(node: ir.Node | None) -> bool:
    """Whether a pair's scale is one constant, of which alone TensorRT makes 8-bit integers."""
    scale = None if node is None else node.inputs[1]
    if scale is None:
        return True
    return scale.const_value is not None and _is_single(scale)


def _is_single(scale: ir.Value) -> bool:
    return scale.shape is not None and all(size == 1 for size in scale.shape)


class _Widening:
    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.wide = {value for value in _values(graph) if _is_widened(value)}
        self.small = {value: value.dtype for value in self.wide}
        self.count = 0

    def run(self) -> None:
        for value in list(self.graph.initializers.values()):
            if value in self.wide and value.const_value is not None:
                self._replace(value, self._constant(value.const_value.numpy().astype(np.float32), str(value.name)))
        first = next(iter(self.graph), None)
        for value in self.graph.inputs:
            if value in self.wide and first is not None:
                wide = self._widened_input(first, value)
                self._replace(value, wide)
                if any(user.op_type == "Cast" for user, _ in wide.uses()):
                    # TensorRT 10.6 joins a Cast to the DequantizeLinear, and refuses its int32: something in between.
                    self._replace(wide, self._emit(first, "Round", [wide], _FLOAT))
        for node in list(self.graph):
            self._rewrite(node)
        for position, value in enumerate(self.graph.outputs):
            if value in self.wide and value.producer() is not None:
                self.graph.outputs[position] = self._narrowed(value)

    def _widened_input(self, first: ir.Node, value: ir.Value) -> ir.Value:
        if value.dtype == ir.DataType.UINT8:
            return self._emit(first, "Cast", [value], _FLOAT, to=_FLOAT)
        zero = self._constant(np.array(0, np.int8), "zero8")
        return self._emit(first, "DequantizeLinear", [value, self._number(1), zero], _FLOAT)

    def _rewrite(self, node: ir.Node) -> None:
        output = node.outputs[0] if node.outputs else None
        if node.op_type == "QuantizeLinear" and output in self.wide:
            self._quantize(node)
        elif node.op_type == "DequantizeLinear" and node.inputs[0] is not None and self._is_float(node.inputs[0]):
            self._dequantize(node)
        elif node.op_type == "Cast" and output in self.wide:
            self._wrap(node)
        else:
            for value in node.outputs:
                if value in self.wide:
                    value.type = ir.TensorType(_FLOAT)

    @staticmethod
    def _is_float(value: ir.Value) -> bool:
        return value.dtype == _FLOAT

    def _quantize(self, node: ir.Node) -> None:
        """round(x / scale) + zero, saturated."""
        output = node.outputs[0]
        low, high = _SMALL[self.small[output]]  # type: ignore[index]
        x, scale, zero = self._float(node, node.inputs[0]), self._scalar(node.inputs[1], node), self._zero(node)
        y = self._emit(node, "Div", [x, scale], _FLOAT, like=output)
        y = self._emit(node, "Round", [y], _FLOAT, like=output)
        if zero:
            y = self._emit(node, "Add", [y, self._number(zero)], _FLOAT, like=output)
        y = self._emit(node, "Max", [y, self._number(low)], _FLOAT, like=output)
        self._finish(node, self._emit(node, "Min", [y, self._number(high)], _FLOAT, like=output))

    def _dequantize(self, node: ir.Node) -> None:
        """(x - zero) * scale."""
        output, zero, y = node.outputs[0], self._zero(node), node.inputs[0]
        if zero:
            y = self._emit(node, "Sub", [y, self._number(zero)], _FLOAT, like=output)
        y = self._emit(node, "Mul", [y, self._scalar(node.inputs[1], node)], _FLOAT, like=output)
        if output.dtype != _FLOAT:
            assert output.dtype is not None
            y = self._emit(node, "Cast", [y], output.dtype, like=output, to=output.dtype)
        self._finish(node, y)

    def _wrap(self, node: ir.Node) -> None:
        """A Cast to 8 bits keeps the lowest 8."""
        output, source = node.outputs[0], node.inputs[0]
        assert source is not None
        low, _ = _SMALL[self.small[output]]  # type: ignore[index]
        if source.dtype == ir.DataType.BOOL:
            self._finish(node, self._emit(node, "Cast", [source], _FLOAT, like=output, to=_FLOAT))
            return
        y = source if source.dtype == _INT32 else self._emit(node, "Cast", [source], _INT32, like=output, to=_INT32)
        shift, turn = (self._constant(np.array(number, np.int32), f"int{number}") for number in (low, 256))
        if low:
            y = self._emit(node, "Sub", [y, shift], _INT32, like=output)
        y = self._emit(node, "Mod", [y, turn], _INT32, like=output)
        if low:
            y = self._emit(node, "Add", [y, shift], _INT32, like=output)
        self._finish(node, self._emit(node, "Cast", [y], _FLOAT, like=output, to=_FLOAT))

    def _narrowed(self, value: ir.Value) -> ir.Value:
        """The output of the model again, in its type and under its name."""
        name, kind = str(value.name), self.small[value]
        value.name = f"{name}/wide"
        assert kind is not None
        if kind == ir.DataType.INT8:
            one, zero = self._number(1), self._constant(np.array(0, np.int8), "zero8")
            node = ir.Node("", "QuantizeLinear", [value, one, zero], name=f"{name}/QuantizeLinear")
        else:
            node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", kind.value)], name=f"{name}/Cast")
        output = node.outputs[0]
        output.name, output.shape, output.type = name, value.shape, ir.TensorType(kind)
        self.graph.append(node)
        return output

    def _finish(self, node: ir.Node, value: ir.Value) -> None:
        """Put ``value`` in the place of the node's output."""
        output = node.outputs[0]
        name = str(output.name)
        if output.is_graph_output():
            for position, other in enumerate(self.graph.outputs):
                if other is output:
                    self.graph.outputs[position] = value
            if output in self.small:
                self.small[value] = self.small[output]
                self.wide.add(value)
        self._replace(output, value)
        self.graph.remove(node, safe=True)
        value.name = name

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        for user, position in list(old.uses()):
            if user is not new.producer() and not (user.op_type in _QUANTIZERS and position == 2):
                user.replace_input_with(position, new)

    def _scalar(self, scale: ir.Value | None, node: ir.Node) -> ir.Value:
        """The scale in float32 and in a shape that broadcasts with the data."""
        assert scale is not None
        scale = self._float(node, scale)
        if _is_single(scale):
            return scale
        data = node.outputs[0].shape
        assert data is not None and scale.shape is not None
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        wide = (-1, *(1,) * (len(data) - 1 - axis % len(data)))
        if scale.const_value is not None:
            return self._constant(scale.const_value.numpy().reshape(wide), f"{scale.name}/{len(wide)}")
        shape = self._constant(np.array(wide, np.int64), f"wide{len(wide)}")
        y = self._emit(node, "Reshape", [scale, shape], _FLOAT)
        y.shape = ir.Shape([scale.shape[0], *wide[1:]])
        return y

    def _float(self, node: ir.Node, value: ir.Value | None) -> ir.Value:
        """A value in float32: models in 16 bits have scales of their type."""
        assert value is not None
        if value.dtype == _FLOAT:
            return value
        if value.const_value is not None:
            return self._constant(value.const_value.numpy().astype(np.float32), str(value.name))
        return self._emit(node, "Cast", [value], _FLOAT, to=_FLOAT)

    @staticmethod
    def _zero(node: ir.Node) -> int:
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        return 0 if zero is None or zero.const_value is None else int(zero.const_value.numpy().reshape(-1)[0])

    def _number(self, number: float) -> ir.Value:
        return self._constant(np.array(number, np.float32), f"number{number}")

    def _constant(self, array: npt.NDArray[Any], hint: str) -> ir.Value:
        name = f"{hint}/wide"
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        constant = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype))
        )
        constant.const_value = ir.Tensor(array, name=name)
        self.graph.register_initializer(constant)
        return constant

    def _emit(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value | None],
        kind: ir.DataType,
        like: ir.Value | None = None,
        to: ir.DataType | None = None,
    ) -> ir.Value:
        self.count += 1
        attributes = [] if to is None else [ir.AttrInt64("to", to.value)]
        owner = owner_of(str(before.name))
        node = ir.Node("", op_type, inputs, attributes, name=f"{owner}/wide{self.count}_{op_type}")
        shaped = like or inputs[0]
        assert shaped is not None
        output = node.outputs[0]
        output.name, output.shape, output.type = f"{node.name}:0", shaped.shape, ir.TensorType(kind)
        self.graph.insert_before(before, node)
        return output


_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
