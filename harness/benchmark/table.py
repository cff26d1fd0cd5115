"""The terminal's tables: what was measured, and the verdicts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..explain import table
from .baseline import Row
from .verdict import Decision, Verdict

STYLES = {
    Verdict.SLOWER: "bold red", Verdict.FASTER: "bold green", Verdict.SAME: "green", Verdict.AMBIGUOUS: "yellow",
    Verdict.INCOMPARABLE: "yellow",
}  # fmt: skip
_WIDTH = 150  # of tables that do not go to a terminal
_MEANING = {
    Verdict.SLOWER: "the whole interval is above the smallest effect that matters",
    Verdict.AMBIGUOUS: "the runs cannot tell: more of them would",
    Verdict.INCOMPARABLE: "not the same hardware, libraries or state: neither good nor bad",
}


def console() -> Console:
    """For stdout, of a width that does not depend on where it goes."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def seconds(value: Any) -> str:
    """With a unit that leaves three or four digits to read."""
    if value is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{value * factor:.4g} {unit}"
    return f"{value * 1e9:.3g} ns"


def measurement(cells: Mapping[str, Mapping[str, Any]], decision: Decision | None, metric: str) -> Table:
    """Each side's figures, medians over its runs, and the verdict on the second."""
    columns = ("side", "runs", "median", "p90", "p99", "items/s", "first answer", "peak memory", "verdict")
    rows: list[list[Any]] = []
    for name, cell in cells.items():
        figures = [seconds(cell[key]) for key in ("median", "p90", "p99")]
        memory = f"{cell['peak_rss'] / 2**20:.0f} MiB"
        rows.append(
            [name, len(cell["runs"]), *figures, f"{cell['throughput']:.4g}", seconds(cell["first_answer"]), memory, ""]
        )
    if decision is not None:
        rows[-1][-1] = Text(str(decision), STYLES[decision.verdict])
    phases = [f"{name}: " + ", ".join(f"{phase} {seconds(cell[phase]['median'])}" for phase in ("enqueue", "h2d", "compute", "d2h"))
              for name, cell in cells.items() if "compute" in cell]  # fmt: skip
    found = table(f"Latency ({metric} decides; each run is a process)", columns, rows)
    found.caption = Text("\n".join(phases)) if phases else None
    return found


def comparison(baseline: str, rows: Sequence[Row]) -> Table:
    """Verdicts, the worst first."""
    order = list(STYLES)
    cells = []
    for row in sorted(rows, key=lambda one: (order.index(one.decision.verdict), -one.decision.ratio)):
        decision = row.decision
        known = decision.ratio == decision.ratio
        cells.append([
            Text(decision.verdict.value, STYLES[decision.verdict]), row.name.rpartition("::")[2] or row.name,
            seconds(row.baseline.get("median")), seconds(row.candidate.get("median")),
            f"{decision.ratio:.3f}x" if known else "", f"{decision.low:.3f} to {decision.high:.3f}" if known else "",
            "; ".join(decision.reasons),
        ])  # fmt: skip
    columns = ("verdict", "benchmark", "baseline", "now", "ratio", "98 % interval", "why")
    return table(f"Against {baseline}", columns, cells)


def verdict_lines(rows: Sequence[Row], commit: str) -> str:
    """The count of each verdict, what the unusual ones mean, and what to do next."""
    counts = Counter(row.decision.verdict for row in rows)
    lines = [
        ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in STYLES if counts[verdict]) or "nothing to compare"
    ]
    lines += [f"{verdict.value}: {text}" for verdict, text in _MEANING.items() if counts[verdict]]
    doubtful = counts[Verdict.SLOWER] + counts[Verdict.AMBIGUOUS] + counts[Verdict.INCOMPARABLE]
    if doubtful and commit and commit != "unknown":
        lines.append(f"to decide with both sides run in turns: mxtrt bench MODEL,commit={commit[:12]} commit=HEAD")
    return "\n".join(lines)
