"""Many cases in one engine.

Building an engine costs seconds whatever is in it, so the cells of many operators share one: the cases stand side by
side in one graph. What the capability record refuses leaves the graph before the build; if the library refuses the
rest, the graph is halved until the guilty case is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import Phase, given, settings

import harness
from harness.compiler import compile_graph
from harness.graph import Entry, Graph, Node
from harness.lowering import BROKEN

from .case import Case, Spec
from .check import ENGINE_OPTIONS, judge_outputs
from .limitations import limitation_of
from .reference import MXNetRefuses, answers, node_of


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "right" with its headroom, "wrong", "refused" or "limited" with the reason."""

    state: str
    text: str = ""
    headroom: float = float("nan")


def draw_cases(spec: Spec, count: int) -> list[Case]:
    """The first cases that Hypothesis draws, the same every time."""
    cases: list[Case] = []

    @settings(max_examples=count, phases=[Phase.generate], database=None, derandomize=True)
    @given(case=spec.cases())
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def run_cases(cases: Sequence[Case], engine: str, precision: str) -> list[Outcome]:
    """One outcome per case, from as few engines as possible."""
    outcomes: dict[int, Outcome] = {}
    for np_shape in (False, True):
        indices = [i for i, case in enumerate(cases) if case.np_shape is np_shape]
        for i in list(indices):
            limit = limitation_of(cases[i], engine, precision)
            if limit is not None and limit.effect != "LOOSE":
                outcomes[i] = Outcome("limited", limit.reason)
                indices.remove(i)
        _run(cases, indices, engine, precision, outcomes)
    return [outcomes[i] for i in range(len(cases))]


def _run(cases: Sequence[Case], indices: list[int], engine: str, precision: str, outcomes: dict[int, Outcome]) -> None:
    if not indices:
        return
    arrays = {i: cases[i].arrays() for i in indices}
    graph, params, inputs = _merged(cases, indices, arrays)
    options = dict(ENGINE_OPTIONS.get(engine, {}))
    values = {name: value for name, value in _values(cases, indices, arrays).items() if name in inputs}
    if precision == "int8":
        options |= {"calibration": [values], "calibrator": "minmax"}
    try:
        model = compile_graph(graph, params, inputs, engine, precision, "error", **options)
        found = model(**values)
    except harness.UnsupportedOperator as refusal:
        reasons = {_index(blocked.node): blocked.reason for blocked in refusal.blocked}
        outcomes.update({i: Outcome(_state_of(reason), reason) for i, reason in reasons.items()})
        _run(cases, [i for i in indices if i not in reasons], engine, precision, outcomes)
        return
    except harness.HarnessError as error:
        if len(indices) == 1:
            outcomes[indices[0]] = Outcome("wrong", f"{type(error).__name__}: {error} [{cases[indices[0]]}]")
            return
        guilty = [i for i in indices if f"{_name(i)}'" in str(error)]
        rest = [i for i in indices if i not in guilty]
        halves = [guilty, rest] if guilty and rest else [indices[: len(indices) // 2], indices[len(indices) // 2 :]]
        for half in halves:
            _run(cases, half, engine, precision, outcomes)
        return
    at = 0
    for i in indices:
        count = cases[i].outputs
        names = model.output_names[at : at + count]
        outcomes[i] = _judge(
            cases[i], found[at : at + count], [model.outputs[n] for n in names], arrays[i], engine, precision
        )
        at += count


def _judge(
    case: Case,
    found: Sequence[np.ndarray],
    declared: Sequence[harness.Input],
    arrays: dict[str, np.ndarray],
    engine: str,
    precision: str,
) -> Outcome:
    try:
        known = answers(case, arrays, precision)
    except MXNetRefuses as refusal:
        return Outcome("wrong", f"the spec draws what MXNet refuses: {refusal}")
    headroom, problem = judge_outputs(case, found, declared, known, precision)
    if problem and not (limitation_of(case, engine, precision) and "headroom" in problem):
        return Outcome("wrong", problem, headroom)
    return Outcome("right", "", headroom)


def _name(index: int) -> str:
    return f"case{index}z"  # the z keeps "case1" apart from "case12" in messages


def _state_of(reason: str) -> str:
    """A lowering that broke on what MXNet accepts did not refuse it."""
    return "wrong" if reason.startswith(BROKEN) else "refused"


def _index(node: str) -> int:
    return int(node.removeprefix("case").removesuffix("z"))


def _merged(
    cases: Sequence[Case], indices: Sequence[int], arrays: dict[int, dict[str, np.ndarray]]
) -> tuple[Graph, dict[str, np.ndarray], dict[str, harness.Input]]:
    nodes: list[Node] = []
    heads: list[Entry] = []
    names: list[str] = []
    params: dict[str, np.ndarray] = {}
    inputs: dict[str, harness.Input] = {}
    for i in indices:
        case, sources = cases[i], []
        for name, tensor in case.inputs.items():
            variable, array = f"{_name(i)}_{name}", arrays[i][name]
            sources.append(Entry(len(nodes)))
            nodes.append(Node(variable, "null"))
            if tensor.const:
                params[variable] = array
            else:
                inputs[variable] = harness.Input(array.shape, array.dtype)
        heads += [Entry(len(nodes), output) for output in range(case.outputs)]
        names += [f"{_name(i)}_output{output}" for output in range(case.outputs)]
        nodes.append(replace(node_of(case), name=_name(i), inputs=tuple(sources)))
    return Graph(tuple(nodes), tuple(heads), tuple(names), cases[indices[0]].np_shape), params, inputs


def _values(
    cases: Sequence[Case], indices: Sequence[int], arrays: dict[int, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    return {f"{_name(i)}_{name}": arrays[i][name] for i in indices for name in cases[i].inputs}
