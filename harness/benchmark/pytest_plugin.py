"""pytest-benchmark with our verdict: it stays timer, storage and command line.

Baselines lie in ``reports/baselines/<hardware>/`` without further options, the machine record travels in
``machine_info``, and ``--benchmark-compare`` ends in a table of verdicts; the exit code is SLOWER's alone.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType

from . import baseline, machine
from .baseline import RECORD, Row, Stored
from .table import comparison, console, speeds, verdict_lines
from .verdict import MIN_RUNS

_DEFAULT_STORAGE = "file://./.benchmarks"
_RUNS = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mxtrt")
    group.addoption(
        "--runs",
        type=int,
        default=_RUNS,
        help=f"processes of each speed test; a verdict needs {MIN_RUNS} (default {_RUNS})",
    )
    group.addoption(
        "--min-effect", type=float, default=baseline.STORED_EFFECT, help="the smallest slowdown that counts, as a share"
    )
    group.addoption("--record-results", type=Path, help="write one JSON line per test, for `mxtrt report`")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark opens its storage
def pytest_configure(config: pytest.Config) -> None:
    storage = getattr(config.option, "benchmark_storage", None)
    if storage == _DEFAULT_STORAGE and _is_controller(config):
        config.option.benchmark_storage = f"file://{baseline.home() / machine.hardware()}"
    if getattr(config.option, "benchmark_quiet", True) is False and config.option.verbose < 1:
        config.option.benchmark_quiet = True  # its table is 200 columns wide; ours is below, and -v brings it back
    config.pluginmanager.register(Comparison(config), "mxtrt-comparison")
    if config.option.record_results and _is_controller(config):
        config.pluginmanager.register(Recorder(config.option.record_results), "mxtrt-recorder")


def _is_controller(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


class Comparison:
    """One session's comparison with a stored one."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.baseline: Stored | None = None
        self.rows: list[Row] = []
        self.cells: dict[str, dict[str, Any]] = {}
        self.record = machine.record()

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        machine_info[RECORD] = self.record

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_benchmark_compare_machine_info(
        self, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
    ) -> None:
        """Remember the baseline, and keep pytest-benchmark from warning of fields that do not matter: our gate decides."""
        self.baseline = _read_session(compared_benchmark)
        compared_benchmark["machine_info"] = json.loads(json.dumps(machine_info))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        benchmarks = getattr(getattr(self.config, "_benchmarksession", None), "benchmarks", [])
        self.cells = {one.fullname: one.extra_info for one in benchmarks if one and one.extra_info.get("runs")}
        if self._wanted() and self.cells:
            self._compare(self.cells)
        found = yield
        if session.exitstatus == pytest.ExitCode.OK and any(row.decision.exit_code for row in self.rows):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return found

    def _wanted(self) -> bool:
        return bool(getattr(self.config.option, "benchmark_compare", False)) and _is_controller(self.config)

    def _compare(self, cells: dict[str, dict[str, Any]]) -> None:
        now = Stored(
            None,
            datetime.now(timezone.utc).isoformat(),
            machine.commit(baseline.reports().parent) or "unknown",
            self.record,
            cells,
        )
        before = self._on_disk(self.baseline) if self.baseline else self._another()
        if before is not None:
            self.baseline = before
            self.rows = [
                row for row in baseline.compare(before, now, self.config.option.min_effect) if row.name in cells
            ]

    def _on_disk(self, read: Stored) -> Stored:
        """The session that pytest-benchmark read, with its file's name."""
        folder = Path(str(self.config.option.benchmark_storage).removeprefix("file://"))
        return next((one for one in baseline.stored(folder) if one.time == read.time), read)

    def _another(self) -> Stored | None:
        """A baseline of this hardware that another Python made; else one of other hardware, to say so."""
        folder = Path(str(self.config.option.benchmark_storage).removeprefix("file://"))
        found = baseline.stored(folder) or baseline.elsewhere(folder.parent, folder.name)
        return found[-1] if found else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.cells and not self.rows:
            self._say(terminalreporter, "speed", speeds(self.cells))
        if not self._wanted():
            return
        if self.baseline is None:
            terminalreporter.section("verdict")
            where = str(self.config.option.benchmark_storage).removeprefix("file://")
            terminalreporter.write_line(f"there is no baseline in {where}: nothing is compared, and nothing fails.")
            terminalreporter.write_line("store this state as one:  pytest suites/models --benchmark-save=baseline")
            return
        self._say(terminalreporter, "verdict", comparison(str(self.baseline), self.rows))
        terminalreporter.write_line(verdict_lines(self.rows, self.baseline.commit))

    def _say(self, terminalreporter: pytest.TerminalReporter, title: str, what: RenderableType) -> None:
        terminalreporter.section(title)
        screen = console()
        with screen.capture() as text:
            screen.print(what)
        terminalreporter.write_line(text.get().rstrip())


def _read_session(content: dict[str, Any]) -> Stored:
    cells = {one["fullname"]: one.get("extra_info", {}) for one in content["benchmarks"]}
    commit = str(content.get("commit_info", {}).get("id") or "unknown")
    return Stored(None, str(content.get("datetime", "")), commit, content["machine_info"].get(RECORD, {}), cells)


class Recorder:
    """One JSON line per test: what the report is made of. With xdist it runs in the controller, which sees all."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        line = {
            "test": report.nodeid, "outcome": outcome, "seconds": round(report.duration, 3), "properties": dict(report.user_properties),
            "reason": "" if report.passed else _reason(report),
        }  # fmt: skip
        self.file.write(json.dumps(line, default=str) + "\n")
        self.file.flush()

    def pytest_unconfigure(self) -> None:
        self.file.close()


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", report.longrepr))[:2000]
