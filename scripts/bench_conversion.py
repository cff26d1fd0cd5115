"""How the time of a conversion grows with the graph: python -m scripts.bench_conversion

Graphs of several shapes and of up to 20,000 nodes are read, lowered, cut and written as typed ONNX. The figure is
processor time, which other processes do not stretch as they stretch time on the clock; all sizes take turns, round by
round, and of each the fastest round counts. Python's collector runs as it does for a user.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1_000, 2_500, 5_000, 10_000, 20_000)
ROUNDS = 5
Node = tuple[str, str, list[int], dict[str, str]]  # operator, name, inputs, attributes
Shape = tuple[list[Node], list[int], dict[str, np.ndarray], str]  # nodes, outputs, parameters, fallback
DATA: Node = ("null", "data", [], {})
RELU = {"act_type": "relu"}


def chain(count: int) -> Shape:
    """Blocks of a residual network: scale by a parameter, relu, add what was there two nodes before."""
    nodes: list[Node] = [DATA, ("null", "scale", [], {})]
    last, skip = 0, 0
    for number in range(count):
        if number % 3 == 0:
            nodes.append(("broadcast_mul", f"n{number}", [last, 1], {}))
        elif number % 3 == 1:
            nodes.append(("Activation", f"n{number}", [last], RELU))
        else:
            nodes.append(("elemwise_add", f"n{number}", [last, skip], {}))
            skip = len(nodes) - 1
        last = len(nodes) - 1
    return nodes, [last], {"scale": np.ones((1, 8), np.float32)}, "error"


def fan(count: int) -> Shape:
    """Everybody reads the input, and one node reads everybody."""
    nodes = [DATA, *(("Activation", f"n{number}", [0], RELU) for number in range(count - 1))]
    nodes.append(("add_n", "sum", list(range(1, count)), {"num_args": str(count - 1)}))
    return nodes, [count], {}, "error"


def outputs(count: int) -> Shape:
    """Every node is an output."""
    nodes = [DATA, *(("Activation", f"n{number}", [0], RELU) for number in range(count))]
    return nodes, list(range(1, count + 1)), {}, "error"


def parameters(count: int) -> Shape:
    """A chain in which every node has a parameter of its own."""
    nodes: list[Node] = [DATA]
    last = 0
    for number in range(count):
        nodes.append(("null", f"w{number}", [], {}))
        nodes.append(("broadcast_add", f"n{number}", [last, len(nodes) - 1], {}))
        last = len(nodes) - 1
    return nodes, [last], {f"w{number}": np.full((1, 8), number, np.float32) for number in range(count)}, "error"


def alternating(count: int) -> Shape:
    """A chain in which every other node is MXNet's: as many parts as nodes."""
    nodes: list[Node] = [DATA]
    for number in range(count):
        operator, attributes = ("_random_normal_like", {}) if number % 2 else ("Activation", RELU)
        nodes.append((operator, f"n{number}", [len(nodes) - 1], attributes))
    return nodes, [count], {}, "mxnet"


SHAPES: dict[str, Callable[[int], Shape]] = {
    "a chain": chain,
    "a fan": fan,
    "all outputs": outputs,
    "a parameter each": parameters,
    "engines alternating": alternating,
}


class Anything:
    """An engine that refuses nothing, so that none is imported."""

    name, narrow_types = "any", ()

    def check_options(self, options: Mapping[str, Any]) -> None:
        pass

    def refuse(self, fragment: Any) -> str | None:
        return None


def document(nodes: Sequence[Node], heads: Sequence[int]) -> str:
    """MXNet's JSON."""
    items = [
        {"op": operator, "name": name, "inputs": [[i, 0, 0] for i in inputs], "attrs": attributes}
        for operator, name, inputs, attributes in nodes
    ]
    variables = [index for index, node in enumerate(nodes) if node[0] == "null"]
    return json.dumps(
        {"nodes": items, "arg_nodes": variables, "heads": [[head, 0, 0] for head in heads],
         "attrs": {"mxnet_version": ["int", 10901]}}
    )  # fmt: skip


def measure(shape: Callable[[int], Shape], sizes: Sequence[int], rounds: int) -> list[float]:
    """Seconds of processor time for each size."""
    from harness.compiler import plan

    found: list[list[float]] = [[] for _ in sizes]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.json"
        for number in range(-1, rounds):
            for place, size in enumerate(sizes if number >= 0 else sizes[:1]):  # the first is for what is imported
                nodes, heads, params, fallback = shape(size)
                path.write_text(document(nodes, heads))
                start = time.process_time()
                plan(str(path), params, {"data": (2, 8)}, engine=Anything(), fallback=fallback)  # type: ignore[arg-type]
                if number >= 0:
                    found[place].append(time.process_time() - start)
    return [min(times) for times in found]


def results(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Shape -> seconds at each size, and time per node of the longest over that of the shortest; the worst shape."""
    seconds = {name: measure(shape, sizes, rounds) for name, shape in SHAPES.items()}
    growth = {name: times[-1] / sizes[-1] / (times[0] / sizes[0]) for name, times in seconds.items()}
    worst = max(growth, key=lambda name: growth[name])
    return {"sizes": list(sizes), "seconds": seconds, "growth": growth, "worst": worst}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Microseconds a node against nodes, a line for each shape: level lines are linear time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, times in found["seconds"].items():
        axes.plot(found["sizes"], [1e6 * s / n for s, n in zip(times, found["sizes"])], "o-", label=name)
    axes.set(xlabel="nodes", ylabel="processor time, microseconds a node", title="Conversion to typed ONNX")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize="small", ncols=2)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    given = parser.parse_args()
    print(json.dumps(results(given.sizes, given.rounds), indent=1))


if __name__ == "__main__":
    main()
