"""What a lowering sees: typed values, and the means to emit ONNX nodes.

Types come from ONNX's own inference over each node as it is emitted, so they hold with symbolic dimensions too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import defs, helper, shape_inference

from ..dims import Dim, FloorDiv, Shape, Size, is_static, product
from ..errors import InputError, ParameterError
from ..graph import Graph, Node, TensorType
from ..open_sizes import OpenSizes
from .registry import Unsupported

OPSET = 22  # the first whose convolutions, pooling and recurrences take bfloat16; all engines read it
IR_VERSION = 10
_OPSETS = [helper.make_opsetid("", OPSET)]
_INFERENCE_DATA_LIMIT = 1024  # constants up to this many elements take part in shape inference

Array = npt.NDArray[Any]


class Value:
    """A typed tensor of the graph; ``const`` is its array if it is known at compile time."""

    __slots__ = ("_proto", "_type", "const", "name")

    def __init__(self, name: str, type: TensorType, const: Array | None = None) -> None:
        self.name = name
        self._type = type
        self.const = const
        self._proto: onnx.TypeProto | None = None

    @property
    def type(self) -> TensorType:
        return self._type

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    @property
    def proto(self) -> onnx.TypeProto:
        if self._proto is None:
            self._proto = type_proto(self.type)
        return self._proto

    def typed(self, type: TensorType) -> Value:
        """The same tensor, of whose type more is known."""
        return Value(self.name, type, self.const)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type}>"


class Missing(Value):
    """A variable without array or input type: harmless until a lowering asks for its type."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.const = None
        self._proto = None

    @property
    def type(self) -> TensorType:
        raise InputError(
            f"the variable {self.name!r} is neither an input nor a parameter: "
            f"add it to inputs= (with its shape) or to params="
        )


class Untyped(Value):
    """An output of a node that is not lowered, whose type nothing can tell before the run."""

    __slots__ = ("_origin",)

    def __init__(self, name: str, origin: Node) -> None:
        self.name = name
        self.const = None
        self._proto = None
        self._origin = origin

    @property
    def type(self) -> TensorType:
        raise Unsupported(f"the type of its input {self._origin.name!r} ({self._origin.operator}) is not known")


