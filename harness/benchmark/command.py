"""``mxtrt bench`` and ``mxtrt compare``: argument lists in, tables out, and an exit code that is SLOWER's alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import OptionError
from . import baseline, machine, scenarios, sides
from .changepoints import change_points
from .table import comparison, console, measurement, verdict_lines
from .verdict import MIN_EFFECT, MIN_RUNS, Decision, abba, decide

RUNS = 7
_SIDE_HELP = "MODEL[,engine=E][,precision=P][,commit=C][,params=F][,OPTION=VALUE]; MODEL is zoo:NAME, path/prefix, a symbol.json or a saved model"  # fmt: skip


def bench(arguments: Sequence[str]) -> int:
    """Measure one side, or compare two with a verdict.

    Returns:
        1 if the second side is SLOWER, else 0. Exits with 2 on a wrong command line.

    Raises:
        HarnessError: a side cannot be understood or measured.
    """
    parser = argparse.ArgumentParser(
        "mxtrt bench", description="Measure a model, or compare two sides (A B) with a verdict."
    )
    parser.add_argument("a", metavar="A", help=_SIDE_HELP)
    parser.add_argument(
        "b", metavar="B", nargs="?", help="what differs: engine=mxnet, precision=fp16, commit=HEAD~1, another MODEL"
    )
    parser.add_argument("-i", "--input", action="append", metavar="NAME=SHAPE[@TYPE]")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"processes a side, at least {MIN_RUNS} (default {RUNS})"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring in each run")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it")
    parser.add_argument(
        "--min-effect", type=float, default=MIN_EFFECT, help="the smallest change that matters, as a share"
    )
    parser.add_argument("--metric", choices=("median", "p99", "setup", "first_answer"), default="median")
    parser.add_argument("--save", metavar="NAME", help="store the figures as a baseline")
    parser.add_argument("--storage", type=Path, default=None, help="default: reports/baselines")
    parser.add_argument(
        "--scenario", choices=scenarios.NAMES, help="a LoadGen scenario in place of the loop (one side)"
    )
    parser.add_argument("--target-qps", type=float, default=None, help="of the scenario server")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(list(arguments))
    if given.runs < (MIN_RUNS if given.b else 1):
        raise OptionError(f"--runs {given.runs}: a verdict needs {MIN_RUNS} runs a side")
    if given.min_effect <= 0 or given.seconds <= 0:
        raise OptionError("--min-effect and --seconds are above 0")
    from ..cli import read_inputs

    first = sides.parse(given.a, read_inputs(given.input))
    if given.scenario:
        return _scenario(first, given)
    second = sides.parse(given.b, {}, first) if given.b else None
    if second is not None and second == first:
        raise OptionError(f"both sides are {first}: name what differs, for example engine=mxnet")
    return _measure(first, second, given)


def _measure(first: sides.Side, second: sides.Side | None, given: argparse.Namespace) -> int:
    runs = interleaved(first, second, given.runs, given.seconds, given.warmup)
    cells = {str(side): sides.reduce(runs[key]) for key, side in (("A", first), ("B", second)) if side is not None}
    decision = None if second is None else decide(
        [_metric(one, given.metric) for one in runs["A"]], [_metric(one, given.metric) for one in runs["B"]], given.min_effect
    )  # fmt: skip
    record = machine.record()
    path = baseline.save(given.storage or baseline.home(), record, cells, given.save) if given.save else None
    if given.json:
        decided = None if decision is None else _as_json(decision)
        print(json.dumps({"sides": cells, "metric": given.metric, "decision": decided, "machine": record}, indent=2))
    else:
        console().print(measurement(cells, decision, given.metric))
    if path is not None:
        print(f"stored as {path}", file=sys.stderr)
    return decision.exit_code if decision else 0


def interleaved(
    first: sides.Side, second: sides.Side | None, count: int, seconds: float, warmup: float
) -> dict[str, list[sides.Run]]:
    """``count`` runs of each side, A B B A A B B A ...; each a process of its own."""
    found: dict[str, list[sides.Run]] = {"A": [], "B": []}
    with tempfile.TemporaryDirectory(prefix="mxtrt-bench-") as folder, ExitStack() as stack:
        ready = {"A": stack.enter_context(sides.prepared(first, Path(folder)))}
        if second is not None:
            ready["B"] = stack.enter_context(sides.prepared(second, Path(folder)))
        for key in abba(count) if second is not None else ["A"] * count:
            found[key].append(sides.run(*ready[key], seconds, warmup))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def _metric(one: sides.Run, name: str) -> float:
    return float(getattr(one if name in ("setup", "first_answer") else one.summary, name))


def _scenario(side: sides.Side, given: argparse.Namespace) -> int:
    if given.b:
        raise OptionError("a scenario measures one side; run it twice")
    with (
        tempfile.TemporaryDirectory(prefix="mxtrt-bench-") as folder,
        sides.prepared(side, Path(folder)) as (ready, tree),
    ):
        result = scenarios.run(ready, tree, given.scenario, given.seconds, given.target_qps)
    if given.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        console().print(scenarios.table(str(side), result))
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Hold stored figures against a baseline.

    Returns:
        1 if anything is SLOWER, else 0; without a baseline it says how to store one, and returns 0.

    Raises:
        OptionError: a name or file is not a stored benchmark.
    """
    parser = argparse.ArgumentParser(
        "mxtrt compare", description="Hold stored figures against a baseline, with a verdict."
    )
    parser.add_argument(
        "baseline", nargs="?", help="a file, a number or a name (default: the session before the candidate)"
    )
    parser.add_argument("candidate", nargs="?", help="the same (default: the latest)")
    parser.add_argument("--storage", type=Path, default=None, help="default: reports/baselines")
    parser.add_argument("--min-effect", type=float, default=baseline.STORED_EFFECT)
    parser.add_argument("--history", action="store_true", help="change points over all stored sessions")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(list(arguments))
    root, hardware = given.storage or baseline.home(), machine.hardware()
    if given.history:
        return _history(root / hardware, given.json)
    candidate = baseline.find(root, hardware, given.candidate)
    before = _before(root, hardware, given.baseline, candidate)
    if before is None or candidate is None:
        print(f"nothing to compare for {hardware}: store sessions with `pytest suites/models --benchmark-save=NAME`")
        return 0
    rows = baseline.compare(before, candidate, given.min_effect)
    if given.json:
        print(json.dumps([{"name": row.name, **_as_json(row.decision)} for row in rows], indent=2))
    else:
        console().print(comparison(str(before), rows))
        print(verdict_lines(rows, before.commit))
    return max((row.decision.exit_code for row in rows), default=0)


def _before(root: Path, hardware: str, name: str | None, candidate: baseline.Stored | None) -> baseline.Stored | None:
    if name is not None or candidate is None:
        return baseline.find(root, hardware, name)
    earlier = [one for one in baseline.stored(root / hardware) if one.time < candidate.time]
    return earlier[-1] if earlier else None


def _history(folder: Path, as_json: bool) -> int:
    found = {
        name: change_points([value for _, _, value in points], [commit for _, commit, _ in points])
        for name, points in baseline.series(baseline.stored(folder)).items()
    }
    if as_json:
        print(
            json.dumps({name: [dataclasses.asdict(one) for one in points] for name, points in found.items()}, indent=2)
        )
        return 0
    for name, points in found.items():
        print(f"{name}: {'; '.join(map(str, points)) or 'no change'}")
    if not found:
        print(f"no stored sessions in {folder}")
    return 0


def _as_json(decision: Decision) -> dict[str, Any]:
    numbers = {
        name: value if value == value else None
        for name, value in dataclasses.asdict(decision).items()
        if name != "verdict"
    }
    return {"verdict": decision.verdict.value, **numbers}
