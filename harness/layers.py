"""``mxtrt explain --layers``: what each engine made of its part, in terms of MXNet's nodes, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .engines.layers import Layer
from .errors import OptionError
from .model import Model
from .plan import Segment

COLUMNS = ("part", "layer", "nodes", "operators", "kind", "precision", "tactic", "ms", "share")


@dataclass(frozen=True, slots=True)
class Row:
    """One layer of one part.

    Attributes:
        part: the segment's number.
        engine: what runs it.
        layer: the engine's name of it.
        nodes: the MXNet nodes in it; empty for what the engine added.
        operators: their operators.
        kind, precision, tactic: as the engine says them, "" where it does not.
        milliseconds: mean of the runs, None if nothing was measured.
        share: of all layers' time, None likewise.
    """

    part: int
    engine: str
    layer: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    kind: str = ""
    precision: str = ""
    tactic: str = ""
    milliseconds: float | None = None
    share: float | None = None


def layers(model: Model, runs: int = 0, inputs: Mapping[str, Any] | None = None, seed: int = 0) -> list[Row]:
    """The layers of a model, in the order in which they run.

    Parts that MXNet or a plugin's NumPy function runs are one row each.

    Args:
        model: compiled or loaded.
        runs: how often each part is measured, by the engine's own profiler; 0 measures nothing.
        inputs: arrays to measure with; random ones if there are none.
        seed: of random ones.

    Raises:
        InputError: an input does not fit.
        ExecutionError: an engine failed.
    """
    rows: list[Row] = []
    values = _values(model, inputs, seed) if runs else {}
    for number, (step, segment) in enumerate(zip(model._program.steps, model.segments)):
        given = [values[slot] for slot in step.reads] if runs else []
        rows += _rows(number, segment, step.session, given, runs)
        if runs:
            values.update(zip(step.writes, step.session.run(given)))
    total = sum(row.milliseconds or 0.0 for row in rows)
    return [_shared(row, total) for row in rows] if total else rows


def _values(model: Model, inputs: Mapping[str, Any] | None, seed: int) -> dict[int, Any]:
    from .proof import random_samples

    given = dict(inputs or {})
    ((_, drawn),) = random_samples(model.inputs, 1, seed)
    unknown = sorted(set(given) - set(drawn))
    if unknown:
        raise OptionError(f"inputs: {unknown[0]!r} is not an input; the model takes {', '.join(drawn)}")
    arrays = {name: model._check(name, given.get(name, drawn[name]), spec) for name, spec in model.inputs.items()}
    return {slot: arrays[name] for slot, name in enumerate(model.inputs)} | dict(model._program.constants)


def _rows(number: int, segment: Segment, session: Any, given: Sequence[Any], runs: int) -> Iterator[Row]:
    operators = dict(zip(segment.nodes, segment.operators))
    if not hasattr(session, "layers"):
        times = [_milliseconds(session, given) for _ in range(runs + 1)][1:]
        mean = float(np.mean(times)) if times else None
        yield Row(number, segment.engine, f"part {number}", segment.nodes, segment.operators, milliseconds=mean)
        return
    found: dict[str, Layer] = {layer.name: layer for layer in session.layers()}
    measured = {time.name: time for time in session.profile(given, runs)} if runs else {}
    for name in [*found, *(name for name in measured if name not in found)]:
        layer, timed = found.get(name), measured.get(name)
        traced = (layer.nodes if layer else ()) or (timed.nodes if timed else ())
        nodes = tuple(dict.fromkeys(node for text in traced if (node := _node(text, operators))))
        yield Row(
            number,
            segment.engine,
            name,
            nodes,
            tuple(operators[node] for node in nodes),
            *((layer.kind, layer.precision, layer.tactic) if layer else ("", "", "")),
            milliseconds=timed.milliseconds if timed else None,
        )


def _node(text: str, known: Mapping[str, str]) -> str:
    """The MXNet node that a name inside of it begins with; "" for parameters and what an engine made up."""
    while text not in known:
        text, found, _ = text.rpartition("/")
        if not found:
            return ""
    return text


def _milliseconds(session: Any, given: Sequence[Any]) -> float:
    start = time.perf_counter()
    session.run(given)
    return (time.perf_counter() - start) * 1e3


def _shared(row: Row, total: float) -> Row:
    return row if row.milliseconds is None else replace(row, share=row.milliseconds / total)


# --- showing ---------------------------------------------------------------------------------------------------------


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a program."""
    return [asdict(row) for row in rows]


def as_table(rows: Sequence[Row]) -> Any:
    """The rows for a Rich console; columns that would be empty are left out."""
    from .explain import table

    cells = [
        (
            row.part, row.layer, ", ".join(row.nodes) or "-", ", ".join(dict.fromkeys(row.operators)) or "-", row.kind,
            row.precision, row.tactic, "" if row.milliseconds is None else f"{row.milliseconds:.4f}",
            "" if row.share is None else f"{row.share:.1%}",
        )
        for row in rows
    ]  # fmt: skip
    used = [place for place in range(len(COLUMNS)) if any(str(row[place]) for row in cells)]
    title = f"{len(rows)} layers"
    return table(title, [COLUMNS[place] for place in used], [[row[place] for place in used] for row in cells])
