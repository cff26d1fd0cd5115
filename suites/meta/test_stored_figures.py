"""The scripts that store figures: what they measure, when they go on and when they begin anew, and their picture."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
pytest.importorskip("scipy", reason="verdicts need SciPy")

from harness.benchmark import machine
from harness.benchmark.verdict import Verdict
from scripts import bench_verdict, bench_zoo, gpu_speed_table, rows, scale_fleet, sweep_fleet
from suites.meta import full_report, nights

ROOT = Path(__file__).parents[2]


def options(**changes: Any) -> argparse.Namespace:
    given = {
        "engine": "onnxruntime",
        "threads": 2,
        "seconds": 8,
        "against": [],
        "quick": False,
        "again": False,
        "draw": False,
    }
    return argparse.Namespace(**{**given, **changes})


def row(job: bench_zoo.Job) -> dict[str, Any]:
    return {**full_report.speed(1)["measured"][0], "network": job.network, "batch": job.batch, "precision": job.precision, "seconds": 30.0}  # fmt: skip


# --- the ratios ------------------------------------------------------------------------------------------------------


def test_every_network_of_the_suite_is_measured_first() -> None:
    jobs = bench_zoo.jobs(quick=False)
    assert len(set(jobs)) == len(jobs)
    plain = [job.network for job in jobs if (job.batch, job.precision) == (1, "fp32")]
    assert [job.network for job in jobs[: len(plain)]] == plain
    assert {job.precision for job in jobs} == {"fp32", "int8"}
    assert {job.batch for job in jobs} == {1, 8, 32}


@pytest.mark.mxnet
def test_gluon_s_zoo_is_the_suite_s() -> None:
    from suites.models.gluon_zoo import NAMES

    assert set(bench_zoo.GLUON) == set(NAMES)


def test_the_picture_has_every_network(tmp_path: Path) -> None:
    jobs = bench_zoo.jobs(quick=False)
    document = {**full_report.speed(0), "measured": [*map(row, jobs), {**row(jobs[0]), "error": "it broke"}]}
    assert bench_zoo.write(tmp_path / "speed.json", document) == 0
    picture = ElementTree.parse(tmp_path / "speed.svg").getroot()
    words = "".join(picture.itertext())
    for text in (*(job.network for job in jobs), "batch 32", "int8, MXNet in fp32", "ResNet v2"):
        assert text in words
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert len(stored["rows"]) == len(jobs)
    assert {len(line) for line in stored["rows"]} == {len(stored["columns"])}


def test_it_goes_on_at_the_same_commit_only(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    begun = bench_zoo.stored(out, options())
    assert begun["measured"] == []
    done = {**begun, "measured": [row(bench_zoo.Job("vgg11"))]}
    bench_zoo.write(out, done)
    assert bench_zoo.stored(out, options())["measured"] == done["measured"]
    assert bench_zoo.stored(out, options(seconds=1))["measured"] == []
    assert bench_zoo.stored(out, options(again=True))["measured"] == []
    for change in ({"commit": "another"}, {"machine": {**machine.record(), "cores": 999}}):
        bench_zoo.write(out, {**done, **change})
        assert bench_zoo.stored(out, options())["measured"] == []
        assert bench_zoo.stored(out, options(draw=True))["measured"] == done["measured"]


def test_the_time_left_is_what_it_took(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    jobs = bench_zoo.jobs(quick=True)
    assert bench_zoo.minutes(jobs, out) == math.ceil(len(jobs) * bench_zoo.A_JOB / 60)
    bench_zoo.write(out, {**full_report.speed(0), "measured": [{**row(jobs[0]), "seconds": 600.0}]})
    assert bench_zoo.minutes(jobs[:2], out) == 20


def test_sides_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "AB"}
    taken = bench_zoo.interleaved(calls, 0, 4)
    assert {name: len(times) for name, times in taken.items()} == {"A": 4, "B": 4}
    assert "".join(order) == "AB" + "AAABBB" + "BBBAAA" + "AAABBB" + "BBBAAA"


@pytest.mark.slow
@pytest.mark.mxnet
def test_a_network_is_measured_and_stored(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/bench_zoo.py", "--only", "^mobilenet0.25 x1 fp32", "--seconds", "1", "--out", str(tmp_path / "s.json")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "s.json").read_text())["measured"]
    for name in bench_zoo.REFERENCES:
        assert found[name]["low"] <= found[name]["ratio"] <= found[name]["high"]
        assert found[name]["difference"] < 1e-3
    assert found["memory"] > 2**26 < found["mxnet_memory"]


# --- rows held to bars -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, bar, at_least, met", [(1, 2, False, True), (3, 2, False, False), (3, 2, True, True), (1, 2, True, False)]
)
def test_a_bar_is_met_or_missed(value: float, bar: float, at_least: bool, met: bool) -> None:
    found = rows.row("what", value, bar, "s", at_least, why=1)
    assert found["met"] is met
    assert rows.cells(found) == [
        "what", f"{value} s", f"{'at least' if at_least else 'at most'} {bar} s", "yes" if met else "no"
    ]  # fmt: skip
    assert found["details"] == {"why": 1}


def test_a_row_that_fails_is_a_missed_bar(tmp_path: Path) -> None:
    found = rows.measured("scripts.bench_verdict", "no-such-row", 60)
    assert not found["met"]
    assert "no-such-row" in rows.cells(found)[1]


def test_other_rows_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "verdict.json"
    kept = rows.row("what was", 1, 2)
    rows.store(out, "make it", {"identical": kept})
    command = [sys.executable, "-m", "scripts.bench_verdict", "--row", "loop", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    results = json.loads(out.read_text())["results"]
    assert set(results) == {"identical", "loop"}, done.stderr
    assert results["identical"] == kept
    assert done.returncode == (0 if results["loop"]["met"] else 1)


def test_recorded_noise_has_its_shape_and_the_wanted_spread() -> None:
    import numpy as np

    draw = nights.recorded([[1.0, 1.0, 1.0, 1.0, 1.3], [2.0, 2.0, 2.0, 2.0, 2.6]])
    drawn = np.log(draw(np.random.default_rng(0), 20_000))
    assert abs(drawn.std() - nights.NOISE) < 0.002
    assert len(np.unique(drawn.round(9))) == 2, "nothing but what was recorded"
    found = nights.verdicts(draw, 0.1, 20, 50)
    assert sum(found.values()) == pytest.approx(1)
    assert found[Verdict.SLOWER] > 0.9


def test_repetitions_begin_anew_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_verdict, "RECORD", tmp_path / "repetitions.json")
    begun = bench_verdict._begun()
    assert begun["repetitions"] == []
    done = {**begun, "repetitions": [{"verdict": "SAME"}]}
    bench_verdict.RECORD.write_text(json.dumps(done))
    assert bench_verdict._begun() == json.loads(json.dumps(done))
    bench_verdict.RECORD.write_text(json.dumps({**done, "commit": "another"}))
    assert bench_verdict._begun()["repetitions"] == []


# --- a sweep that was disturbed --------------------------------------------------------------------------------------

FLEET = json.loads((ROOT / "reports" / "fleet.json").read_text("utf-8"))


@pytest.mark.parametrize("name", sweep_fleet.SUITES)
def test_the_stored_sweep_is_pytest_s_answer(name: str) -> None:
    found = FLEET["sweep"][name]
    assert sweep_fleet.sound(found)
    assert found["states"] == found["states_of_pytest"]
    assert not {"failed", "error"} & set(found["states"])
    assert sum(found["states"].values()) == found["cells"] > found["batches"] > found["nodes"] == 2
    killed, interruption = found["killed_node"], found["interruption"]
    assert killed["cells_answered"] > 0 < killed["cells_under_way"] <= killed["cells_of_these"]
    assert interruption["cells_known"] + interruption["cells_run_after_it"] == found["cells"]
    assert 0 < interruption["cells_under_way"] <= interruption["cells_of_these"]
    assert found["exit_codes"] == {"pytest": 0, "undisturbed": 0, "interrupted": 130, "resumed": 0}
    assert all(figure > 0 for figure in found["seconds"].values())
    assert set(found["load"]) <= set(found["seconds"])


def test_the_page_has_what_the_figures_say() -> None:
    assert scale_fleet.page() == (ROOT / "docs" / "fleet.md").read_text("utf-8"), "python -m scripts.scale_fleet"


@pytest.mark.parametrize("name", ["differ", "known_cells_run_again", "run_twice_for_no_reason"])
def test_a_sweep_with_another_answer_is_not_sound(name: str) -> None:
    lost = {"killed_node": {"batches_run_anew": 1}}
    found = {"differ": [], "known_cells_run_again": 0, "run_twice_for_no_reason": [], **lost}
    assert sweep_fleet.sound(found)
    assert not sweep_fleet.sound({**found, "killed_node": {"batches_run_anew": 0}}), "nothing was lost"
    assert not sweep_fleet.sound({**found, name: ["a cell"]})


def test_answers_are_told_apart(tmp_path: Path) -> None:
    """By state, by reason and by property, but not by what the sweep itself notes."""

    def answer(inside: str) -> sweep_fleet.Answer:
        path = tmp_path / "junit.xml"
        path.write_text(f'<testsuite><testcase classname="a" name="b">{inside}</testcase></testsuite>')
        (found,) = sweep_fleet.table(path).values()
        return found

    texts = [
        "", '<failure message="one"/>', '<failure message="two"/>', '<skipped message="one"/>',
        '<skipped message="one" type="pytest.xfail"/>', '<properties><property name="headroom" value="0.5"/></properties>',
    ]  # fmt: skip
    assert len({repr(answer(text)) for text in texts}) == len(texts)
    assert answer('<properties><property name="cell" value="a::b"/></properties>') == answer("")


def test_what_a_killed_process_left_half_written_is_no_line(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"cell": 1}\n{"cell": 2')
    assert sweep_fleet._lines(tmp_path / "lines") == [{"cell": 1}]
    assert sweep_fleet._lines(tmp_path / "absent") == []


# --- nights on GPUs --------------------------------------------------------------------------------------------------


def night(path: Path, gpu: str, cells: dict[tuple[str, int], dict[str, float]], named: bool = True) -> Path:
    """A document of scripts/gpu_speed.py; ``cells``: (network, batch) -> the milliseconds of each contender."""
    measured = []
    for (network, batch), times in cells.items():
        rows = {
            key: {"wall_ms": ms, "gpu_ms": ms, "img_s": batch / ms * 1e3, "walls_ms": [ms]} for key, ms in times.items()
        }
        precisions = [key.removeprefix("mxtrt ") for key in times if key.startswith("mxtrt ")]
        cell = {"network": network, "batch": batch, "rows": rows, "ratios": gpu_speed_table.ratios(rows, precisions)}
        measured.append({**cell, "torch_input": "float32", **({"gpu": gpu} if named else {})})
    path.write_text(json.dumps({"machine": {"gpu": f"{gpu}, driver 1"}, "cells": measured}))
    return path


def test_a_plan_that_was_found_says_nothing_of_building_it() -> None:
    def built(seconds: float, **more: Any) -> dict[str, Any]:
        return {"kind": "fp16", "network": "a", "batch": 1, "seconds": seconds, **more}

    found = gpu_speed_table.document({}, [], [], [])
    for row, wanted in (
        (built(9, error="late"), 9),
        (built(3, hit=True), 3),
        (built(7, hit=False), 7),
        (built(2, hit=True), 7),
    ):
        found = gpu_speed_table.joined(found, [], [], [row], {})
        assert [one["seconds"] for one in found["builds"]] == [wanted]


def test_nights_are_joined_cell_by_cell_and_gpu_by_gpu(tmp_path: Path) -> None:
    def fp16(ms: float) -> dict[str, float]:
        return {"mxtrt fp16": ms, "raw fp16": 1.0, "torch eager": 3.0, "torch.compile default": 2.0}

    first = night(tmp_path / "1", "NVIDIA H100 80GB HBM3", {("a", 1): fp16(1.0), ("a", 8): fp16(1.0)}, named=False)
    second = night(tmp_path / "2", "NVIDIA H200", {("a", 1): fp16(1.6), ("b", 1): {"torch eager": 3.0}})
    third = night(tmp_path / "3", "NVIDIA H200", {("a", 1): fp16(1.25)})
    found = gpu_speed_table.join([first, second, third])
    table = {(line[0], line[1], line[-1]): line[5:7] for line in found["rows"]}
    assert table == {
        ("a", "1", "H100"): ["2.00x", "0.0 %"], ("a", "8", "H100"): ["2.00x", "0.0 %"],
        ("a", "1", "H200"): ["1.60x", "25.0 %"],
    }, "the third night's in place of the second's, and nothing of a cell without ours"  # fmt: skip
    missed = [result["what"] for result in found["results"] if not result["met"]]
    assert missed == ["a, batch 1, H200: fp16 over raw enqueue"]
