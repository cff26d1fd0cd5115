"""The statistics of the harness: they stay quiet without a slowdown, and find one that is there."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="verdicts need SciPy")

from harness import OptionError
from harness.benchmark import baseline, changepoints, clocks, compare, machine, scenarios, sides, statistics, verdict
from harness.benchmark.changepoints import best_cut, change_points
from harness.benchmark.verdict import Verdict, decide, detection_power, runs_needed
from harness.frontend import compat
from harness.inputs import Input
from suites.meta import nights

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "suites" / "meta" / "data" / "small.mxtrt"
NIGHTS = 1000


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", nights.SHAPES.values(), ids=nights.SHAPES)
@pytest.mark.parametrize("runs", [5, 10])
def test_identical_code_is_not_flagged(draw: nights.Draw, runs: int) -> None:
    assert nights.verdicts(draw, 0.0, runs, NIGHTS)[Verdict.SLOWER] < 0.01


def test_a_slowdown_of_five_percent_is_found_with_the_proposed_runs() -> None:
    runs = runs_needed(nights.NOISE, 0.05)
    assert nights.verdicts(nights.normal, 0.05, runs, NIGHTS // 2)[Verdict.SLOWER] > 0.99
    assert nights.verdicts(nights.normal, 0.0, runs, NIGHTS // 2)[Verdict.SLOWER] < 0.01


@pytest.mark.parametrize("effect, runs", [(0.03, 38), (0.05, 20)])
def test_the_stated_power_is_the_real_one(effect: float, runs: int) -> None:
    found = nights.verdicts(nights.normal, effect, runs, 300)[Verdict.SLOWER]
    assert abs(found - detection_power(nights.NOISE, effect, runs)) < 0.12


def test_the_opposite_is_faster() -> None:
    assert nights.verdicts(nights.normal, -0.1, 20, 100)[Verdict.FASTER] > 0.95


@pytest.mark.parametrize(
    "before, after, wanted",
    [
        ([1.0] * 5, [1.0] * 5, Verdict.SAME),
        ([1.0] * 5, [1.1] * 5, Verdict.SLOWER),
        ([1.1] * 5, [1.0] * 5, Verdict.FASTER),
        ([1.0] * 4, [1.0] * 5, Verdict.INCOMPARABLE),
        ([1.0, 1.3, 0.8, 1.1, 0.9], [1.1, 0.9, 1.2, 1.0, 1.3], Verdict.AMBIGUOUS),
    ],
)
def test_each_verdict(before: list[float], after: list[float], wanted: Verdict) -> None:
    found = decide(before, after)
    assert found.verdict is wanted
    assert found.exit_code == (wanted is Verdict.SLOWER)
    assert bool(found.reasons) == (wanted in (Verdict.INCOMPARABLE, Verdict.AMBIGUOUS))


def test_the_order_of_runs_meets_drift_on_both_sides() -> None:
    order = list(verdict.in_turns("AB", 6))
    assert order[:4] == ["A", "B", "B", "A"]
    places = [[n for n, side in enumerate(order) if side == wanted] for wanted in "AB"]
    assert sum(places[0]) == sum(places[1])


def test_percentiles_are_those_of_trtexec() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [statistics.percentile(values, p) for p in (50, 90, 95, 99)] == [50, 90, 95, 99]
    assert statistics.percentile([3.0, 1.0], 99) == 3.0


# --- change points ---------------------------------------------------------------------------------------------------


def _series(seed: int, noise: float, steps: dict[int, float], count: int = 60) -> list[float]:
    rng = np.random.default_rng(seed)
    level = np.ones(count)
    for index, change in steps.items():
        level[index:] *= 1 + change
    return list(level * np.exp(rng.normal(0, noise, count)))


def test_a_step_is_found_and_the_commits_are_blamed() -> None:
    commits = [f"commit{n}" for n in range(60)]
    (found,) = change_points(_series(1, 0.01, {40: 0.05}), commits)
    assert abs(found.index - 40) <= 1
    assert abs(found.change - 0.05) < 0.015
    assert (found.good, found.bad) == (commits[found.index - 1], commits[found.index])


def test_two_steps_are_two() -> None:
    found = change_points(_series(2, 0.01, {20: 0.1, 45: -0.08}))
    assert [round(point.change, 1) for point in found] == [0.1, -0.1]


def test_quiet_series_stay_quiet() -> None:
    found = sum(bool(change_points(_series(seed, 0.02, {}))) for seed in range(200))
    assert found <= 8, f"{found} of 200 stationary series have a change point"


def test_steps_are_found() -> None:
    found = sum(
        any(abs(point.index - 30) <= 2 for point in change_points(_series(seed, 0.01, {30: 0.05})))
        for seed in range(50)
    )
    assert found >= 48


def test_long_series_use_windows() -> None:
    found = change_points(_series(4, 0.01, {150: 0.06, 300: 0.06}, 400))
    assert [abs(point.index - wanted) <= 2 for point, wanted in zip(found, (150, 300), strict=True)] == [True, True]


def test_energy_distance_is_the_definition() -> None:
    """The cut of the fast sums is the one that the definition's double sums choose."""
    values = np.array(_series(6, 0.05, {9: 0.1}, 16))

    def energy(cut: int) -> float:
        left, right = values[:cut], values[cut:]

        def within(part: np.ndarray) -> float:
            return sum(abs(a - b) for n, a in enumerate(part) for b in part[:n]) * 2 / (len(part) * (len(part) - 1))

        between = sum(abs(a - b) for a in left for b in right) * 2 / (len(left) * len(right))
        return len(left) * len(right) / len(values) * (between - within(left) - within(right))

    assert best_cut(values) == max(range(2, 15), key=energy)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 30])
