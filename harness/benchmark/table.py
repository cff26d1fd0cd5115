"""The terminal's tables: what was measured, and the verdicts."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..explain import table
from .baseline import Row
from .sides import ENGINES
from .verdict import Decision, Verdict, coefficient_of_variation

STYLES = {
    Verdict.SLOWER: "bold red", Verdict.FASTER: "bold green", Verdict.SAME: "green", Verdict.AMBIGUOUS: "yellow",
    Verdict.INCOMPARABLE: "yellow",
}  # fmt: skip
WIDTH = 80  # of tables that do not go to a terminal
_MEANING = {
    Verdict.SLOWER: "the whole interval is above the smallest effect that matters",
    Verdict.AMBIGUOUS: "the runs cannot tell: more of them would",
    Verdict.INCOMPARABLE: "not the same hardware, libraries or state: neither good nor bad",
}


def console() -> Console:
    """For stdout, of a width that does not depend on where it goes."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def seconds(value: Any) -> str:
    """With a unit that leaves three or four digits to read."""
    if value is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{value * factor:.4g} {unit}"
    return f"{value * 1e9:.3g} ns"


def measurement(
    labels: Mapping[str, str], cells: Mapping[str, Mapping[str, Any]], decisions: Mapping[tuple[str, str], Decision],
    metric: str,
) -> Group:  # fmt: skip
    """Each side's figures, medians over its runs, and a sentence for each pair (candidate, baseline)."""
    rows = [
        [
            key, *(seconds(cell[name]) for name in ("median", "p90", "p99")), f"{cell['throughput']:.4g}",
            seconds(cell["first_answer"]), mebibytes(cell["peak_rss"]),
        ]
        for key, cell in cells.items()
    ]  # fmt: skip
    runs = len(next(iter(cells.values()))["runs"])
    columns = ("side", "median", "p90", "p99", "items/s", "first answer", "memory")
    found = right_aligned(table(f"Latency: {runs} runs a side, each a process", columns, rows), 1)
    phases = [f"{name}: " + ", ".join(f"{phase} {seconds(cell[phase]['median'])}" for phase in ("enqueue", "h2d", "compute", "d2h"))
              for name, cell in cells.items() if "compute" in cell]  # fmt: skip
    names = [f"{key}: {text}" for key, text in labels.items()]
    what = "" if metric == "median" else f" in {metric}"
    verdicts = [sentence(candidate, base, one, what) for (candidate, base), one in decisions.items()]
    return Group(*map(Text, names), Text(), found, *map(Text, phases), *([Text(), *verdicts] if verdicts else []))


def first_answers(
    name: str, cells: Mapping[str, Mapping[str, Any]], decisions: Mapping[tuple[str, str], Decision]
) -> Group:
    """The time to the first answer of each way, and its ratio to the first one's."""
    rows: list[list[Any]] = []
    for key, cell in cells.items():
        decision = next((one for (candidate, _), one in decisions.items() if candidate == key), None)
        shown = Text("") if decision is None else Text(f"{decision.ratio:.2f}x {decision.verdict.value}", STYLES[decision.verdict])  # fmt: skip
        rows.append([key, seconds(cell["setup"]), seconds(cell["first_answer"]), mebibytes(cell["peak_rss"]), shown])
    runs = len(next(iter(cells.values()))["runs"])
    columns = ("from", "ready", "first answer", "memory", "against the first")
    found = right_aligned(table(f"Time to the first answer: {runs} new processes each", columns, rows), 1)
    return Group(Text(name), Text(), found)


def right_aligned(found: Table, first: int) -> Table:
    """Columns of figures from ``first`` on: to the right, and on one line."""
    for column in found.columns[first:]:
        column.justify, column.no_wrap = "right", True
    return found


def sentence(candidate: str, base: str, decision: Decision, what: str = "") -> Text:
    """A decision in words."""
    known = decision.ratio == decision.ratio
    figures = f"  {decision.ratio:.3f}x the time [{decision.low:.3f}, {decision.high:.3f}]" if known else ""
    why = f"  ({'; '.join(decision.reasons)})" if decision.reasons else ""
    return Text.assemble(
        f"{candidate} against {base}{what}: ", (decision.verdict.value, STYLES[decision.verdict]), figures, why
    )


