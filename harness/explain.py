"""What became of a model: its parts and who runs them, what MXNet runs and why, what was left out."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .errors import Blocked
from .plan import Plan


def explain(plan: Plan) -> str:
    """The report as plain text, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(report(plan))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in str(text).splitlines())


def report(plan: Plan) -> Group:
    """The report for a Rich console."""
    rows: list[Any] = [
        Text(_headline(plan)),
        table("Inputs and outputs", ("name", "type"), _signature(plan)),
        table("Segments", ("#", "engine", "nodes", "operators", "first and last node"), _segments(plan)),
    ]
    if plan.fallbacks:
        rows.append(fallback_table(plan.fallbacks))
    if plan.removed:
        rows.append(table("Nodes that need no computation", ("node", "operator"), plan.removed))
    rows += [Text(f"note: {notice}") for notice in plan.notices]
    return Group(*rows)


def fallback_table(fallbacks: Sequence[Blocked]) -> Table:
    """The nodes that MXNet runs, and why."""
    title = f"{len(fallbacks)} node(s) that only MXNet runs"
    return table(title, ("node", "operator", "why no engine runs it"), fallbacks)


def as_json(plan: Plan) -> dict[str, Any]:
    """The same for a program."""
    return {
        "engine": plan.engine,
        "precision": plan.precision,
        "inputs": {name: {"shape": spec.shape, "dtype": spec.dtype.name} for name, spec in plan.inputs.items()},
        "outputs": {name: {"shape": spec.shape, "dtype": spec.dtype.name} for name, spec in plan.outputs.items()},
        "segments": [{"engine": s.engine, "operators": s.operators, "nodes": s.nodes} for s in plan.segments],
        "fallbacks": [blocked._asdict() for blocked in plan.fallbacks],
        "removed": [{"node": node, "operator": operator} for node, operator in plan.removed],
        "notices": list(plan.notices),
    }


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table whose cells are shown as they are: names of nodes may hold what Rich takes for markup."""
    result = Table(
        title=Text(title), title_justify="left", box=None, header_style="bold", pad_edge=False, min_width=len(title)
    )
    for column in columns:
        result.add_column(Text(column), overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return result


def _headline(plan: Plan) -> str:
    counts = Counter(segment.engine for segment in plan.segments)
    parts = ", ".join(f"{count} by {engine}" for engine, count in counts.items()) or "nothing to compute"
    return f"{len(plan.segments)} segment(s): {parts}; engine {plan.engine}, precision {plan.precision}"


def _signature(plan: Plan) -> list[tuple[str, str]]:
    rows = [(f"in   {name}", str(spec)) for name, spec in plan.inputs.items()]
    return rows + [(f"out  {name}", str(plan.outputs[name])) for name in plan.outputs]


def _segments(plan: Plan) -> list[tuple[Any, ...]]:
    rows = []
    for number, part in enumerate(plan.segments):
        counted = ", ".join(f"{n} {op}" if n > 1 else op for op, n in Counter(part.operators).most_common())
        ends = part.nodes[0] if len(part.nodes) == 1 else f"{part.nodes[0]} … {part.nodes[-1]}"
        rows.append((number, part.engine, len(part.nodes), counted, ends))
    return rows
