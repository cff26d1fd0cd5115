"""The process of one scenario: a script that ``harness.benchmark.scenarios`` starts; prints one line of JSON."""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.benchmark import worker
from harness.benchmark.statistics import percentile

_SAMPLES = 64  # that LoadGen draws from; the content is the same, a compiled model's time does not depend on it
_STREAMS = 8
_SERVER_LIMIT_NS = 15_000_000
_LEAST_QUERIES = {
    "single_stream": 64,
    "multi_stream": 662,
    "server": 2000,
    "offline": 1,
}  # early stopping needs 64 for p90 and 662 for p99, more where stragglers are late


class System:
    """The system under test: one thread takes samples from a queue, because a callback of LoadGen must not fail or wait.

    Args:
        call: runs one sample.
        complete: tells LoadGen which samples are done.
    """

    def __init__(self, call: Callable[[], Any], complete: Callable[[list[Any]], None]) -> None:
        self.call, self.complete = call, complete
        self.error: BaseException | None = None
        self._waiting: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def issue(self, samples: list[Any]) -> None:
        self._waiting.put(list(samples))

    def close(self) -> None:
        """Wait for the thread, and raise what went wrong in it."""
        self._waiting.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        while (samples := self._waiting.get()) is not None:
            for _ in samples:
                try:
                    if self.error is None:
                        self.call()
                except BaseException as error:  # noqa: BLE001 - raised again in close(); LoadGen must get its samples
                    self.error = error
            self.complete(samples)


def by_loadgen(request: dict[str, Any], call: Callable[[], Any]) -> dict[str, Any]:
    """The scenario under MLCommons' LoadGen."""
    import mlperf_loadgen as lg

    scenario = request["scenario"]
    latency = sorted(_timed(call) for _ in range(10))[5]
    settings = lg.TestSettings()
    settings.scenario = {
        "single_stream": lg.TestScenario.SingleStream, "multi_stream": lg.TestScenario.MultiStream,
        "server": lg.TestScenario.Server, "offline": lg.TestScenario.Offline,
    }[scenario]  # fmt: skip
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(request["seconds"] * 1000)
    settings.min_query_count = _LEAST_QUERIES[scenario]
    # too high an expectation makes a single stream invalid, so it is told less than was measured
    settings.single_stream_expected_latency_ns = max(int(latency * 0.5e9), 1)
    settings.multi_stream_expected_latency_ns = max(int(latency * 0.5e9 * _STREAMS), 1)
    settings.multi_stream_samples_per_query = _STREAMS
    settings.server_target_qps = request["target_qps"] or min(0.1 / latency, 500)
    settings.server_target_latency_ns = max(_SERVER_LIMIT_NS, int(latency * 50e9))
    settings.offline_expected_qps = 1 / latency
    logs = lg.LogSettings()
    logs.log_output.outdir = request["logs"]
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False

    def complete(samples: list[Any]) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples])

    system = System(call, complete)
    under_test = lg.ConstructSUT(system.issue, lambda: None)
    library = lg.ConstructQSL(_SAMPLES, _SAMPLES, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(under_test, library, settings, logs)
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(under_test)
        system.close()
    return {"scenario": scenario, "by": "loadgen", **read_log(Path(request["logs"]), scenario)}


def read_log(folder: Path, scenario: str) -> dict[str, Any]:
    """The figures in LoadGen's detailed log, in seconds."""
    entries: dict[str, Any] = {}
    problems = []
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        found = re.match(r":::MLLOG (\{.*\})", line)
        if not found:
            continue
        entry = json.loads(found[1])
        entries[entry["key"]] = entry["value"]
        if entry["key"] == "result_invalid_reason":
            problems.append(str(entry["value"]).strip() or "early stopping is not satisfied: more queries are needed")
    stem = "result_{:.2f}_percentile_" + ("per_query_latency_ns" if scenario == "multi_stream" else "latency_ns")
    p50, p90, p99 = (
        float(entries.get(stem.format(p), entries.get(f"result_{p:.2f}_percentile_latency_ns", 0))) / 1e9
        for p in (50, 90, 99)
    )
    metric, value = {
        "single_stream": ("p90 latency", p90), "multi_stream": ("p99 latency", p99), "server": ("p99 latency", p99),
        "offline": ("samples/s", float(entries.get("result_samples_per_second", 0))),
    }[scenario]  # fmt: skip
    valid = entries.get("result_validity") == "VALID"
    return {
        "valid": valid, "metric": metric, "value": value, "p50": p50, "p90": p90, "p99": p99,
        "queries": int(entries.get("result_query_count", entries.get("generated_query_count", 0)) or 0),
        "reasons": [] if valid else problems or ["LoadGen gives no reason"],
    }  # fmt: skip


def by_python(request: dict[str, Any], call: Callable[[], Any]) -> dict[str, Any]:
    """SingleStream and Offline without LoadGen: one query after the other; they differ in what is read from it."""
    scenario, least = request["scenario"], _LEAST_QUERIES[request["scenario"]]
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < request["seconds"] or len(times) < least:
        times.append(_timed(call))
    wall = time.perf_counter() - begin
    p50, p90, p99 = (percentile(times, p) for p in (50, 90, 99))
    offline = scenario == "offline"
    return {
        "scenario": scenario, "by": "python", "valid": True, "reasons": [], "queries": len(times), "p50": p50, "p90": p90, "p99": p99,
        "metric": "samples/s" if offline else "p90 latency", "value": len(times) / wall if offline else p90,
    }  # fmt: skip


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(text: str) -> int:
    request = json.loads(text)
    try:
        worker.peers().mxnet_environment()
        call = worker.open_model(request)[0]
        call()
        answer = {"loadgen": by_loadgen, "python": by_python}[request["by"]](request, call)
    except Exception as error:  # noqa: BLE001 - the process that asked gets the reason, whatever it is
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
