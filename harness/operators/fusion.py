"""What a node that oneDNN fused holds: its subgraph, its weights once they are integers, and how its result ends.

See ``onednn`` for the operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph import Node, TensorType
from . import registry
from .context import Context, Value
from .ranges import (
    FLOAT,
    INT8,
    STEPS,
    UINT8,
    Array,
    along_channels,
    as_int32,
    check_small,
    quantized,
    real,
    reinterpreted,
    scalar,
    single,
    steps_of,
)
from .registry import Unsupported
from .schema import Attributes, schemas

ACTIVATIONS = ("Activation", "LeakyReLU", "clip", "square", "sqrt", "exp", "abs")
_COMMUTING = ("", "relu", "leaky")  # what is the same in any unit
_LARGEST_BIAS = np.float32(2**30)  # MXNet keeps the integer biases of a convolution below
_SCALE_OF_NOTHING = np.float32(2**20)  # of weights that are all zero

Apply = Callable[[Value, Value, "Value | None"], Value]


# --- weights and products ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Quantized weights (O, ...), their steps per output (O,), and the range of the float ones."""

    integers: Array
    scales: Array
    least: np.float32
    largest: np.float32

    def real(self, cx: Context) -> Value:
        """The float32 numbers that they stand for."""
        step, zero = np.float32(1) / self.scales, np.zeros(self.scales.shape, np.int8)
        kind = TensorType(FLOAT, self.integers.shape)
        return cx.op("DequantizeLinear", cx.const(self.integers), cx.const(step), cx.const(zero), type=kind, axis=0)

    def shifted(self, cx: Context) -> Value:
        """About the same numbers, and yet the integers but for a power of two, so that float32 adds them exactly."""
        return cx.const(self.integers * self._powers.reshape(-1, *(1,) * (self.integers.ndim - 1)), np.float32)

    def shifts(self, cx: Context) -> Value:
        """Those powers of two, (O,)."""
        return cx.const(self._powers)

    def integer_bias(self, cx: Context, bias: Array, steps: Value) -> Value:
        """The bias in steps of the product, whole numbers in float32, (O,)."""
        return scalar(cx, "Round", scalar(cx, "Mul", cx.const(bias), self.product_steps(cx, steps)))

    def product_steps(self, cx: Context, steps: Value) -> Value:
        """How many steps of the product stand for 1, (O,), for data of ``steps``."""
        return scalar(cx, "Mul", cx.const(self.scales), steps)

    @property
    def _powers(self) -> Array:
        powers: Array = np.exp2(-np.rint(np.log2(self.scales))).astype(np.float32)
        return powers