@dataclass(slots=True)
class Fragment:
    """What one MXNet node became: ONNX nodes in order, the constants they use, the values they refer to."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)


LowerBody = Callable[[Graph, str, Sequence[Value]], tuple[list[Fragment], list[Value]]]


class Context:
    """Emits the ONNX nodes of one MXNet node.

    Args:
        name: the MXNet node's name; all emitted names start with it, so that engines' messages can be traced back.
        dims: the symbolic dimensions known so far, by their text; shared by the whole model.
        np_shape: whether NumPy shape semantics (zero-size and zero-dimensional arrays) hold.
        subgraphs: the bodies of a control-flow node.
        lower_body: lowers a body, given a prefix for its names and one value per variable, in order.
        open_sizes: what is known about sizes that the model leaves open.
    """

    def __init__(
        self,
        name: str,
        dims: dict[str, Dim],
        np_shape: bool = False,
        subgraphs: Sequence[Graph] = (),
        lower_body: LowerBody | None = None,
        open_sizes: OpenSizes | None = None,
    ) -> None:
        self.name = name
        self.np_shape = np_shape
        self.subgraphs = tuple(subgraphs)
        self.fragment = Fragment()
        self._dims = dims
        self._lower_body = lower_body
        self._open_sizes = open_sizes or OpenSizes()
        self._counts: dict[str, int] = {}
        self._constants: dict[tuple[str, Shape, bytes], Value] = {}

    # --- emitting ---------------------------------------------------------------------------------------------------

    def op(
        self,
        op_type: str,
        *inputs: Value | None,
        type: TensorType | None = None,
        **attributes: Any,
    ) -> Value:
        """Emit an ONNX node with one output; its type is inferred unless given."""
        return self.ops(op_type, *inputs, outputs=1, types=[type] if type else None, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Value | None,
        outputs: int,
        types: Sequence[TensorType] | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """Emit an ONNX node with several outputs; attributes that are None are left out."""
        stem = self._fresh(op_type)
        names = [stem if outputs == 1 else f"{stem}:{i}" for i in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        sources = [value.name if value is not None else "" for value in inputs]
        while sources and not sources[-1]:
            sources.pop()  # TensorRT's parser refuses a Conv whose absent bias is spelled out as ""
        node = helper.make_node(op_type, sources, names, name=stem, **given)
        present = [value for value in inputs if value is not None]
        found = list(types) if types else self._infer(node, present)
        self.fragment.values.update((value.name, value) for value in present)
        self.fragment.nodes.append(node)
        results = [Value(name, kind) for name, kind in zip(names, found, strict=True)]
        self.fragment.values.update((value.name, value) for value in results)
        return results

    def subgraph(
        self, hint: str, inputs: Sequence[TensorType], build: Callable[..., Sequence[Value]]
    ) -> tuple[onnx.GraphProto, list[TensorType]]:
        """A body for Loop, Scan or If, and the types of its outputs.

        Args:
            hint: what it is, for its name.
            inputs: the types of its formal inputs.
            build: takes one value per formal input, emits nodes through this context, returns the outputs. It may use
                values and constants from outside.
        """
        name = self._fresh(hint)
        formal = [Value(self._fresh(f"{hint}_in"), kind) for kind in inputs]
        outer, self.fragment.nodes = self.fragment.nodes, []
        try:
            results = build(*formal)
            outputs = []
            for value in results:  # an output must be computed inside, once
                outputs.append(self.op("Identity", value, type=value.type))
            nodes = self.fragment.nodes
        finally:
            self.fragment.nodes = outer
        own = {name for node in nodes for name in node.output}
        inner = [self.fragment.values.pop(name) for name in own if name in self.fragment.values]
        for value in formal:
            self.fragment.values.pop(value.name, None)
        taken = {value.name for value in outputs}
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_value_info(value.name, value.proto) for value in formal],
            [helper.make_value_info(value.name, value.proto) for value in outputs],
            value_info=[helper.make_value_info(v.name, v.proto) for v in inner if v.name not in taken],
        )
        return graph, [value.type for value in outputs]

    def inline(self, number: int, values: Sequence[Value]) -> list[Value]:
        """The outputs of one of the node's MXNet subgraphs for these values of its variables, emitted here.

        Raises:
            Unsupported: the node has no such subgraph, or a node inside cannot be lowered.
        """
        if self._lower_body is None or number >= len(self.subgraphs):
            raise Unsupported(f"it has {len(self.subgraphs)} subgraph(s); number {number} is missing")
        fragments, results = self._lower_body(self.subgraphs[number], self._fresh(f"body{number}"), values)
        for fragment in fragments:
            self.fragment.nodes.extend(fragment.nodes)
            self.fragment.values.update(fragment.values)
        return results

    def const(self, array: npt.ArrayLike, dtype: npt.DTypeLike = None) -> Value:
        """A constant; a second one of equal type and content within the node is the same value."""
        data = np.asarray(array, dtype)
        if data.nbytes > 256:
            return Value(self._fresh("constant"), TensorType(data.dtype, data.shape), data)
        key = (data.dtype.name, data.shape, data.tobytes())
        if key not in self._constants:
            self._constants[key] = Value(self._fresh("constant"), TensorType(data.dtype, data.shape), data)
        return self._constants[key]

    def ints(self, *values: int) -> Value:
        """A 1-D int64 constant."""
        return self.const(np.array(values, np.int64))

    def fresh_dim(self, hint: str = "dim") -> Dim:
        """A new symbolic dimension, of a size that only the run will tell."""
        dim = Dim.symbol(self._fresh(hint).replace("/", "_"))
        self._dims[str(dim)] = dim
        return dim

    @property
    def sources(self) -> Sequence[Value]:
        """The inputs of the model: symbolic sizes that :meth:`open_size` found follow from them."""
        return self._open_sizes.sources

    def open_size(self, hint: str) -> Size | None:
        """A size that the model leaves open, as it is used elsewhere, or None if nothing tells."""
        return self._open_sizes.size(self.fresh_dim(hint))

    def is_open(self, size: Size) -> bool:
        """Whether a size is a symbol that is still to be found, so that the graph will be lowered again."""
        return self._open_sizes.is_open(size)

    # --- everyday operations, the cheapest form of each --------------------------------------------------------------

    def cast(self, x: Value, dtype: npt.DTypeLike) -> Value:
        """``x`` as another element type; ``x`` itself if it already has it. C's rules: floats truncate."""
        target = np.dtype(dtype)
        if x.dtype == target:
            return x
        if x.const is not None and x.const.nbytes <= 256:
            return self.const(x.const.astype(target))
        return self.op("Cast", x, type=TensorType(target, x.shape), to=helper.np_dtype_to_tensor_dtype(target))

    def reshape(self, x: Value, shape: Sequence[Size], *sources: Value) -> Value:
        """``x`` with another shape, whose sizes may be symbolic (then they must follow from those of ``x`` and ``sources``)."""
        target = tuple(shape)
        if target == x.shape:
            return x
        if x.const is not None and is_static(target):
            return self._view(x, x.const.reshape(target))
        self._remember(target)
        kind = TensorType(x.dtype, target)
        unknown = [axis for axis, size in enumerate(target) if isinstance(size, Dim)]
        copied = [axis for axis in unknown if axis < x.rank and x.shape[axis] == target[axis]]
        open_axes = [axis for axis in unknown if axis not in copied]
        if len(open_axes) <= 1 and not any(size == 0 for size in target):
            codes = [s if isinstance(s, int) else 0 if a in copied else -1 for a, s in enumerate(target)]
            return self.op("Reshape", x, self.ints(*codes), type=kind)
        return self.op("Reshape", x, self.shape(target, x, *sources), type=kind, allowzero=1 if 0 in target else None)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """``x`` with its axes in another order; ``x`` itself if the order is the same."""
        order = list(perm)
        if order == sorted(order):
            return x
        if x.const is not None:
            return self._view(x, x.const.transpose(order))
        kind = TensorType(x.dtype, tuple(x.shape[axis] for axis in order))
        return self.op("Transpose", x, type=kind, perm=order)

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        """``x`` with axes of size 1 inserted at these positions of the result."""
        if not axes:
            return x
        rank = x.rank + len(axes)
        places = sorted(axis % rank for axis in axes)
        sizes = list(x.shape)
        for axis in places:
            sizes.insert(axis, 1)
        if x.const is not None:
            return self._view(x, x.const.reshape(tuple(sizes)))  # type: ignore[arg-type]
        return self.op("Unsqueeze", x, self.ints(*places), type=TensorType(x.dtype, tuple(sizes)))

    def squeeze(self, x: Value, *axes: int) -> Value:
        """``x`` without these axes, which must have size 1."""
        places = sorted(axis % x.rank for axis in axes)
        if not places:
            return x
        sizes = tuple(size for axis, size in enumerate(x.shape) if axis not in places)
        if x.const is not None:
            return self._view(x, x.const.reshape(sizes))  # type: ignore[arg-type]
        return self.op("Squeeze", x, self.ints(*places), type=TensorType(x.dtype, sizes))

    def expand(self, x: Value, shape: Sequence[Size], *sources: Value) -> Value:
        """``x`` broadcast to ``shape``; symbolic sizes must follow from the shapes of ``x`` and ``sources``."""
        target = tuple(shape)
        if target == x.shape:
            return x
        self._remember(target)
        return self.op("Expand", x, self.shape(target, x, *sources), type=TensorType(x.dtype, target))

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Values joined along an axis; the value itself if there is only one."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def slice(
        self,
        x: Value,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Value:
        """ONNX's Slice with constant bounds (clamped, negative ones count from the end)."""
        tail = [self.ints(*steps)] if steps else []
        return self.op("Slice", x, self.ints(*starts), self.ints(*ends), self.ints(*axes), *tail)

    def reduce(self, kind: str, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
        """One of ONNX's Reduce* operators over constant axes; ``x`` itself where there are none."""
        if not axes:
            return x
        return self.op(kind, x, self.ints(*axes), keepdims=int(keepdims))

    # --- shapes -----------------------------------------------------------------------------------------------------

    def shape(self, sizes: Sequence[Size], *sources: Value) -> Value:
        """A 1-D int64 tensor of these sizes; symbolic ones are computed from the shapes of ``sources``."""
        if is_static(sizes):
            return self.ints(*sizes)
        parts: list[Value] = []
        run: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(self.ints(*run))
                run = []
            parts.append(self.size(size, *sources))
        return self.concat([*parts, *([self.ints(*run)] if run else [])], 0)

    def size(self, size: Size, *sources: Value) -> Value:
        """One size as an int64 tensor of shape (1,), computed from the shapes of ``sources`` if it is symbolic.

        Raises:
            Unsupported: the size does not follow from those shapes.
        """
        if isinstance(size, int):
            return self.ints(size)
        for source in sources:
            for axis, known in enumerate(source.shape):
                if known == size:
                    return self.op("Shape", source, start=axis, end=axis + 1)
        total: Value | None = None
        for monomial, coefficient in size.terms.items():
            term: Value | None = None
            for atom in monomial:
                if isinstance(atom, str):
                    if Dim.symbol(atom) == size:
                        raise Unsupported(f"the size {size} does not follow from its inputs' shapes")
                    factor = self.size(Dim.symbol(atom), *sources)
                else:
                    factor = self._floor_div(atom, sources)
                term = factor if term is None else self.op("Mul", term, factor)
            if term is None:
                term = self.ints(coefficient)
            elif coefficient != 1:
                term = self.op("Mul", term, self.ints(coefficient))
            total = term if total is None else self.op("Add", total, term)
        assert total is not None
        return total

    def _floor_div(self, atom: FloorDiv, sources: Sequence[Value]) -> Value:
        numerator, denominator = self.size(atom.numerator, *sources), self.size(atom.denominator, *sources)
        # ONNX's integer Div truncates towards zero; sizes are not negative, and "-(-a//b)" is the one form that is.
        remainder = self.op("Mod", numerator, denominator)
        return self.op("Div", self.op("Sub", numerator, remainder), denominator)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _fresh(self, hint: str) -> str:
        count = self._counts.get(hint, 0)
        self._counts[hint] = count + 1
        return f"{self.name}/{hint}_{count}" if count else f"{self.name}/{hint}"

    def _view(self, x: Value, array: Array) -> Value:
        return Value(self._fresh(f"{x.name}_view"), TensorType(array.dtype, array.shape), array)

    def _remember(self, shape: Iterable[Size]) -> None:
        for size in shape:
            if isinstance(size, Dim):
                self._dims[str(size)] = size

    def _infer(self, node: onnx.NodeProto, inputs: Sequence[Value]) -> list[TensorType]:
        known = {value.name: value.proto for value in inputs}
        data = {
            value.name: onnx.numpy_helper.from_array(np.asarray(value.const, order="C"), value.name)
            for value in inputs
            if value.const is not None and value.const.size <= _INFERENCE_DATA_LIMIT
        }
        try:
            found = shape_inference.infer_node_outputs(
                _schema(node.op_type), node, known, data, {}, _OPSETS, IR_VERSION
            )
        except (shape_inference.InferenceError, RuntimeError) as error:
            types = ", ".join(str(value.type) for value in inputs)
            cause = str(error).strip().splitlines()[-1]
            raise Unsupported(f"ONNX {node.op_type} does not take {types}: {cause}") from None
        return [self._type(found.get(name), name) for name in node.output]

    def _type(self, proto: onnx.TypeProto | None, name: str) -> TensorType:
        if proto is None or not proto.tensor_type.HasField("shape"):
            raise Unsupported(f"the shape of {name} depends on data that are not known at compile time")
        sizes = []
        for axis, dim in enumerate(proto.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                sizes.append(dim.dim_value)
            elif dim.dim_param in self._dims:
                sizes.append(self._dims[dim.dim_param])
            else:
                sizes.append(self.fresh_dim(f"{name.rpartition('/')[2]}_{axis}"))
        return TensorType(_numpy_dtype(proto.tensor_type.elem_type), tuple(sizes))


def type_proto(kind: TensorType) -> onnx.TypeProto:
    """ONNX's form of a tensor type."""
    sizes = [size if isinstance(size, int) else str(size) for size in kind.shape]
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(kind.dtype), sizes)


def static(size: Size, what: str) -> int:
    """A size that must be known at compile time.

    Raises:
        Unsupported: it is symbolic.
    """
    if isinstance(size, Dim):
        raise Unsupported(f"{what} must be known at compile time, and is {size}; give it a fixed size in inputs=")
    return size


def check_weight(weight: Value, expected: Shape) -> None:
    """That a weight has the shape which the attributes and the data ask for.

    Raises:
        Unsupported: it has another.
    """
    if weight.shape != expected:
        raise Unsupported(f"its weight has the shape {weight.shape}, its attributes say {expected}")


def check_vector(value: Value, size: Size, what: str) -> None:
    """That a parameter has one axis, of this size where both are known.

    No refusal: engines may read beyond what there is, and so does MXNet, whose BatchNorm asks for no shape.

    Raises:
        ParameterError: it has another shape.
    """
    known = isinstance(size, int) and value.rank == 1 and isinstance(value.shape[0], int)
    if value.rank != 1 or (known and value.shape != (size,)):
        raise ParameterError(f"its {what} has the shape {value.shape}, ({size},) is asked for")


def elements(kind: TensorType) -> Size:
    """The number of elements of a tensor."""
    return product(kind.shape)


@functools.cache
def _schema(op_type: str) -> defs.OpSchema:
    return defs.get_schema(op_type, OPSET, "")


@functools.cache
def _numpy_dtype(elem_type: int) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))


Values = Mapping[str, Value]
