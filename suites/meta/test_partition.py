"""Cutting a graph: every node once, parts that can run one after the other, none that could be joined with another."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from harness.partition import Part, partition

Graph = tuple[dict[int, str], dict[int, list[int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Nodes in topological order, each with an engine (or none: a variable) and what it reads."""
    count = draw(st.integers(0, 24))
    engines = draw(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=count, max_size=count))
    sources = {n: draw(st.lists(st.integers(0, n - 1), max_size=3)) if n else [] for n in range(count)}
    return {n: engine for n, engine in enumerate(engines) if engine}, sources


def reach(parts: list[Part], sources: dict[int, list[int]]) -> list[set[int]]:
    """Of each part, the parts that it needs, directly or not."""
    place = {node: number for number, part in enumerate(parts) for node in part.nodes}
    needs: list[set[int]] = []
    for number, part in enumerate(parts):
        direct = {place[s] for n in part.nodes for s in sources[n] if s in place} - {number}
        assert all(other < number for other in direct), "a part needs one that runs after it"
        needs.append(direct.union(*(needs[other] for other in direct)))
    return needs


@given(graphs())
def test_every_node_once_in_parts_that_can_run(graph: Graph) -> None:
    colours, sources = graph
    parts = partition(colours, sources)
    assert sorted(node for part in parts for node in part.nodes) == sorted(colours)
    assert all(colours[node] == part.engine for part in parts for node in part.nodes)
    assert all(list(part.nodes) == sorted(part.nodes) for part in parts)
    reach(parts, sources)  # convex: a way out of a part and back would make it need itself
    assert partition(dict(colours), sources) == parts


@given(graphs())
def test_a_graph_of_one_engine_is_one_part(graph: Graph) -> None:
    colours, sources = graph
    one = partition(dict.fromkeys(colours, "a"), sources)
    assert len(one) == bool(colours)


@given(graphs())
def test_no_part_could_join_the_one_before(graph: Graph) -> None:
    """Of two parts of one engine of which nothing between needs one and is needed by the other, one is too many."""
    colours, sources = graph
    parts = partition(colours, sources)
    needs = reach(parts, sources)
    for last, part in enumerate(parts):
        for first in range(last):
            between = [n for n in range(first + 1, last) if first in needs[n] and n in needs[last]]
            assert part.engine != parts[first].engine or between


def test_twenty_thousand_parts_are_no_trouble() -> None:
    """A chain whose engines alternate: nothing can be joined. Processor time; cubic work would take days."""
    count = 20_000
    colours = {n: "ab"[n % 2] for n in range(count)}
    start = time.process_time()
    assert len(partition(colours, {n: [n - 1] if n else [] for n in range(count)})) == count
    assert time.process_time() - start < 10