def mebibytes(size: float) -> str:
    """Bytes for the reader."""
    return f"{size / 2**20:.0f} MiB"


def comparison(baseline: str, rows: Sequence[Row]) -> Group:
    """The count of each verdict, the verdicts with the worst first, and the reasons of those that are none."""
    order = list(STYLES)
    ranked = sorted(rows, key=lambda one: (order.index(one.decision.verdict), -one.decision.ratio))
    names = short_names([row.name for row in ranked])
    cells = []
    for row, name in zip(ranked, names):
        decision = row.decision
        known = decision.ratio == decision.ratio
        cells.append([
            Text(decision.verdict.value, STYLES[decision.verdict]), name, seconds(_figure(row.baseline)),
            seconds(_figure(row.candidate)), f"{decision.ratio:.3f}" if known else "",
            f"{decision.low:.3f}-{decision.high:.3f}" if known else "",
        ])  # fmt: skip
    columns = ("verdict", "benchmark", "before", "now", "ratio", "98 % interval")
    found = right_aligned(table(f"Against {baseline}", columns, cells), 2)
    counts = Counter(row.decision.verdict for row in rows)
    said = Text(", ").join(Text(f"{counts[one]} {one.value}", STYLES[one]) for one in order if counts[one])
    return Group(
        said if rows else Text("nothing to compare"), Text(), found, *(Text(line) for line in _reasons(ranked, names))
    )


def speeds(cells: Mapping[str, Mapping[str, Any]]) -> Table:
    """What a session measured, without anything to hold it against."""
    rows = [
        [
            name, seconds(_figure(cell)), f"{coefficient_of_variation(cell['runs']):.1%}",
            f"{cell['throughput']:.4g}" if cell.get("throughput") else "", mebibytes(cell.get("peak_rss") or 0),
        ]
        for name, cell in zip(short_names(list(cells)), cells.values())
    ]  # fmt: skip
    columns = ("benchmark", "median", "between runs", "items/s", "memory")
    return right_aligned(table("Each the median of its runs", columns, rows), 1)


def _figure(cell: Mapping[str, Any]) -> Any:
    return cell.get(cell.get("metric", "median"))


def short_names(names: Sequence[str]) -> list[str]:
    """Benchmarks' names without file and test, and without the engine where all have the same; they break at spaces."""
    split = [_words(name) for name in names]
    shared = {word for word in ENGINES if all(word in words for words in split)} if len(split) > 1 else set()
    return [" ".join(word for word in words if word not in shared) for words in split]


def _words(name: str) -> list[str]:
    test, bracket, parameters = (name.rpartition("::")[2] or name).partition("[")
    if not bracket:
        return [test]
    what = [] if test == "test_latency" else [test.removeprefix("test_").replace("_", " ") + ":"]
    return [*what, *parameters.removesuffix("]").split("-")]


def _reasons(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Each kind of reason once, with the benchmarks it is of; figures in it are those of the first."""
    found: dict[str, tuple[str, list[str]]] = {}
    for row, name in zip(rows, names):
        for reason in row.decision.reasons:
            found.setdefault(re.sub(r"\d+(\.\d+)?", "", reason), (reason, []))[1].append(name)
    return [f"{reason} - {'; '.join(of) if len(of) < len(rows) else 'all of them'}" for reason, of in found.values()]


def verdict_lines(rows: Sequence[Row], commit: str) -> str:
    """What the unusual verdicts mean, and what to do next."""
    counts = Counter(row.decision.verdict for row in rows)
    lines = [f"{verdict.value}: {text}" for verdict, text in _MEANING.items() if counts[verdict]]
    doubtful = counts[Verdict.SLOWER] + counts[Verdict.AMBIGUOUS] + counts[Verdict.INCOMPARABLE]
    if doubtful and commit not in ("", "unknown", "unversioned"):
        lines.append(f"decide it in turns: mxtrt bench MODEL,commit={commit[:12]} commit=HEAD")
    return "\n".join(lines)
