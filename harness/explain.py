"""What became of a model: its parts and who runs them, what MXNet runs and why, what was left out."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .model import Model


def explain(model: Model) -> str:
    """The report as plain text, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(report(model))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in str(text).splitlines())


def report(model: Model) -> Group:
    """The report for a Rich console."""
    rows: list[Any] = [
        Text(_headline(model)),
        table("Inputs and outputs", ("name", "type"), _signature(model)),
        table("Segments", ("#", "engine", "nodes", "operators", "first and last node"), _segments(model)),
    ]
    if model.fallbacks:
        columns = ("node", "operator", "why no engine runs it")
        rows.append(table(f"{len(model.fallbacks)} nodes that MXNet runs", columns, model.fallbacks))
    if model.plan.removed:
        rows.append(table("Nodes that need no computation", ("node", "operator"), model.plan.removed))
    rows += [Text(f"note: {notice}") for notice in model.plan.notices]
    return Group(*rows)


def as_json(model: Model) -> dict[str, Any]:
    """The same for a program."""
    return {
        "engine": model.plan.engine,
        "precision": model.plan.precision,
        "inputs": {name: {"shape": spec.shape, "dtype": spec.dtype.name} for name, spec in model.inputs.items()},
        "outputs": {name: {"shape": spec.shape, "dtype": spec.dtype.name} for name, spec in model.outputs.items()},
        "segments": [{"engine": s.engine, "operators": s.operators, "nodes": s.nodes} for s in model.segments],
        "fallbacks": [blocked._asdict() for blocked in model.fallbacks],
        "removed": [{"node": node, "operator": operator} for node, operator in model.plan.removed],
        "notices": list(model.plan.notices),
    }


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table whose cells are shown as they are: names of nodes may hold what Rich takes for markup."""
    result = Table(title=Text(title), title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        result.add_column(Text(column), overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return result


def _headline(model: Model) -> str:
    counts = Counter(segment.engine for segment in model.segments)
    parts = ", ".join(f"{count} by {engine}" for engine, count in counts.items()) or "nothing to compute"
    return f"{len(model.segments)} segment(s): {parts}; engine {model.plan.engine}, precision {model.plan.precision}"


def _signature(model: Model) -> list[tuple[str, str]]:
    rows = [(f"in   {name}", str(spec)) for name, spec in model.inputs.items()]
    return rows + [(f"out  {name}", str(model.outputs[name])) for name in model.output_names]


def _segments(model: Model) -> list[tuple[Any, ...]]:
    rows = []
    for number, part in enumerate(model.segments):
        counted = ", ".join(f"{n} {op}" if n > 1 else op for op, n in Counter(part.operators).most_common())
        ends = part.nodes[0] if len(part.nodes) == 1 else f"{part.nodes[0]} … {part.nodes[-1]}"
        rows.append((number, part.engine, len(part.nodes), counted, ends))
    return rows
