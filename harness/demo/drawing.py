"""The demo's two drawings as SVG text: the graph with its segments, and the distribution of the latencies."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape

import numpy as np

from ..graph import Graph, Node
from ..model import Model
from .timing import Timing

COLOURS = {"onnxruntime": "#2563a8", "tensorrt": "#4c8a1f", "tensorrt_rtx": "#2f7d5b", "mxnet": "#c2571a"}
_COLUMNS, _WIDTH, _HEIGHT, _STEP_X, _STEP_Y, _MARGIN = 10, 92, 26, 106, 52, 16
_SHORT = {
    "BatchNorm": "norm",
    "Pad": "pad",
    "elemwise_add": "+",
    "FullyConnected": "dense",
    "Flatten": "flatten",
    "Activation": "activation",
}


@dataclass(frozen=True, slots=True)
class _Place:
    row: int
    column: int

    @property
    def left(self) -> int:
        return _MARGIN + self.column * _STEP_X

    @property
    def middle(self) -> float:
        return _MARGIN + self.row * _STEP_Y + _HEIGHT / 2


def draw_graph(graph: Graph, model: Model) -> str:
    """The network, a row per block: boxes are nodes, the band behind them is the segment, dashed is removed."""
    nodes = {i: graph.nodes[i] for i in graph.reachable() if not graph.nodes[i].is_variable}
    sources = {i: [e.node for e in node.inputs if e.node in nodes] for i, node in nodes.items()}
    places = _place(sources)
    segment_of = {name: number for number, segment in enumerate(model.segments) for name in segment.nodes}
    rows = max(place.row for place in places.values()) + 1
    parts = [*_bands(nodes, places, segment_of, model)]
    parts += [_edge(places[s], places[i]) for i in nodes for s in sources[i]]
    parts += [_box(node, places[i], segment_of.get(node.name), model) for i, node in nodes.items()]
    width, height = 2 * _MARGIN + _COLUMNS * _STEP_X, 2 * _MARGIN + rows * _STEP_Y
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="The graph of {len(nodes)} nodes in '
        f'{len(model.segments)} segments" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _place(sources: dict[int, list[int]]) -> dict[int, _Place]:
    """A row ends at a node that joins two ways, that two nodes read, or when it is full."""
    readers: dict[int, int] = {}
    for read in sources.values():
        for source in read:
            readers[source] = readers.get(source, 0) + 1
    places, row, column = {}, 0, 0
    for node, read in sources.items():
        places[node] = _Place(row, column)
        column += 1
        if len(read) > 1 or readers.get(node, 0) > 1 or column == _COLUMNS:
            row, column = row + 1, 0
    return places


def _bands(nodes: dict[int, Node], places: dict[int, _Place], segment_of: dict[str, int], model: Model) -> list[str]:
    """Behind each run of neighbours of one segment."""
    runs: list[tuple[int, _Place, _Place]] = []
    for index, node in nodes.items():
        segment, place = segment_of.get(node.name), places[index]
        if segment is None:
            continue
        if runs and runs[-1][0] == segment and runs[-1][2].row == place.row:
            runs[-1] = (segment, runs[-1][1], place)
        else:
            runs.append((segment, place, place))
    return [
        f'<rect x="{first.left - 7}" y="{first.middle - _HEIGHT / 2 - 7}" width="{last.left - first.left + _WIDTH + 14}" '
        f'height="{_HEIGHT + 14}" rx="9" fill="{_colour(model, segment)}" fill-opacity=".13"/>'
        for segment, first, last in runs
    ]


def _edge(start: _Place, end: _Place) -> str:
    x1, y1, x2, y2 = start.left + _WIDTH, start.middle, end.left, end.middle
    if start.row == end.row and end.column == start.column + 1:
        path = f"M{x1} {y1}H{x2}"
    elif end.column == 0 and end.row == start.row + 1:  # down between the rows, and back to the left
        gap = y1 + _STEP_Y / 2
        path = f"M{x1} {y1}h6V{gap}H{x2 - 11}V{y2}H{x2}"
    else:  # a way round: down on the right
        right = max(start.left, end.left) + _WIDTH + 11
        path = f"M{x1} {y1}H{right}V{y2}H{end.left + _WIDTH}"
    return f'<path d="{path}" fill="none" stroke="#8a94a3" stroke-width="1.4"/>'


def _box(node: Node, place: _Place, segment: int | None, model: Model) -> str:
    label, top = _label(node), place.middle - _HEIGHT / 2
    style = (
        'fill="#fff" stroke="#8a94a3" stroke-dasharray="4 3"'
        if segment is None
        else f'fill="#fff" stroke="{_colour(model, segment)}" stroke-width="1.4"'
    )
    where = "needs no computation" if segment is None else f"segment {segment}, {model.segments[segment].engine}"
    title = escape(f"{node.name}: {node.operator} ({where})")
    return (
        f'<g><title>{title}</title><rect x="{place.left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" {style}/>'
        f'<text x="{place.left + _WIDTH / 2}" y="{place.middle + 4}" text-anchor="middle" font-size="12" '
        f'fill="#1c2430">{escape(label)}</text></g>'
    )


def _label(node: Node) -> str:
    attributes = node.attributes
    if node.operator == "Convolution":
        kernel = "×".join(re.findall(r"\d+", attributes.get("kernel", "")))
        kind = "depth" if int(attributes.get("num_group", "1")) > 1 else "conv"
        stride = max((int(s) for s in re.findall(r"\d+", attributes.get("stride", ""))), default=1)
        return f"{kind} {kernel}" + (f" /{stride}" if stride > 1 else "")
    if node.operator == "clip":
        return f"clip {float(attributes['a_min']):g}…{float(attributes['a_max']):g}"
    if node.operator == "Pooling":
        return f"{attributes.get('pool_type', 'max')} pool"
    return _SHORT.get(node.operator, node.operator)[:14]


def _colour(model: Model, segment: int) -> str:
    return COLOURS.get(model.segments[segment].engine, "#555555")


def draw_latency(timing: Timing) -> str:
    """Every run as a dot above its distribution; the line is the median."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sides = (("compiled", timing.compiled.ravel(), "#2563a8"), ("MXNet", timing.mxnet.ravel(), "#c2571a"))
    scatter = np.random.default_rng(0)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mxtrt", "font.size": 9, "font.family": "sans-serif"}):
        figure, axes = plt.subplots(figsize=(4.3, 2.5), layout="constrained")
        for row, (_, times, colour) in enumerate(sides):
            shape = axes.violinplot([times], [row], orientation="horizontal", widths=0.8, showextrema=False)
            for body in shape["bodies"]:  # type: ignore[attr-defined]
                body.set(facecolor=colour, alpha=0.22)
            axes.plot(times, row + scatter.uniform(-0.13, 0.13, times.size), ".", color=colour, markersize=3, alpha=0.7)
            median = float(np.median(times))
            axes.plot([median, median], [row - 0.32, row + 0.32], color=colour, linewidth=2)
            axes.annotate(
                f"{median:.1f} ms", (median, row + 0.34), ha="center", va="bottom", color=colour, weight="bold"
            )
        axes.set_yticks([0, 1], [name for name, _, _ in sides])
        axes.set_ylim(-0.5, 1.65)
        slowest = max(float(np.quantile(times, 0.98)) for _, times, _ in sides)
        axes.set_xlim(0, slowest * 1.1)
        axes.set_xlabel("milliseconds per photograph")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        plt.close(figure)
    text = file.getvalue()
    return text[text.index("<svg") :]
