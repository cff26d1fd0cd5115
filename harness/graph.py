"""The model between the frontend and the engines: frozen, typed, without behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .dims import Shape, is_static

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

MXNET_DTYPES: dict[int, np.dtype[Any]] = {  # mshadow's type flags
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int32),
    5: np.dtype(np.int8),
    6: np.dtype(np.int64),
    7: np.dtype(np.bool_),
    8: np.dtype(np.int16),
    9: np.dtype(np.uint16),
    10: np.dtype(np.uint32),
    11: np.dtype(np.uint64),
    12: BFLOAT16,
}

MOST_ELEMENTS, MOST_AXES = 2**31, 32  # what no tensor of MXNet reaches (as its wheels are built), and what none exceeds


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape; a size is an integer or a :class:`~harness.dims.Dim`."""

    dtype: np.dtype[Any]
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return is_static(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


class Entry(NamedTuple):
    """One output of one node: the node's position in ``Graph.nodes`` and the output's number."""

    node: int
    output: int = 0


VARIABLE = "null"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of MXNet's graph; ``operator`` is the canonical name, or ``"null"`` for a variable."""

    name: str
    operator: str
    inputs: tuple[Entry, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    subgraphs: tuple[Graph, ...] = ()

    @property
    def is_variable(self) -> bool:
        return self.operator == VARIABLE


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order, the entries that are its outputs, and NumPy shape semantics if asked for."""

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]
    output_names: tuple[str, ...]
    np_shape: bool = False

    @property
    def variables(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.is_variable)

    def reachable(self) -> list[int]:
        """The positions, in order, of the nodes that the heads need."""
        needed = [False] * len(self.nodes)
        for entry in self.heads:
            needed[entry.node] = True
        for index in range(len(self.nodes) - 1, -1, -1):
            if needed[index]:
                for entry in self.nodes[index].inputs:
                    needed[entry.node] = True
        return [index for index, wanted in enumerate(needed) if wanted]
