"""Does the verdict stay quiet on identical code, and does it find a slowdown? Each figure against its bar.

    python -m scripts.bench_verdict [--row NAME ...] [--out reports/verdict.json]

``repetitions`` takes the same benchmark of identical code 20 times (about ten minutes; reports/repetitions.json is
written after each, and the same command goes on); the simulated nights are drawn from its noise. With --row only these
rows are measured, and the others of the stored result are kept. Ends with 1 if a bar is missed. Wants a machine that
does nothing else.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.benchmark import baseline, clocks, machine, scenarios, sides
from harness.benchmark.verdict import MIN_RUNS, Verdict, decide, detection_power, in_turns, runs_needed
from scripts import rows
from scripts.rows import ROOT, Row, row
from suites.meta import nights

REPETITIONS, NIGHTS = 20, 1000
RECORD = ROOT / "reports" / "repetitions.json"
SIDE = sides.Side("zoo:resnet18_v1", {"data": ((1, 3, 64, 64), "float32")}, "onnxruntime", options={"threads": 2})
SECONDS, WARMUP = 0.4, 0.2  # the speed suite's


# --- identical code, for real ----------------------------------------------------------------------------------------


def repetitions() -> Row:
    """20 times: 5 runs a side of the same code in turns, and the verdict; and each time against the time before."""
    document = _begun()
    taken: list[dict[str, Any]] = document["repetitions"]
    with _prepared() as (side, tree):
        while len(taken) < REPETITIONS:
            runs: dict[str, list[sides.Run]] = {"A": [], "B": []}
            for key in in_turns("AB", MIN_RUNS):
                runs[key].append(sides.run(side, tree, SECONDS, WARMUP))
            cells = {key: sides.reduce(found) for key, found in runs.items()}
            decision = decide(cells["A"]["runs"], cells["B"]["runs"])
            taken.append({"A": cells["A"], "B": cells["B"], "verdict": decision.verdict.value, "ratio": decision.ratio})
            RECORD.parent.mkdir(exist_ok=True)
            RECORD.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
            print(f"{len(taken)} of {REPETITIONS}: {decision}", file=sys.stderr, flush=True)
    nightly = [_stored(before["A"], after["A"]) for before, after in itertools.pairwise(taken)]
    found = [one["verdict"] for one in taken]
    return row(
        f"identical code flagged SLOWER in {len(taken)} real repetitions, and in {len(nightly)} against the time before",
        found.count("SLOWER") + nightly.count("SLOWER"), 0,
        verdicts={name: found.count(name) for name in sorted(set(found))},
        against_the_time_before={name: nightly.count(name) for name in sorted(set(nightly))},
        noise=_noise(taken), benchmark=str(SIDE), runs_a_side=MIN_RUNS,
    )  # fmt: skip


def _begun() -> dict[str, Any]:
    """The stored repetitions if they are of this commit and machine, else none."""
    begun = {"what": str(SIDE), "commit": (machine.commit(ROOT) or "unknown").rstrip("+"), "machine": machine.record()}
    if RECORD.is_file():
        found: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
        if found["commit"] == begun["commit"] and not machine.differences(found["machine"], begun["machine"]):
            return found
    return {**begun, "repetitions": []}


@contextmanager
def _prepared() -> Iterator[tuple[sides.Side, Path]]:
    with tempfile.TemporaryDirectory(prefix="mxtrt-verdict-") as folder, sides.prepared(SIDE, Path(folder)) as ready:
        yield ready


def _stored(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The verdict that a night gives on the night before: its effect, and the yardstick."""
    reasons = baseline.machine_moved(before, after, baseline.STORED_EFFECT)
    return decide(before["runs"], after["runs"], baseline.STORED_EFFECT, reasons).verdict.value


def _groups(taken: list[dict[str, Any]]) -> list[list[float]]:
    return [one[side]["runs"] for one in taken for side in "AB"]


def _noise(taken: list[dict[str, Any]]) -> float:
    """The coefficient of variation between runs of one group, the root of the mean square over groups."""
    import numpy as np

    return float(np.sqrt(np.mean([np.var(group, ddof=1) / np.mean(group) ** 2 for group in _groups(taken)])))


# --- simulated nights ------------------------------------------------------------------------------------------------


def _shapes() -> dict[str, nights.Draw]:
    if not RECORD.is_file():
        raise SystemExit(f"no recorded noise; first: python -m {MODULE} --row repetitions")
    taken = json.loads(RECORD.read_text("utf-8"))["repetitions"]
    return {"recorded": nights.recorded(_groups(taken)), **nights.SHAPES}


def identical() -> Row:
    """Nights without a slowdown that are called SLOWER: the worst of four shapes of noise and three numbers of runs."""
    proposed = runs_needed(nights.NOISE, 0.05)
    found = {
        f"{name}, {runs} runs": 100 * nights.verdicts(draw, 0.0, runs, NIGHTS)[Verdict.SLOWER]
        for name, draw in _shapes().items() for runs in (MIN_RUNS, 10, proposed)
    }  # fmt: skip
    what = f"identical code flagged SLOWER in {NIGHTS:,} simulated nights, 2.5 % between runs"
    return row(what, max(found.values()), 1, "%", shares=found)


