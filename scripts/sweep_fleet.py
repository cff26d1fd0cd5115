"""A sweep over two nodes of this machine, one killed and the driver interrupted, against one pytest process.

    python -m scripts.sweep_fleet [operators] [networks] [--folder reports/sweep]

Needs Ray and MXNet, no GPU: the operators' GPU cells run in ONNX Runtime. In turn: pytest runs the cells in one
process; ``mxtrt sweep`` runs them on two raylets, undisturbed; it runs them again, one raylet is killed (SIGKILL)
while it runs a batch, the driver gets SIGINT while a batch runs, and the same command goes on. A plugin of pytest
notes each start of a cell, so that what ran twice is counted and not inferred. Writes the entries ``sweep`` of
reports/fleet.json; the exit code is 1 if a cell differs, one with a result ran again, or the kill came between two
batches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.benchmark import machine
from harness.fleet.cells import CHOSEN
from harness.fleet.report import state_of
from scripts.rows import ROOT, in_new_process

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # of the cluster, and of the driver
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
OUT = ROOT / "reports" / "fleet.json"
KILL_AFTER, INTERRUPT_AFTER = 0.25, 0.65  # shares of the cells that have a result
LIMIT = 3600  # seconds for one run

# Of the nodes' environment, not of the sweep's: the plugin is no part of what is measured.
PLUGIN = """
import json, os
import ray

