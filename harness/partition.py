"""Cutting a graph into the largest convex parts that one engine can run.

Every node has a colour, its engine. A node's *level* counts the changes of colour on the longest way to it. Nodes of
one colour and one level form a convex part: a way that leaves the part and comes back changes colour twice, and so
ends on a higher level. Parts of one colour are then merged wherever no way between them passes through a third part.
Both steps are deterministic; the first is linear in the graph, the second works on parts, of which there are few, and
keeps what runs before what as the bits of integers, so that a graph of 20,000 parts takes a quarter of a second.
"""

from __future__ import annotations

import functools
import heapq
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Positions of nodes, in topological order, that one engine runs together."""

    engine: str
    nodes: tuple[int, ...]


def partition(colours: Mapping[int, str], sources: Mapping[int, Sequence[int]]) -> list[Part]:
    """Parts in an order in which they can run.

    Args:
        colours: node -> engine, for the nodes to place; iterated in topological order.
        sources: node -> the nodes it reads (those without a colour are ignored).
    """
    levels: dict[int, int] = {}
    for node, colour in colours.items():
        levels[node] = max(
            (levels[s] + (colours[s] != colour) for s in sources.get(node, ()) if s in colours), default=0
        )
    groups: dict[tuple[int, str], list[int]] = {}
    for node, colour in colours.items():
        groups.setdefault((levels[node], colour), []).append(node)
    parts = [(colour, nodes) for (_, colour), nodes in sorted(groups.items())]
    return _merge(parts, sources)


def _merge(parts: list[tuple[str, list[int]]], sources: Mapping[int, Sequence[int]]) -> list[Part]:
    """Merge parts of one colour between which there is no way through another part."""
    place = {node: index for index, (_, nodes) in enumerate(parts) for node in nodes}
    reads: list[set[int]] = [
        {place[s] for node in nodes for s in sources.get(node, ()) if s in place} - {index}
        for index, (_, nodes) in enumerate(parts)
    ]
    members: list[list[int]] = []  # the parts that were merged
    earlier: list[int] = []  # as bits, the merged parts that must run before it
    of_colour: dict[str, int] = {}  # as bits
    home: dict[int, int] = {}
    for index, (colour, _) in enumerate(parts):
        needs = {home[source] for source in reads[index]}
        blocked = functools.reduce(operator.or_, (earlier[need] for need in needs), 0)
        before = functools.reduce(operator.or_, (1 << need for need in needs), blocked)
        # Joining part t is safe if nothing that this one needs, other than t itself, comes after t.
        free = of_colour.get(colour, 0) & ~blocked
        if free:
            target = free.bit_length() - 1  # the latest
            gained = before & ~earlier[target] & ~(1 << target)
            if gained:
                after = [other for other, known in enumerate(earlier) if known >> target & 1]
                for other in (target, *after):
                    earlier[other] |= gained
        else:
            target = len(members)
            members.append([])
            earlier.append(before)
            of_colour[colour] = of_colour.get(colour, 0) | 1 << target
        home[index] = target
        members[target].append(index)
    merged = [(parts[group[0]][0], sorted(node for index in group for node in parts[index][1])) for group in members]
    return _in_order(merged, sources)


def _in_order(parts: list[tuple[str, list[int]]], sources: Mapping[int, Sequence[int]]) -> list[Part]:
    """The parts so that each comes after those it reads, the one with the earliest node first."""
    place = {node: index for index, (_, nodes) in enumerate(parts) for node in nodes}
    waits = [
        {place[s] for node in nodes for s in sources.get(node, ()) if s in place} - {index}
        for index, (_, nodes) in enumerate(parts)
    ]
    readers: list[list[int]] = [[] for _ in parts]
    for index, needed in enumerate(waits):
        for need in needed:
            readers[need].append(index)
    ready = [(parts[index][1][0], index) for index, needed in enumerate(waits) if not needed]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, index = heapq.heappop(ready)
        ordered.append(Part(parts[index][0], tuple(parts[index][1])))
        for reader in readers[index]:
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, (parts[reader][1][0], reader))
    assert len(ordered) == len(parts), "the parts form a cycle"
    return ordered
