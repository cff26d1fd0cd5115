"""Sizes that a model leaves open, found from what they are used with.

An unrolled recurrent cell of Gluon starts from ``zeros(shape=(0, 5))``: the batch is not known where the cell is
written, and MXNet's shape inference finds it later, from an addition that needs two equal shapes. The graph is lowered
with a symbol in such a place; where a node's inputs must agree, the symbol is solved; and the graph is lowered again
with what was found, until nothing is open or nothing new is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .dims import Dim, Shape, Size
from .graph import Node, TensorType

if TYPE_CHECKING:
    from .operators.context import Value

_ALIKE = frozenset(
    f"{prefix}{name}"
    for prefix in ("elemwise_", "_")
    for name in (
        "add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot", "equal", "not_equal", "greater",
        "greater_equal", "lesser", "lesser_equal", "logical_and", "logical_or", "logical_xor",
    )
) | {"_grad_add", "_identity_with_attr_like_rhs", "add_n", "stack", "where"}  # fmt: skip


@dataclass(slots=True)
class OpenSizes:
    """What is known about the open sizes of one model.

    Attributes:
        sources: the inputs of the model, from whose shapes a symbolic size can be computed.
    """

    sources: Sequence[Value] = ()
    _found: dict[str, Size] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    _searching: bool = True
    _learned: bool = False

    def size(self, symbol: Dim) -> Size | None:
        """The size that a symbol stands for, the symbol while it may still be found, or None."""
        name = str(symbol)
        if name in self._found:
            return self._found[name]
        if not self._searching:
            return None
        self._open.add(name)
        return symbol

    @property
    def searched(self) -> bool:
        """Whether this pass over the graph met open sizes, so that it only looks for them."""
        return bool(self._open)

    def is_open(self, size: Size) -> bool:
        """Whether a size is a symbol that this pass over the graph may still find."""
        return str(size) in self._open

    def settled(self) -> bool:
        """Whether the pass over the graph that just ended left nothing open; if not, there must be another."""
        if not self._open:
            return True
        self._searching, self._learned = self._learned, False
        self._open.clear()
        return False

    def compare(self, node: Node, inputs: Sequence[Value]) -> list[Value]:
        """A node's inputs, in whose types the symbols are solved as far as sizes must be equal to known ones."""
        shapes = [value.shape for value in inputs]
        if node.operator in _ALIKE:
            self._agree(shapes)
        elif node.operator == "Concat":
            self._agree(shapes, int(node.attributes.get("dim", 1)))
        elif node.operator == "RNN":
            self._agree([shape[1:2] for shape in (shapes[0], *shapes[2:4])])
        found = [tuple(self._found.get(str(size), size) for size in shape) for shape in shapes]
        return [
            value if old == new else value.typed(TensorType(value.dtype, new))
            for value, old, new in zip(inputs, shapes, found, strict=True)
        ]

    def _agree(self, shapes: Sequence[Shape], but: int | None = None) -> None:
        if len({len(shape) for shape in shapes}) > 1:
            return
        known = {
            symbol for value in self.sources for size in value.shape if isinstance(size, Dim) for symbol in size.symbols
        }
        for axis, sizes in enumerate(zip(*shapes, strict=True)):
            told = [size for size in sizes if not isinstance(size, Dim) or size.symbols <= known]
            if not told or (but is not None and axis == but % len(shapes[0])):
                continue
            for name in {str(size) for size in sizes} & self._open:
                self._found[name] = told[0]
                self._learned = True