def test_short_and_constant_series(values: list[float]) -> None:
    assert change_points(values) == []


@pytest.mark.parametrize("values, commits", [([1.0, math.nan], ()), ([1.0, 2.0], ("a",))])
def test_change_points_refuse(values: list[float], commits: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        change_points(values, commits)


@pytest.mark.parametrize("seed", range(6))
def test_apache_otava_agrees(seed: int) -> None:
    otava = pytest.importorskip(
        "otava.analysis", reason="the oracle is not installed (pip install --no-deps apache-otava)"
    )
    values = _series(seed, 0.01, {25: 0.06, 45: -0.05})
    theirs, _ = otava.compute_change_points(values, 50, changepoints.P_VALUE, changepoints.MIN_CHANGE)
    ours = [point.index for point in change_points(values)]
    assert len(ours) == 2
    assert all(min(abs(one - point.index) for point in theirs) <= 1 for one in ours)
    assert len(theirs) <= 3  # the population's deviation makes it a little more eager


# --- clocks and machines ---------------------------------------------------------------------------------------------


def test_the_loop_costs_less_than_a_percent_of_a_millisecond() -> None:
    assert min(clocks.overhead(5000) for _ in range(3)) < 1e-5


def test_measure_takes_what_it_takes() -> None:
    taken = clocks.measure(lambda: time.sleep(0.002), 0.0, 0.0, 5)
    assert len(taken) == 5
    assert min(taken) >= 0.002


def test_virtual_clock() -> None:
    clock = clocks.VirtualClock()
    clock.advance(0.25)
    assert clock() == 0.25
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_machine_record() -> None:
    record = machine.record()
    assert set(machine.DECISIVE) <= set(record)
    assert record["cpu"]
    assert record["cores"] >= 1
    assert machine.differences(record, machine.record()) == []
    json.dumps(record)


@pytest.mark.parametrize("key", machine.DECISIVE)
def test_every_decisive_difference_is_incomparable(key: str) -> None:
    record = machine.record()
    reasons = machine.differences(record, {**record, key: "another"})
    assert decide([1.0] * 5, [2.0] * 5, differences=reasons).verdict is Verdict.INCOMPARABLE
    assert key in reasons[0]


# --- stored sessions -------------------------------------------------------------------------------------------------


def _store(root: Path, scale: float = 1.0, yardstick: float = 1e-3, **changes: object) -> Path:
    record = {**machine.record(), **changes}
    cell = {"runs": [scale * (1 + n / 1000) for n in range(5)], "yardstick": [yardstick] * 5, "median": scale}
    return baseline.save(root, record, {"cell": cell}, "night")


@pytest.mark.parametrize(
    "scale, yardstick, code, word",
    [(1.0, 1e-3, 0, "SAME"), (1.3, 1e-3, 1, "SLOWER"), (0.7, 1e-3, 0, "FASTER"), (1.3, 1.3e-3, 0, "INCOMPARABLE")],
)
def test_compare_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: float, yardstick: float, code: int, word: str
) -> None:
    _store(tmp_path)
    _store(tmp_path, scale, yardstick)
    assert compare(["--storage", str(tmp_path)]) == code
    assert word in capsys.readouterr().out


def test_compare_without_baseline_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(["--storage", str(tmp_path)]) == 0
    assert "--benchmark-save" in capsys.readouterr().out


def test_other_hardware_is_incomparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = _store(tmp_path, cpu="another")
    _store(tmp_path, 2.0)
    assert compare([str(other), "--storage", str(tmp_path)]) == 0
    assert "INCOMPARABLE" in capsys.readouterr().out


def test_history_blames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        _store(tmp_path, 1.0 if number < 6 else 1.2)
    assert compare(["--history", "--storage", str(tmp_path)]) == 0
    assert "+20.0% at point 6" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"benchmarks": [1], "machine_info": {}}'])
def test_damaged_baselines_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001_x.json").write_text(text)
    with pytest.raises(OptionError, match="0001_x.json"):
        baseline.read(tmp_path / "0001_x.json")


PLANTED = """
import os, pytest
@pytest.mark.parametrize("cell", ["a", "b"])
def test_cell(benchmark, cell):
    scale = float(os.environ["SCALE"]) if cell == "b" else 1.0
    benchmark.pedantic(lambda: None, rounds=2)
    benchmark.extra_info.update(runs=[0.01 * scale * (1 + n / 1000) for n in range(5)], yardstick=[1e-3] * 5, median=0.01 * scale)
"""


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """pytest, with our plugin, on two cells of which one can be slowed down."""
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.benchmark.pytest_plugin"]\n')
    (tmp_path / "test_planted.py").write_text(PLANTED)

    def run(*arguments: str, scale: float = 1.0, storage: str = "hardware") -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--benchmark-storage={tmp_path / 'stored' / storage}",
            *arguments,
        ]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        environment = {**own, "PYTHONPATH": str(ROOT), "SCALE": str(scale)}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False
        )

    return run