def quantize_weights(weight: Array, bias: Array | None, steps: Value, per_channel: bool, groups: int = 1) -> Weights:
    """Weights as MXNet quantizes them: 127.5 steps per channel or in all, fewer where the bias would leave int32.

    With groups of several channels, those of group g are multiplied with the steps of channel g, and the result is
    then taken for one in the steps of its own channel: oneDNN counts the steps along the first axis of weights in
    groups. MXNet's answer is far from the float one there, and this is MXNet's answer.
    """
    rows = np.abs(weight).reshape(len(weight), -1)
    largest = rows.max(1)
    if not per_channel:
        largest = np.full_like(largest, largest.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = STEPS[INT8] / largest
        if per_channel and bias is not None and steps.const is not None:
            limit = np.float32(_LARGEST_BIAS) / np.abs(bias) / steps.const
            scales = np.where(bias != 0, np.minimum(scales, limit), scales)
    scales = np.where(np.isfinite(scales), scales, _SCALE_OF_NOTHING).astype(np.float32)
    multiplied = scales[np.arange(len(scales)) // (len(scales) // groups)] if groups > 1 else scales
    stretched = weight * multiplied.reshape(-1, *(1,) * (weight.ndim - 1))
    integers = np.clip(np.rint(stretched), -128, 127).astype(np.int8)
    return Weights(integers, scales, weight.min(), weight.max())


def product_with_bias(
    cx: Context, data: Value, weight: Value, bias: Value | None, apply: Apply, wide: tuple[int, ...]
) -> Value:
    """A product of float32 values; a bias that is computed is added behind it, in the shape ``wide``."""
    if bias is None or bias.const is not None:
        return apply(data, weight, bias)
    y = apply(data, weight, None)
    return cx.op("Add", y, cx.reshape(bias, wide), type=y.type)


@dataclass(frozen=True)
class End:
    """What follows a product: an activation, a summand with its range, an activation of the sum."""

    act: Node | None
    after: Node | None
    summand: tuple[Value, Value, Value] | None

    def quantize(self, cx: Context, y: Value, factor: Value, steps: Value, dtype: np.dtype[np.generic]) -> Value:
        """From the product to integers of ``steps``; the product times ``factor`` (of all or each channel) is in them."""
        self._check()
        act = None if kind_of(self.act) == "clip" else self.act  # the calibrated range clips
        if kind_of(act) not in _COMMUTING or kind_of(self.after) not in _COMMUTING:
            y = cx.op("Mul", y, along_channels(cx, factor, y.rank), type=y.type)
            factor = single(cx, 1)
        y = applied(cx, act, y)
        if self.summand is not None:
            x, low, high = self.summand
            step = scalar(cx, "Div", scalar(cx, "Div", steps, steps_of(cx, x.dtype, low, high)), factor)
            y = cx.op("Add", y, real(cx, x, step), type=y.type)
        y = applied(cx, self.after, y)
        own = dtype if self.summand is None else self.summand[0].dtype
        if dtype == UINT8 and own == INT8:
            largest = along_channels(cx, scalar(cx, "Div", single(cx, 127), factor), y.rank)
            y = cx.op("Min", y, largest, type=y.type)
            own = UINT8
        return reinterpreted(cx, quantized(cx, y, factor, own), dtype)

    def round(self, cx: Context, total: Value, factor: Value) -> Value:
        """From the product in int32 to int32; ``factor`` steps of it stand for 1."""
        self._check()
        kinds = kind_of(self.act), kind_of(self.after)
        if self.summand is None and kinds in (("", ""), ("clip", "")):
            return total
        if self.summand is None and kinds == ("relu", ""):
            return cx.op("Max", total, cx.const(0, np.int32), type=total.type)
        y = applied(cx, self.act, cx.cast(total, np.float32))
        if self.summand is not None:
            x, low, high = self.summand
            y = cx.op("Add", y, real(cx, x, scalar(cx, "Div", factor, steps_of(cx, x.dtype, low, high))), type=y.type)
        return as_int32(cx, applied(cx, self.after, y))

    def _check(self) -> None:
        if self.summand is not None:
            check_small(self.summand[0], "summands")
        if kind_of(self.after) == "clip" or (kind_of(self.act) == "clip" and self.summand is not None):
            raise Unsupported("clip beside a summand: oneDNN fuses relu alone there")


# --- the subgraph -----------------------------------------------------------------------------------------------------


def nodes_of(cx: Context, *operators: str) -> list[Node]:
    """The nodes of the subgraph that are one of these, in order."""
    if len(cx.subgraphs) != 1:
        raise Unsupported(f"it has {len(cx.subgraphs)} subgraphs; the one that was fused is needed")
    return [node for node in cx.subgraphs[0].nodes if node.operator in operators]


def optional(cx: Context, operator: str, wanted: bool) -> Node | None:
    """The one node of this operator, if the attributes ask for it."""
    found = nodes_of(cx, operator)
    if len(found) != int(wanted):
        raise Unsupported(f"its attributes ask for {int(wanted)} {operator} in its subgraph, which has {len(found)}")
    return found[0] if found else None


def only(cx: Context, operator: str) -> Node:
    """The one node of this operator."""
    found = optional(cx, operator, True)
    assert found is not None
    return found


def next_activation(nodes: list[Node], wanted: bool) -> Node | None:
    """The next activation, if the attributes ask for one."""
    if not wanted:
        return None
    if not nodes:
        raise Unsupported("its attributes ask for an activation that its subgraph lacks")
    node = nodes.pop(0)
    kind = kind_of(node)
    if node.operator == "LeakyReLU" and kind not in ("relu", "leaky", "elu", "gelu"):
        raise Unsupported(f"act_type={kind}: oneDNN fuses leaky, elu and gelu")
    if kind == "softsign":
        raise Unsupported("act_type=softsign: oneDNN does not fuse it")
    return node


def kind_of(node: Node | None) -> str:
    """What an activation does; "" is nothing."""
    if node is None:
        return ""
    if node.operator not in ("Activation", "LeakyReLU"):
        return node.operator
    a = settings_of(node)
    return "relu" if a.act_type == "leaky" and a.slope == 0 else str(a.act_type)


def check_clip(*nodes: Node | None) -> None:
    """Raises Unsupported for a clip that oneDNN would fuse wrongly."""
    for node in nodes:
        if node is not None and node.operator == "clip" and settings_of(node).a_min != 0:
            raise Unsupported(f"clip from {settings_of(node).a_min}: oneDNN clips from 0")


def settings_of(node: Node) -> Attributes:
    """The attributes of a node of the subgraph."""
    return Attributes(schemas()[node.operator], node.attributes, node.name)


def applied(cx: Context, node: Node | None, x: Value) -> Value:
    """An activation of the subgraph."""
    if node is None:
        return x
    definition = registry.find(node.operator)
    assert definition is not None
    result: Value = lowered(node, lambda a: definition.lower(cx, a, x))
    return result


def lowered(node: Node, lower: Callable[[Attributes], Value]) -> Value:
    """A lowering of a node of the subgraph, all of whose attributes must have been read."""
    definition, a = registry.find(node.operator), settings_of(node)
    result = lower(a)
    a.ignore("no_bias", *(definition.ignore if definition else ()))
    if a.unread():
        raise Unsupported(f"the attributes {a.unread()} of its {node.operator} are not supported")
    return result


def product_of(node: Node, lower: Callable[[Attributes, Value, Value, Value | None], Value]) -> Apply:
    """The product that a node of the subgraph describes, as a function of data, weight and bias."""
    return lambda x, w, b: lowered(node, lambda a: lower(a, x, w, b))


def array_of(value: Value, what: str) -> Array:
    """The array of a float32 parameter."""
    if value.const is None:
        raise Unsupported(f"its {what} is no parameter; MXNet quantizes it once, at the first call")
    if value.dtype != FLOAT:
        raise Unsupported(f"its {what} is {value.dtype}; float32 is supported")
    return value.const
