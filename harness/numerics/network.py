"""The error model for whole networks: a reference whose intermediate results are rounded too.

For one operator, ``response`` moves inputs and parameters. In a network each layer also rounds what it hands on, and
that error travels through all the layers behind it; so :func:`with_roundings` multiplies every intermediate result of
the graph by ``1 + u r`` with a fresh ``r`` in [-1, 1] (Monte Carlo arithmetic: Parker, *Monte Carlo Arithmetic*, UCLA
CSD-970002, 1997). Whole numbers stay: rounding does not move them, and indices, lengths and masks are such. ``response``
of that graph is the response of the network; nothing else of the model changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from ..graph import Entry, Graph, Node
from . import UNIT_ROUNDOFF

_SUMMING = ("Convolution", "Deconvolution", "FullyConnected", "dot", "batch_dot")


def with_roundings(
    graph: Graph, precision: str, is_float: Callable[[Entry], bool] = lambda entry: True, times: float = 1.0
) -> Graph:
    """The graph with a random rounding of ``precision`` behind each node; outputs keep their names and order.

    The result is meant for MXNet (``_random_uniform_like``): each run draws other roundings, of MXNet's own seed.

    Args:
        is_float: whether an output of a node is a float; the others are not rounded.
        times: the size of a rounding, in unit roundoffs.
    """
    unit = times * UNIT_ROUNDOFF[precision]
    nodes: list[Node] = []
    now: dict[Entry, Entry] = {}  # an entry of the old graph -> what takes its place

    def emit(name: str, operator: str, *inputs: Entry, **attributes: object) -> Entry:
        nodes.append(Node(name, operator, inputs, {key: str(value) for key, value in attributes.items()}))
        return Entry(len(nodes) - 1)

    wanted = {entry for node in graph.nodes for entry in node.inputs} | set(graph.heads)
    for index, node in enumerate(graph.nodes):
        sources = tuple(now[entry] for entry in node.inputs)
        nodes.append(Node(node.name, node.operator, sources, node.attributes, node.subgraphs))
        place = len(nodes) - 1
        for entry in sorted(entry for entry in wanted if entry.node == index):
            now[entry] = exact = Entry(place, entry.output)
            if not node.is_variable and is_float(entry):
                stem = f"{node.name}/rounding{entry.output}"
                noise = emit(f"{stem}/noise", "_random_uniform_like", exact, low=-1.0, high=1.0)
                factor = emit(
                    f"{stem}/factor",
                    "_plus_scalar",
                    emit(f"{stem}/unit", "_mul_scalar", noise, scalar=unit),
                    scalar=1.0,
                )
                moved = emit(f"{stem}/moved", "elemwise_mul", exact, factor)
                whole = emit(f"{stem}/whole", "_equal", exact, emit(f"{stem}/nearest", "rint", exact))
                now[entry] = emit(stem, "where", whole, exact, moved)
    return Graph(tuple(nodes), tuple(now[entry] for entry in graph.heads), graph.output_names, graph.np_shape)


def longest_sum(graph: Graph, params: Mapping[str, npt.NDArray[Any]]) -> int:
    """The most terms that one element of one layer adds up, from the weights of the layers: what ``k(n)`` is taken for."""
    longest = 1
    for node in graph.nodes:
        if node.operator in _SUMMING and len(node.inputs) > 1:
            weight = params.get(graph.nodes[node.inputs[1].node].name)
            if weight is not None:
                longest = max(longest, math.prod(weight.shape[1:]))
    return longest
