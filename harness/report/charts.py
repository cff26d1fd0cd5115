"""The report's pictures, as SVG text made by matplotlib; letters stay text, so they are small and can be searched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .collect import History

_BLUE, _ORANGE, _GREY, _RED = "#2563a8", "#c2571a", "#8a94a0", "#b3261e"
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "mxtrt", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": _GREY, "xtick.color": "#444", "ytick.color": "#444",
}  # fmt: skip


def speed_chart(rows: Sequence[Mapping[str, Any]], where: str) -> str:
    """A bar per network: how many times as fast as MXNet, with its interval; the line at 1 is MXNet."""
    ordered = sorted(rows, key=lambda row: row["ratio"])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 0.9 + 0.19 * len(ordered)), layout="constrained")
        axes = figure.add_subplot()
        places = np.arange(len(ordered))
        ratios = np.array([row["ratio"] for row in ordered])
        errors = np.array([[row["ratio"] - row["low"], row["high"] - row["ratio"]] for row in ordered]).T.clip(0)
        colours = [_BLUE if ratio >= 1 else _ORANGE for ratio in ratios]
        axes.barh(
            places, ratios, xerr=errors, color=colours, height=0.7, error_kw={"ecolor": "#333", "elinewidth": 0.8}
        )
        axes.axvline(1, color="#333", linewidth=0.8, linestyle="--")
        axes.set_yticks(places, [row["network"] for row in ordered])
        axes.set_xlabel("times as fast as MXNet 1.9.1 (1 = MXNet), 95 % interval")
        axes.set_title(f"Compiled model against MXNet, {where}", loc="left", fontsize=10)
        axes.margins(y=0.01)
        return _svg(figure)


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
    """Latency over sessions, the latest baseline's band, and the change points."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 1.8), layout="constrained")
        axes = figure.add_subplot()
        values = [value * 1e3 for _, _, value in history.points]
        axes.axhspan(*(bound * 1e3 for bound in history.band), color=_BLUE, alpha=0.12, linewidth=0)
        axes.plot(values, color=_BLUE, marker="o", markersize=2.5, linewidth=1)
        for change in history.changes:
            axes.axvline(change.index - 0.5, color=_RED if change.change > 0 else "#2f7d5b", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("ms")
        axes.set_xlabel("stored sessions, oldest first")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text