def planted_5() -> Row:
    """A slowdown of 5 % with the number of runs that the tool proposes."""
    runs = runs_needed(nights.NOISE, 0.05)
    found = {name: 100 * nights.verdicts(d, 0.05, runs, NIGHTS)[Verdict.SLOWER] for name, d in _shapes().items()}
    what = f"a planted 5 % slowdown found with the proposed {runs} runs a side, 2.5 % between runs"
    return row(what, found["recorded"], 99, "%", at_least=True, runs=runs, shares=found)


def planted_3() -> Row:
    """A slowdown of 3 %: the power that the tool states is the power that it has."""
    runs = runs_needed(nights.NOISE, 0.05)
    stated = 100 * detection_power(nights.NOISE, 0.03, runs)
    found = {name: 100 * nights.verdicts(d, 0.03, runs, NIGHTS)[Verdict.SLOWER] for name, d in _shapes().items()}
    what = f"a planted 3 % slowdown with {runs} runs a side: stated power {stated:.0f} %, found {found['recorded']:.0f} %, difference"
    wanted = runs_needed(nights.NOISE, 0.03)
    return row(
        what, abs(stated - found["recorded"]), 5, "points", stated=stated, shares=found, runs_for_99_percent=wanted
    )


# --- the rest of the harness -----------------------------------------------------------------------------------------


def loop() -> Row:
    """What the benchmark loop adds to a query of a millisecond."""
    seconds = sorted(clocks.overhead() for _ in range(5))[2]
    return row("overhead of the benchmark loop at 1 ms", 100 * seconds / 1e-3, 1, "%", nanoseconds=seconds * 1e9)


def ratio_table() -> Row:
    """Networks of the model suites without a stored ratio against MXNet."""
    from scripts.bench_zoo import GLUON, GLUONCV

    path = ROOT / "reports" / "speed.json"
    stored = json.loads(path.read_text("utf-8"))["measured"] if path.is_file() else []
    there = {one["network"] for one in stored if "error" not in one and one["batch"] == 1}
    absent = [name for name in (*GLUON, *GLUONCV) if name not in there]
    what = f"networks of {len(GLUON) + len(GLUONCV)} without a stored ratio against MXNet"
    return row(what, len(absent), 0, absent=absent, picture="reports/speed.svg")


def loadgen() -> Row:
    """LoadGen's four scenarios on the demo's network, as saved model; valid by LoadGen's own rules."""
    from harness.demo.network import INPUT, export

    with tempfile.TemporaryDirectory(prefix="mxtrt-verdict-") as folder:
        export(Path(folder) / "demo")
        side = sides.Side(f"{folder}/demo", {"data": (INPUT, "float32")}, "onnxruntime", options={"threads": 2})
        saved = sides.save(side, ROOT, Path(folder) / "demo.mxtrt")
        found: dict[str, Any] = {}
        for name in scenarios.NAMES:
            # a third of what one query after the other reaches: queries meet, and the queue does not grow
            rate = 0.3 / found["single_stream"]["p50"] if found else None
            result = scenarios.run(saved, ROOT, name, 5.0, rate)
            found[name] = {
                "valid": result.valid, result.metric: result.value, "queries": result.queries, "by": result.by,
                "p50": result.p50, "reasons": list(result.reasons),
            }  # fmt: skip
    valid = sum(one["valid"] and one["by"] == "loadgen" for one in found.values())
    return row("LoadGen's scenarios that are valid on the demo's network", valid, 4, at_least=True, scenarios=found)


def report_seconds() -> Row:
    """Making the report of every operator and 334 networks, in a process of its own."""
    from suites.meta import full_report

    with tempfile.TemporaryDirectory(prefix="mxtrt-verdict-") as folder:
        reports = full_report.store(Path(folder))
        start = time.perf_counter()
        out = full_report.make(reports, Path(folder) / "out")
        seconds = time.perf_counter() - start
        sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return row("the report of the full zoo, made in", seconds, 10, "s", bytes=sizes)


def report_overflow() -> Row:
    """Pixels by which the same page is wider than a phone or a desk, as Chromium lays it out."""
    from suites.meta import full_report

    with tempfile.TemporaryDirectory(prefix="mxtrt-verdict-") as folder:
        out = full_report.make(full_report.store(Path(folder)), Path(folder) / "out")
        found = {str(width): full_report.probe(out / "index.html", width, Path(folder)) for width in full_report.WIDTHS}
    over = {
        width: max(0, one["wide"] - int(width)) + len(one["outside"]) + one["broken"] for width, one in found.items()
    }
    return row("overflow of the report at 390 and 1,440 pixels", max(over.values()), 0, "px", screens=found)


MODULE = "scripts.bench_verdict"
ROWS: dict[str, Callable[[], Row]] = {
    "repetitions": repetitions,
    "identical": identical,
    "planted-5": planted_5,
    "planted-3": planted_3,
    "loop": loop,
    "ratio-table": ratio_table,
    "loadgen": loadgen,
    "report": report_seconds,
    "report-overflow": report_overflow,
}

if __name__ == "__main__":
    sys.exit(rows.main(MODULE, ROWS, ROOT / "reports" / "verdict.json", __doc__ or ""))