def pytest_runtest_logstart(nodeid, location):
    line = json.dumps({"cell": nodeid, "node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}) + "\\n"
    with open(os.environ["STARTED_CELLS"], "a") as file:
        file.write(line)
"""

# Seconds of a group of cells in a process that did nothing before, less those in one that ran another group.
PROCESS_START = """
import json, sys, time
from harness.fleet import cells

def seconds(name):
    start = time.perf_counter()
    cells.run(["suites/ops/test_gpu.py::test_cell[" + name + "]"])
    return time.perf_counter() - start

print(json.dumps({name: seconds(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True)
class Suite:
    """What is swept, and by which command."""

    paths: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    batch: int = 32
    keyword: str = ""

    @property
    def sweep(self) -> list[str]:
        engine = ["--engine", self.engine] if self.engine else []
        keyword = ["-k", self.keyword] if self.keyword else []
        return ["sweep", *self.paths, *engine, *keyword, "--batch", str(self.batch)]

    @property
    def pytest(self) -> list[str]:
        return ["pytest", *self.paths, "-m", CHOSEN, *(["-k", self.keyword] if self.keyword else [])]


SUITES = {
    "operators": Suite(("suites/ops/test_gpu.py",), {"MXTRT_GPU_EXAMPLES": "1"}, "onnxruntime"),
    "networks": Suite(
        ("suites/models/test_zoo.py", "suites/models/test_gluoncv.py"),
        batch=2,
        keyword="not alexnet and not vgg11_bn",  # the two largest, half of the time
    ),
}
Answer = tuple[str, str, dict[str, str]]


def table(path: Path) -> dict[tuple[str, str], Answer]:
    """(class, name) of each cell -> its state, the reason and the properties, from anybody's JUnit file."""
    cases: dict[tuple[str, str], list[ElementTree.Element]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        cases.setdefault((case.get("classname", ""), case.get("name", "")), []).append(case)
    return {key: _answer(elements) for key, elements in cases.items()}


def _answer(cases: Sequence[ElementTree.Element]) -> Answer:
    """Of one cell: several elements where its clean-up failed too."""
    state, _ = state_of(ElementTree.tostring(case, "unicode") for case in cases)
    words = [f"{c.tag}: {c.get('message')}" for case in cases for c in case if c.tag in ("failure", "error", "skipped")]
    given = {p.get("name", ""): p.get("value", "") for case in cases for p in case.iter("property")}
    given.pop("cell", None)  # the sweep's own
    return state, "; ".join(words), given


class Trial:
    """One suite, both ways, in a folder of its own."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite, self.folder = suite, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "started_cells.py").write_text(PLUGIN)
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MXTRT_")},
            **suite.variables, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.out = folder / "undisturbed"  # of the driver that runs
        self.exit_codes: dict[str, int] = {}
        self.load: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        self._plain()
        plain = table(self.folder / "pytest.xml")
        with self._cluster() as (address, doomed, kill):
            with self._timed("sweep, undisturbed"):
                self.exit_codes["undisturbed"] = self._driver(address).wait(LIMIT)
            if not (self.out / "junit.xml").exists():
                raise SystemExit((self.folder / "sweep.log").read_text()[-2000:])
            quiet = table(self.out / "junit.xml")
            (self.folder / "started.jsonl").unlink()
            self.out = self.folder / "sweep"
            with self._timed("sweep until the interruption"):
                driver = self._driver(address)
                self._wait(driver, KILL_AFTER * len(plain), lambda node: node == doomed)
                kill()
                self._wait(driver, INTERRUPT_AFTER * len(plain), lambda node: node != doomed)
                driver.send_signal(signal.SIGINT)
                driver.wait(LIMIT)
            self.exit_codes["interrupted"] = driver.returncode
            known = {one["cell"] for one in self._journal()}
            first = {one["pid"] for one in self._starts()}  # processes of the driver that was interrupted
            with self._timed("sweep after it"):
                self.exit_codes["resumed"] = self._driver(address).wait(LIMIT)
        found, results, starts = table(self.out / "junit.xml"), self._journal(), self._starts()
        times = Counter(one["cell"] for one in starts)
        cut = {one["cell"] for one in starts if one["pid"] in first and one["node"] != doomed} - known
        there = {one["cell"] for one in results if one["node"] == doomed}
        lost = {one["cell"] for one in starts if one["node"] == doomed} - there
        of = {one["cell"]: (one["batch"], one["seconds"]) for one in results}
        batches = set(of.values())
        interrupted = ["mxtrt", *self.suite.sweep, "--ray", "ADDRESS"]
        variables = [f"{name}={value}" for name, value in self.suite.variables.items()]
        return {
            "sweep": " ".join([*variables, *map(_quoted, interrupted)]),
            "pytest": " ".join([*variables, *([f"MXTRT_GPU_ENGINE={self.suite.engine}"] if self.suite.engine else []), *map(_quoted, self.suite.pytest)]),
            "commit": machine.commit(ROOT), "nodes": 2, "cells": len(found), "batches": len(batches),
            "states": dict(Counter(state for state, _, _ in found.values())),
            "states_of_pytest": dict(Counter(state for state, _, _ in plain.values())),
            "differ": sorted(" ".join(key) for key in {*plain, *found, *quiet}
                             if not plain.get(key) == found.get(key) == quiet.get(key)),
            "killed_node": {"cells_answered": len(there), **_batches_of(lost, of)},
            "interruption": {"cells_known": len(known), **_batches_of(cut, of), "cells_run_after_it": len(found) - len(known)},
            "known_cells_run_again": sum(one["cell"] in known and one["pid"] not in first for one in starts),
            "run_twice_for_no_reason": sorted(cell for cell, count in times.items() if count > 1 + (cell in lost) + (cell in cut)),
            "exit_codes": self.exit_codes,
            "seconds": {**self.seconds, "sum of its batches": round(sum(taken for _, taken in batches), 1), "longest batch": round(max(taken for _, taken in batches), 1)},
            "processes": len({(one["node"], one["pid"]) for one in starts}),
            "load": self.load,
        }  # fmt: skip

    def _plain(self) -> None:
        command = [sys.executable, "-m", *self.suite.pytest, "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
                   f"--junitxml={self.folder / 'pytest.xml'}"]  # fmt: skip
        engine = {"MXTRT_GPU_ENGINE": self.suite.engine} if self.suite.engine else {}
        with self._timed("pytest"), (self.folder / "pytest.log").open("w") as log:
            done = subprocess.run(
                command, cwd=ROOT, env={**self.variables, **engine}, stdout=log, stderr=log, timeout=LIMIT, check=False
            )
        self.exit_codes["pytest"] = done.returncode
        if not (self.folder / "pytest.xml").exists():
            raise SystemExit(f"exit code {done.returncode}: {(self.folder / 'pytest.log').read_text()[-2000:]}")

    @contextmanager
    def _cluster(self) -> Any:
        """Two nodes of one CPU each: the address, the second node's id, and what kills it."""
        os.environ.update(
            PYTEST_PLUGINS="started_cells", PYTHONPATH=str(self.folder),
            STARTED_CELLS=str(self.folder / "started.jsonl"),
        )  # fmt: skip
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            second = cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            yield cluster.address, second.node_id, lambda: cluster.remove_node(second, allow_graceful=False)
        finally:
            cluster.shutdown()
            del os.environ["PYTEST_PLUGINS"], os.environ["PYTHONPATH"]

    def _driver(self, address: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "harness.cli", *self.suite.sweep, "--ray", address, "--output", str(self.out),
        ]  # fmt: skip
        log = (self.folder / "sweep.log").open("a")
        return subprocess.Popen(command, cwd=ROOT, env=self.variables, stdout=log, stderr=log)

    def _wait(self, driver: subprocess.Popen[bytes], results: float, on: Callable[[str], bool]) -> None:
        """Until so many cells have a result, one of them from such a node, and a batch has just begun there.

        The first cell of a batch takes most of its time: what shares an engine is computed then.
        """
        end = time.monotonic() + LIMIT
        while True:
            journal = self._journal()
            known = {one["cell"] for one in journal}
            under_way = {one["cell"] for one in self._starts() if on(one["node"])} - known
            if len(journal) >= results and len(under_way) == 1 and any(on(one["node"]) for one in journal):
                return
            if driver.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the sweep ended too early: {(self.folder / 'sweep.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _journal(self) -> list[dict[str, Any]]:
        return [one for one in _lines(self.out / "sweep.jsonl") if "cell" in one]

    def _starts(self) -> list[dict[str, Any]]:
        return _lines(self.folder / "started.jsonl")

    @contextmanager
    def _timed(self, what: str) -> Any:
        start, before = time.perf_counter(), os.getloadavg()[0]
        yield
        self.seconds[what] = round(time.perf_counter() - start, 1)
        self.load[what] = [round(before, 1), round(os.getloadavg()[0], 1)]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def _batches_of(started: set[str], of: dict[str, tuple[str, float]]) -> dict[str, int]:
    """What cells that were under way cost: their batches ran anew."""
    batches = {of[cell] for cell in started if cell in of}
    return {
        "cells_under_way": len(started),
        "batches_run_anew": len(batches),
        "cells_of_these": sum(batch in batches for batch in of.values()),
    }


def _quoted(argument: str) -> str:
    return argument if argument and " " not in argument else f"'{argument}'"


def process_start() -> float:
    """Seconds that a worker's process takes before it is as fast as one that has run cells already."""
    os.environ.update(MXTRT_GPU_ENGINE="onnxruntime", MXTRT_GPU_EXAMPLES="1", OMP_NUM_THREADS="2")
    first, second = "Activation-fp16", "Activation-bf16"
    cold = min(in_new_process(PROCESS_START, second)[second] for _ in range(3))  # the least disturbed
    warm = min(in_new_process(PROCESS_START, first, second)[second] for _ in range(3))
    return round(cold - warm, 1)


def main(measure: Callable[[Suite, Path], dict[str, Any]] = lambda suite, folder: Trial(suite, folder).run()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{' or '.join(SUITES)} (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "reports" / "sweep", help="of what the runs leave")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    chosen = given.suites or list(SUITES)
    if not set(chosen) <= set(SUITES):
        parser.error(f"there are {', '.join(SUITES)}")
    document = json.loads(given.out.read_text("utf-8"))
    stored = {name: value for name, value in document.get("sweep", {}).items() if name in SUITES}
    good = True
    for name in chosen:
        found = measure(SUITES[name], given.folder.resolve() / name)
        if name == "operators":
            found["seconds"]["start of a process"] = process_start()
        stored[name] = found
        good = good and sound(found)
        print(json.dumps({name: found}, indent=1), flush=True)
        entry = {"command": "python -m scripts.sweep_fleet", **{key: stored[key] for key in SUITES if key in stored}}
        given.out.write_text(json.dumps({**document, "sweep": entry}, indent=1) + "\n", "utf-8")
    return int(not good)


def sound(found: dict[str, Any]) -> bool:
    """Whether the answer is pytest's, what was known stayed, and the kill did cost a batch (it may come too late)."""
    wrong = found["differ"] or found["known_cells_run_again"] or found["run_twice_for_no_reason"]
    return not wrong and found["killed_node"]["batches_run_anew"] > 0


if __name__ == "__main__":
    sys.exit(main())
