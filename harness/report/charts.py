"""The report's pictures, as SVG text made by matplotlib; letters stay text, so they are small and can be searched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .collect import History

_BLUE, _ORANGE, _GREY, _RED = "#2563a8", "#c2571a", "#8a94a0", "#b3261e"
_CARD = "#fbfaf7"
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "mxtrt", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": _GREY, "axes.facecolor": "none", "xtick.color": "#444", "ytick.color": "#444",
}  # fmt: skip


_FAMILIES = (
    ("VGG", r"^vgg"),
    ("ResNet v1", r"^resnet\d+_v1$"),
    ("ResNet v2", r"^resnet\d+_v2$"),
    ("MobileNet", r"^mobilenet"),
    ("others of Gluon's zoo", r"^(alexnet|densenet|squeezenet|inceptionv3)"),
    ("GluonCV", r""),
)


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by heading: families at batch 1 in fp32, then the other precisions and batches."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name, _ in _FAMILIES}
    for row in rows:
        heading = next(name for name, pattern in _FAMILIES if re.search(pattern, row["network"]))
        if row["precision"] != "fp32":
            heading = f"{row['precision']}, MXNet in fp32"
        elif row["batch"] != 1:
            heading = f"batch {row['batch']}"
        found.setdefault(heading, []).append(row)
    return {heading: members for heading, members in found.items() if members}


def speed_picture(document: Mapping[str, Any], card: bool = True) -> str:
    """What scripts/bench_zoo.py stored: per network how many times as fast as MXNet, peak memory, and build time.

    Args:
        card: on a ground of its own, so that it can be read wherever it is shown; else transparent.
    """
    rows = [row for row in document["measured"] if "error" not in row]
    places, labels, heads, shown = [], [], [], []
    place = 0.0
    for heading, members in _groups(rows).items():
        heads.append((place, heading))
        for member in members:
            place += 1
            places.append(place)
            labels.append(member["network"])
            shown.append(member)
        place += 1.6
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 1.1 + 0.17 * place), layout="constrained")
        if card:
            figure.set_facecolor(_CARD)
        ratio, memory, build = figure.subplots(1, 3, sharey=True, width_ratios=(5, 2.2, 1.4))
        _ratios(ratio, places, shown)
        _memories(memory, places, shown)
        build.plot([row["compile_seconds"] for row in shown], places, "o", color=_BLUE, markersize=3.5)
        build.set_xlim(left=0)
        build.set_title("build, s", loc="left", fontsize=9)
        ratio.set_yticks(places, labels)
        ratio.set_ylim(place - 0.6, -0.9)
        for at, heading in heads:
            ratio.annotate(heading, (0, at), xycoords=("axes fraction", "data"), xytext=(-6, 0), ha="right", va="center",
                           textcoords="offset points", fontweight="bold", fontsize=9, annotation_clip=False)  # fmt: skip
        for axes in (ratio, memory, build):
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=_GREY, alpha=0.25, linewidth=0.6)
            axes.set_axisbelow(True)
        where = document["machine"]
        figure.suptitle(f"Compiled models against MXNet 1.9.1: {where['cpu']}, {where['cores']} cores, ONNX Runtime {where['onnxruntime']}",
                        x=0.01, ha="left", fontsize=10)  # fmt: skip
        return _svg(figure, transparent=not card)


def _ratios(axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    """Bars from 1 on a logarithmic scale: to the right is faster than MXNet's executor; a ring is over Gluon."""
    values, low, high = (np.array([row["mxnet"][key] for row in rows]) for key in ("ratio", "low", "high"))
    gluon = np.array([row["gluon"]["ratio"] for row in rows])
    colours = np.where(values >= 1, _BLUE, _ORANGE)
    axes.set_xscale("log", base=2)
    axes.barh(places, values - 1, left=1, height=0.62, color=colours)
    axes.errorbar(values, places, xerr=np.array([values - low, high - values]).clip(0), fmt="none", ecolor="#20242a", elinewidth=0.8)  # fmt: skip
    axes.plot(gluon, places, "o", markerfacecolor="none", markeredgecolor=_GREY, markersize=4.5, markeredgewidth=1)
    axes.axvline(1, color="#20242a", linewidth=0.9)
    axes.set_xlim(min(0.7, low.min() * 0.9), max(2.0, gluon.max(), high.max()) * 1.15)
    ticks = [tick for tick in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]  # fmt: skip
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_title("times as fast as MXNet: bar its executor, ring Gluon", loc="left", fontsize=9)


def _memories(axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    """Two dots a row: peak memory of a process of ours, and of MXNet's."""
    ours, theirs = (np.array([row[key] for row in rows]) / 2**20 for key in ("memory", "mxnet_memory"))
    axes.hlines(places, ours, theirs, color=_GREY, linewidth=1)
    axes.plot(theirs, places, "o", markerfacecolor="none", markeredgecolor=_GREY, markersize=4.5)
    axes.plot(ours, places, "o", color=_BLUE, markersize=3.5)
    axes.set_xlim(left=0)
    axes.set_title("peak MiB, ring MXNet", loc="left", fontsize=9)


def headroom_chart(values: Sequence[float]) -> str:
    """How much of its bound each answer uses: right of 1 is wrong."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 2.4), layout="constrained")
        axes = figure.add_subplot()
        shown = np.clip(values, 1e-6, 1e3)
        axes.hist(shown, bins=np.logspace(-6, 3, 55).tolist(), color=_BLUE)
        axes.axvline(1, color=_RED, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("error as a share of its bound (right of the line: wrong)")
        axes.set_ylabel("answers")
        return _svg(figure)


def history_chart(history: History) -> str:
    """Latency over sessions, the latest baseline's band, the change points, and beside it the throughput."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 1.8), layout="constrained")
        both = bool(history.throughput)
        panels: Any = figure.subplots(1, 2 if both else 1, width_ratios=(3, 2) if both else None, squeeze=False)[0]
        latency = panels[0]
        values = [value * 1e3 for _, _, value in history.points]
        latency.axhspan(*(bound * 1e3 for bound in history.band), color=_BLUE, alpha=0.12, linewidth=0)
        latency.plot(values, color=_BLUE, marker="o", markersize=2.5, linewidth=1)
        for change in history.changes:
            latency.axvline(change.index - 0.5, color=_RED if change.change > 0 else "#2f7d5b", linewidth=1)
        latency.set_title("latency, ms", loc="left", fontsize=9)
        if both:
            panels[1].plot(history.throughput, color=_GREY, marker="o", markersize=2.5, linewidth=1)
            panels[1].set_title("items per second", loc="left", fontsize=9)
        for axes, most in zip(panels, (max([*values, history.band[1] * 1e3]), max(history.throughput, default=1))):
            axes.set_ylim(0, most * 1.15)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        latency.set_xlabel("stored sessions, oldest first")
        return _svg(figure)


def _svg(figure: Figure, transparent: bool = True) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text