def test_pytest_compares_as_typed(session: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    first = session("--benchmark-compare")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "--benchmark-save=baseline" in first.stdout
    assert session("--benchmark-save=baseline").returncode == 0
    same = session("--benchmark-compare")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "2 SAME" in same.stdout
    slower = session("--benchmark-compare", scale=1.2)
    assert slower.returncode == 1, slower.stdout + slower.stderr
    assert "1 SLOWER, 1 SAME" in slower.stdout
    assert re.search(r"SLOWER +cell: b +10 ms +12 ms +1.200", slower.stdout), slower.stdout
    assert "Against 0001_baseline.json" in slower.stdout
    report = slower.stdout[slower.stdout.index("= verdict =") :]
    assert max(map(len, report.splitlines())) <= 80
    elsewhere = session("--benchmark-compare", scale=1.2, storage="hardware2")
    assert elsewhere.returncode in (0, 1)


def test_pytest_on_other_hardware_is_neither_red_nor_green(
    session: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert session("--benchmark-save=baseline").returncode == 0
    (path,) = (tmp_path / "stored").rglob("*.json")
    content = json.loads(path.read_text())
    content["machine_info"]["mxtrt"]["cpu"] = "another"
    path.write_text(json.dumps(content))
    for storage in ("hardware", "elsewhere"):
        done = session("--benchmark-compare", scale=2.0, storage=storage)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 INCOMPARABLE" in done.stdout
        assert "cpu was 'another'" in done.stdout


def test_results_are_recorded(session: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "test_more.py").write_text(
        "import pytest\ndef test_no(record_property):\n    record_property('operator', 'relu')\n    assert 1 == 2, 'reason'\n"
        "@pytest.mark.skip(reason='why')\ndef test_skipped(): pass\n@pytest.mark.xfail(reason='known')\ndef test_known(): assert 0\n"
    )
    assert session("--record-results", "out.jsonl", "test_more.py").returncode == 1
    rows = {
        row["test"].rpartition("::")[2]: row
        for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    }
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "test_no": "failed",
        "test_skipped": "skipped",
        "test_known": "xfailed",
    }
    assert rows["test_no"]["properties"] == {"operator": "relu"}
    assert "reason" in rows["test_no"]["reason"]


# --- sides, runs and scenarios ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not compat.available(), reason="MXNet is not installed")
def test_a_side_takes_the_rest_from_the_first() -> None:
    first = sides.parse("zoo:resnet18_v1,threads=2", {"data": Input((4, 3, 64, 64))})
    second = sides.parse("engine=mxnet,commit=HEAD~1", {}, first)
    assert (second.model, second.engine, second.commit, second.options) == (
        "zoo:resnet18_v1",
        "mxnet",
        "HEAD~1",
        {"threads": 2},
    )
    assert second.batch == 4


@pytest.mark.parametrize(
    "text, words",
    [
        ("engine=onnxrt", "none of"),
        ("", "names no model"),
        ("nowhere", "no such model"),
        (f"{SMALL},commit=nowhere", "nowhere"),
    ],
)
def test_wrong_sides_are_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=words), sides.prepared(sides.parse(text, {}), tmp_path):
        pass


def test_a_run_is_a_process_with_figures(tmp_path: Path) -> None:
    with sides.prepared(sides.parse(str(SMALL), {}), tmp_path) as (side, tree):
        found = sides.run(side, tree, 0.1, 0.0)
    assert found.summary.queries >= 10
    assert found.summary.minimum <= found.summary.median <= found.summary.p99 <= found.summary.maximum
    assert 0 < found.setup < found.first_answer
    assert found.peak_rss > 10 * 2**20


# The server scenario holds a 99th percentile: beside another test process it says something of the machine, not of us.
SCENARIOS = [pytest.param(n, marks=pytest.mark.slow) if n == "server" else n for n in scenarios.NAMES]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_loadgen_is_valid(scenario: str, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed (extra loadgen)")
    with sides.prepared(sides.parse(str(SMALL), {}), tmp_path) as (side, tree):
        found = scenarios.run(side, tree, scenario, 1.0, 500.0, "loadgen")
    assert found.valid, found.reasons
    assert found.value > 0
    assert found.by == "loadgen"


@pytest.mark.parametrize("scenario", scenarios.IN_PYTHON)
def test_scenarios_without_loadgen(scenario: str, tmp_path: Path) -> None:
    with sides.prepared(sides.parse(str(SMALL), {}), tmp_path) as (side, tree):
        found = scenarios.run(side, tree, scenario, 0.2, None, "python")
    assert found.valid
    assert found.queries >= (64 if scenario == "single_stream" else 1)
    assert found.p50 <= found.p90 <= found.p99
