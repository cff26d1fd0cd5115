"""LoadGen's scenarios over a compiled model: MLCommons' LoadGen where it is installed, else two of them in Python.

    single_stream   one query after the other; the 90th percentile of the latency
    multi_stream    queries of 8 samples; the 99th percentile of a query          (needs mlcommons-loadgen)
    server          queries arrive at random (Poisson); is the 99th percentile within 15 ms, or 50 times a query where that is more?   (the same)
    offline         everything at once; samples per second

These are LoadGen's scenarios under its default rules for tests, not MLPerf results, and must not be called so. LoadGen
runs in a process of its own: after an exception in one of its callbacks the process dies at its exit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ..errors import EngineMissing, ExecutionError, OptionError
from .sides import _LAUNCH, Side
from .table import seconds as show

NAMES = ("single_stream", "multi_stream", "server", "offline")
IN_PYTHON = ("single_stream", "offline")
WORKER = Path(__file__).with_name("loadgen.py")


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario found.

    Attributes:
        valid: whether LoadGen's own rules (queries, duration, early stopping) were met; ``reasons`` if not.
        metric, value: what the scenario is about: "p90 latency" in seconds, "p99 latency", or "samples/s".
        by: "loadgen" or "python".
    """

    scenario: str
    valid: bool
    metric: str
    value: float
    queries: int
    p50: float
    p90: float
    p99: float
    by: str
    reasons: tuple[str, ...] = ()


def run(side: Side, tree: Path, scenario: str, seconds: float = 2.0, target_qps: float | None = None,
        by: str | None = None) -> Result:  # fmt: skip
    """One scenario over a prepared side.

    Args:
        by: "loadgen" or "python"; None takes LoadGen where it is installed.

    Raises:
        EngineMissing: LoadGen is not installed, and the scenario needs it.
        ExecutionError: the process failed, and why.
    """
    if scenario not in NAMES:
        raise OptionError(f"scenario {scenario!r} is none of {', '.join(NAMES)}")
    if side.commit is not None:
        raise OptionError("a scenario runs on the tree as it is; leave commit= away")
    by = by or ("loadgen" if available() else "python")
    if by == "python" and scenario not in IN_PYTHON:
        raise EngineMissing(
            f"the scenario {scenario} needs LoadGen: pip install 'mxtrt[loadgen]'; without it there are {', '.join(IN_PYTHON)}"
        )
    with tempfile.TemporaryDirectory(prefix="mxtrt-loadgen-") as logs:
        request = {
            **side.request(seconds, 0.2, 10),
            "scenario": scenario,
            "by": by,
            "logs": logs,
            "target_qps": target_qps,
        }
        command = [sys.executable, "-c", _LAUNCH, str(tree), str(WORKER), json.dumps(request)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300 + 20 * seconds, check=False)
        except subprocess.TimeoutExpired:
            raise ExecutionError(f"{side}: the scenario {scenario} did not end") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    answer = json.loads(lines[-1]) if lines else {"error": f"exit code {done.returncode}: {done.stderr[-500:]}"}
    if "error" in answer:
        raise ExecutionError(f"{side}: scenario {scenario}: {answer['error']}")
    return Result(**{**answer, "reasons": tuple(answer["reasons"])})


def available() -> bool:
    """Whether MLCommons' LoadGen is installed."""
    from importlib.util import find_spec

    return find_spec("mlperf_loadgen") is not None


def table(name: str, result: Result) -> Table:
    """For the terminal."""
    from ..explain import table as make

    value = f"{result.value:.4g}" if result.metric == "samples/s" else show(result.value)
    rows = [
        ("result", "valid" if result.valid else f"INVALID: {'; '.join(result.reasons)}"),
        (result.metric, value),
        ("queries", result.queries),
        *((key, show(getattr(result, key))) for key in ("p50", "p90", "p99")),
        (
            "by",
            "MLCommons LoadGen (not an MLPerf result)"
            if result.by == "loadgen"
            else "Python (LoadGen is not installed)",
        ),
    ]
    return make(f"{result.scenario}: {name}", ("", ""), rows)
