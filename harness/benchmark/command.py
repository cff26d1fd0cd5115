"""``mxtrt bench`` and ``mxtrt compare``: argument lists in, tables out, and an exit code that is SLOWER's alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Group

from ..errors import OptionError
from . import baseline, first_answer, machine, scenarios, sides
from .changepoints import change_points
from .peers import PEERS
from .table import comparison, console, first_answers, measurement, verdict_lines
from .verdict import MIN_EFFECT, MIN_RUNS, Decision, decide, in_turns

RUNS = 7
_SIDE_HELP = "MODEL[,engine=E][,precision=P][,commit=C][,params=F][,OPTION=VALUE]; MODEL is zoo:NAME, path/prefix, a symbol.json or a saved model"  # fmt: skip
_PEERS_HELP = "peers to measure in the same run, in turns: " + "; ".join(f"{n} ({p.what})" for n, p in PEERS.items())
_ALL = "all"


def bench(arguments: Sequence[str]) -> int:
    """Measure one side, or compare it with another or with peers.

    Returns:
        1 if the second side is SLOWER than the first, or the first SLOWER than a peer; else 0. Exits with 2 on a wrong
        command line.

    Raises:
        HarnessError: a side cannot be understood or measured.
    """
    given = _parser().parse_args(list(arguments))
    if given.b and given.against:
        raise OptionError("--against compares A with peers; leave B away")
    alone = not (given.b or given.against or given.first_answer)
    if given.runs < (1 if alone else MIN_RUNS):
        raise OptionError(f"--runs {given.runs}: a verdict needs {MIN_RUNS} runs a side")
    if given.min_effect <= 0 or given.seconds <= 0:
        raise OptionError("--min-effect and --seconds are above 0")
    from ..cli import read_inputs

    first = sides.parse(given.a, read_inputs(given.input))
    if given.scenario:
        return _scenario(first, given)
    peers = _peers(first, given.against) if given.against else []
    if given.first_answer:
        return _first_answer(first, peers, given)
    second = sides.parse(given.b, {}, first) if given.b else None
    if second is not None and second == first:
        raise OptionError(f"both sides are {first}: name what differs, for example engine=mxnet")
    return _measure(first, second, peers, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mxtrt bench", description="Measure a model, or compare it with another side (A B) or with peers (--against)."
    )
    parser.add_argument("a", metavar="A", help=_SIDE_HELP)
    parser.add_argument(
        "b", metavar="B", nargs="?", help="what differs: engine=mxnet, precision=fp16, commit=HEAD~1, another MODEL"
    )
    parser.add_argument("-i", "--input", action="append", metavar="NAME=SHAPE[@TYPE]")
    parser.add_argument("--against", metavar="PEER,...", help=f"{_PEERS_HELP}; or {_ALL}: those that are installed")
    parser.add_argument(
        "--first-answer", action="store_true", help="time new processes to their first answer, with and without a cache"
    )
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"processes a side, at least {MIN_RUNS} (default {RUNS})"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring in each run")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it")
    parser.add_argument(
        "--min-effect", type=float, default=MIN_EFFECT, help="the smallest change that matters, as a share"
    )
    parser.add_argument("--metric", choices=sides.METRICS, default="median")
    parser.add_argument("--save", metavar="NAME", help="store the figures as a baseline")
    parser.add_argument("--storage", type=Path, default=None, help="default: reports/baselines")
    parser.add_argument(
        "--scenario", choices=scenarios.NAMES, help="a LoadGen scenario in place of the loop (one side)"
    )
    parser.add_argument("--target-qps", type=float, default=None, help="of the scenario server")
    parser.add_argument("--json", action="store_true")
    return parser


def _peers(first: sides.Side, names: str) -> list[sides.Side]:
    """The sides of ``--against``.

    Raises:
        OptionError: a name is no peer, or the peer cannot have this precision.
        EngineMissing: what a named peer needs is not installed; with "all" that is only said.
    """
    if names == _ALL:
        for name, peer in PEERS.items():
            if peer.missing:
                print(f"without {name}: {' and '.join(peer.missing)} is not installed", file=sys.stderr)
        return [first.with_engine(name) for name, peer in PEERS.items() if not peer.missing and name != first.engine]
    wrong = [name for name in names.split(",") if name not in PEERS]
    if wrong:
        raise OptionError(f"--against {wrong[0]}: the peers are {', '.join(PEERS)}, or {_ALL}")
    return [first.with_engine(name) for name in dict.fromkeys(names.split(","))]


def _measure(
    first: sides.Side, second: sides.Side | None, peers: Sequence[sides.Side], given: argparse.Namespace
) -> int:
    chosen = {"A": first, **({"B": second} if second else {}), **{str(peer.engine): peer for peer in peers}}
    runs = interleaved(chosen, given.runs, given.seconds, given.warmup)
    figures = {key: [sides.figure(one, given.metric) for one in taken] for key, taken in runs.items()}
    cells = {key: sides.reduce(taken, given.metric) for key, taken in runs.items()}
    # (candidate, baseline): B is what changed; a peer is what A is held to
    pairs = [("B", "A")] if second else [("A", str(peer.engine)) for peer in peers]
    decisions = {pair: decide(figures[pair[1]], figures[pair[0]], given.min_effect) for pair in pairs}
    labels = {"A": str(first), **({"B": given.b} if second else {}), **{str(p.engine): PEERS[str(p.engine)].what for p in peers}}  # fmt: skip
    _show(given, {str(side): cells[key] for key, side in chosen.items()}, decisions,
          lambda: measurement(labels, cells, decisions, given.metric))  # fmt: skip
    return max((decision.exit_code for decision in decisions.values()), default=0)


def _first_answer(first: sides.Side, peers: Sequence[sides.Side], given: argparse.Namespace) -> int:
    with first_answer.ways(first, peers) as found:
        runs = first_answer.measure(found, given.runs)
    cells = {name: sides.reduce(taken, "first_answer") for name, taken in runs.items()}
    base, *others = cells
    decisions = {(name, base): decide(cells[base]["runs"], cells[name]["runs"], given.min_effect) for name in others}
    stored = {f"{first}, first answer, {name}": cell for name, cell in cells.items()}
    _show(given, stored, decisions, lambda: first_answers(str(first), cells, decisions))
    return 0


def _show(given: argparse.Namespace, cells: dict[str, dict[str, Any]], decisions: dict[tuple[str, str], Decision],
          text: Callable[[], Group]) -> None:  # fmt: skip
    """The figures on the screen or as JSON, and stored where that is asked for."""
    record = machine.record()
    path = baseline.save(given.storage or baseline.home(), record, cells, given.save) if given.save else None
    if given.json:
        decided = [{"candidate": a, "baseline": b, **_as_json(one)} for (a, b), one in decisions.items()]
        print(json.dumps({"sides": cells, "metric": given.metric, "decisions": decided, "machine": record}, indent=2))
    else:
        console().print(text())
    if path is not None:
        print(f"stored as {path}", file=sys.stderr)


def interleaved(
    chosen: Mapping[str, sides.Side], count: int, seconds: float, warmup: float
) -> dict[str, list[sides.Run]]:
    """``count`` runs of each side, A B B A A B B A ...; each a process of its own."""
    found: dict[str, list[sides.Run]] = {key: [] for key in chosen}
    with tempfile.TemporaryDirectory(prefix="mxtrt-bench-") as folder, ExitStack() as stack:
        ready = {key: stack.enter_context(sides.prepared(side, Path(folder))) for key, side in chosen.items()}
        for key in in_turns(list(chosen), count):
            found[key].append(sides.run(*ready[key], seconds, warmup))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


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
