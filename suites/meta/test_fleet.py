"""The suites on a real Ray cluster of two nodes of this machine: what is lost runs again, what is known does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.errors import ArtifactError, OptionError
from harness.fleet.cells import Cell
from harness.fleet.journal import Journal, Result
from harness.fleet.report import died, state_of
from scripts.sweep_fleet import Answer, table

HOME = Path(harness.__file__).parent.parent

SUITE = """
import os
import pytest

def note(name):
    with open(os.environ["MXTRT_LOG"], "a") as file:
        file.write(name + "\\\\n")

@pytest.mark.parametrize("number", range(12))
def test_number(number, record_property):
    note(f"number{number}")
    record_property("square", number ** 2)
    if number == 3:
        pytest.skip("three is skipped")
    if number == 5:
        pytest.xfail("five is refused")
    assert number != 7, "seven is wrong"

@pytest.fixture
def broken():
    yield
    raise RuntimeError("cannot clean up")

def test_clean_up(broken):
    note("clean_up")

@pytest.mark.gpu
@pytest.mark.parametrize("name", ["a", "b"])
def test_kind(name):
    note(f"kind{name}")
    with open(os.environ["MXTRT_LOG"] + ".gpus", "a") as file:
        print(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)

def test_dies():
    note("dies")
    if os.environ["MXTRT_DIES"] == "yes":
        os.kill(os.getpid(), 9)
"""

CONFTEST = """
def pytest_configure(config):
    if not config.option.markexpr:
        config.option.markexpr = "not gpu"  # as the real one has it
"""
ALL = ("-m", "gpu or not gpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head; a test adds the node that it kills."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mxtrt[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield found
        finally:
            found.shutdown()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small suite in a project of its own; where its cells write down that they ran."""
    project = tmp_path / "project"
    (project / "cells").mkdir(parents=True)
    (project / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu: on each kind"]\n')
    (project / "conftest.py").write_text(CONFTEST)
    (project / "cells" / "test_small.py").write_text(SUITE.replace("\\\\n", "\\n"))
    shutil.copytree(HOME / "harness", project / "harness", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    monkeypatch.chdir(project)
    monkeypatch.setenv("MXTRT_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("MXTRT_DIES", "no")
    return tmp_path / "log"


def plain_pytest(folder: Path, *arguments: str) -> dict[tuple[str, str], Answer]:
    path = folder / "plain.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return table(path)


def sweep(cluster: Any, output: Path, paths: list[str], **options: Any) -> Any:
    from harness.fleet.cluster import sweep as run

    return run(paths, output, ray=cluster.address, **options)


@pytest.mark.mxnet
@pytest.mark.slow  # minutes on two cores
def test_a_node_is_killed_mid_sweep(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of operators has pytest's answer although the node that gave the first result is gone."""
    monkeypatch.chdir(HOME)
    monkeypatch.setenv("MXTRT_GPU_ENGINE", "onnxruntime")
    monkeypatch.setenv("MXTRT_GPU_EXAMPLES", "1")
    paths, keyword = ["suites/ops/test_gpu.py"], "tanh and not npi"  # each operator's group in each precision: a batch
    doomed = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    killed: list[str] = []

    def kill(result: Result) -> None:
        if result.node == doomed.node_id and not killed:
            killed.append(result.cell)
            cluster.remove_node(doomed, allow_graceful=False)

    report = sweep(cluster, tmp_path, paths, keyword=keyword, on_result=kill)
    found = table(tmp_path / "junit.xml")
    assert killed, "the second node gave no result, so nothing was lost"
    assert len(found) >= 6
    assert found == plain_pytest(tmp_path, *paths, "-k", keyword, *ALL)
    assert (report.ran, report.resumed) == (len(found), 0)


@pytest.mark.slow  # minutes on two cores
def test_what_is_known_does_not_run_again(cluster: Any, suite: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    seen: list[str] = []

    def interrupt(result: Result) -> None:
        seen.append(result.cell)
        if len(seen) == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        sweep(cluster, tmp_path / "out", ["cells"], batch=3, on_result=interrupt)
    before = Counter(suite.read_text().splitlines())
    with (tmp_path / "out" / "sweep.jsonl").open("a") as file:
        file.write('{"cell": "half a li')  # as a process that was killed leaves it
    report = sweep(cluster, tmp_path / "out", ["cells"], batch=3)
    after = Counter(suite.read_text().splitlines()) - before
    known = {re.sub(r".*test_(\w+)(?:\[(.*)\])?$", r"\1\2", cell) for cell in seen}
    assert len(known) == 6 and report.resumed == 6 and report.ran == 10
    assert not known & set(after), "a cell with a result ran again"
    assert table(tmp_path / "out" / "junit.xml") == plain_pytest(tmp_path, "cells", *ALL)
    states = json.loads((tmp_path / "out" / "sweep.json").read_text())["counts"]["cpu"]
    assert states == {"passed": 12, "failed": 1, "error": 1, "skipped": 1, "xfailed": 1}
    assert not report.ok and any("seven is wrong" in line for line in report.failed)
    assert sweep(cluster, tmp_path / "out", ["cells"], batch=3).ran == 0
    Path("cells/test_more.py").write_text("def test_more(): pass\n")
    with pytest.raises(OptionError, match="other sources"):
        sweep(cluster, tmp_path / "out", ["cells"])


@pytest.mark.slow  # minutes on two cores
def test_a_cell_that_kills_its_process_takes_the_blame_alone(
    cluster: Any, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MXTRT_DIES", "yes")
    report = sweep(cluster, tmp_path / "out", ["cells"], keyword="dies or kind")
    assert report.counts["cpu"] == {"passed": 2, "error": 1}
    (line,) = report.failed
    assert "test_dies" in line and "the process that ran it died" in line


@pytest.mark.slow  # minutes on two cores
def test_gpu_cells_ask_for_their_kind(cluster: Any, suite: Path, tmp_path: Path) -> None:
    """Two nodes that say they have GPUs: each cell marked gpu runs on each kind, the others once and on neither."""
    nodes = {
        kind: cluster.add_node(num_cpus=1, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
        for kind in ("A1", "B2")
    }
    cluster.wait_for_nodes()
    report = sweep(cluster, tmp_path / "out", ["cells"], keyword="kind or dies or clean_up")
    assert {kind: sum(counts.values()) for kind, counts in report.counts.items()} == {"A1": 2, "B2": 2, "cpu": 2}
    journal = [json.loads(line) for line in (tmp_path / "out" / "sweep.jsonl").read_text().splitlines()[1:]]
    for kind, node in nodes.items():
        assert {line["node"] for line in journal if line["kind"] == kind} == {node.node_id}
    with pytest.raises(OptionError, match="A1, B2"):
        sweep(cluster, tmp_path / "other", ["cells"], gpu=["H200"])
    for node in nodes.values():
        cluster.remove_node(node)


@pytest.mark.slow
def test_a_process_sees_one_gpu_all_its_life(cluster: Any, suite: Path, tmp_path: Path) -> None:
    """CUDA would stay on the GPU of the first batch while Ray gives that to another process."""
    node = cluster.add_node(num_cpus=1, num_gpus=2, resources={"accelerator_type:A1": 1})
    cluster.wait_for_nodes()
    sweep(cluster, tmp_path / "out", ["cells"], keyword="kind", batch=1)
    cluster.remove_node(node)
    lines = [line.split() for line in Path(f"{suite}.gpus").read_text().splitlines()]
    assert len(lines) == 2 == len({process for process, _ in lines}), "a process that had a GPU ran another batch"
    assert {gpu for _, gpu in lines} <= {"0", "1"}


def test_a_sweep_of_nothing_is_refused(cluster: Any, suite: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="finds no cells"):
        sweep(cluster, tmp_path / "out", ["cells"], keyword="nothing_has_this_name")
    with pytest.raises(OptionError, match="not a suite under"):
        sweep(cluster, tmp_path / "out", ["../elsewhere"])


# --- without a cluster -----------------------------------------------------------------------------------------------


@pytest.mark.mxnet
def test_cells_for_a_gpu_are_collected_and_run() -> None:
    """By the checkout's own conftest.py, which leaves them out of a plain pytest."""
    code = """
from harness.fleet import cells
found = cells.collect(["suites/ops/test_gpu.py"], cells.CHOSEN, "tanh and fp32 and not npi")
assert found and all(cell.gpu and cell.group for cell in found), found
assert set(cells.run([cell.id for cell in found])) == {cell.id for cell in found}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.mxnet
def test_suites_are_collected_from_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.fleet.cluster import _shipped

    paths = ["suites/ops", "suites/models"]
    monkeypatch.chdir(HOME)
    for name in _shipped(paths):
        if (HOME / name).is_dir():
            shutil.copytree(HOME / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(HOME / name, tmp_path)
    code = f"from harness.fleet import cells; print(len(cells.collect({paths}, '', '')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


def test_what_is_shipped_decides_whether_a_journal_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.fleet.cells import fingerprint
    from harness.fleet.cluster import _shipped

    monkeypatch.chdir(tmp_path)
    for name in ("harness/a.py", "scripts/c.py", "cells/test_a.py", "conftest.py", "pyproject.toml", "other/b.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")
    names = _shipped(["./cells/test_a.py::test_it"])
    assert names == ["cells", "conftest.py", "harness", "pyproject.toml", "scripts"]
    seen = {fingerprint(names)}
    for number, name in enumerate(("harness/a.py", "scripts/c.py", "cells/test_a.py", "conftest.py"), 2):
        Path(name).write_text("changed")
        seen.add(fingerprint(names))
        assert len(seen) == number
    Path("other/b.py").write_text("changed")
    assert fingerprint(names) in seen


def result(cell: str) -> Result:
    return Result(cell, "cpu", (died(cell, "of old age"),), "node", "batch", 1.0)


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_journal_cut_anywhere_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "sweep.jsonl"
    first = Journal(path, {"sources": "x"})
    for cell in ("a.py::b", "a.py::c"):
        first.append(result(cell))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    second = Journal(path, {"sources": "x"})
    assert all(first.results[key] == value for key, value in second.results.items())
    second.append(result("a.py::d"))
    assert ("cpu", "a.py::d") in Journal(path, {"sources": "x"}).results


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    Journal(path, {}).append(result("a.py::b"))
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(ArtifactError, match="line 1 is damaged"):
        Journal(path, {})


def test_batches_keep_groups_together() -> None:
    from harness.fleet.cluster import _batches

    cells = [Cell(f"t.py::{n}", "shared" if n % 2 else "", False) for n in range(10)]
    batches = _batches([("cpu", cell) for cell in cells], 2)
    assert sorted(len(batch.cells) for batch in batches) == [1, 2, 2, 5]
    assert sorted(id for batch in batches for id in batch.cells) == sorted(cell.id for cell in cells)
    later = _batches([("cpu", cell) for cell in cells[4:] if not cell.group], 2)
    assert not {batch.name for batch in later} & {batch.name for batch in batches[:2]}, (
        "a resumed sweep has other names"
    )


def test_the_state_of_a_cell_is_its_worst() -> None:
    passed, failed = '<testcase name="a"/>', '<testcase name="a"><failure message="no"/></testcase>'
    assert state_of([passed]) == ("passed", "")
    assert state_of([passed, failed]) == ("failed", "no")
    assert state_of([died("a.py::b", "x")])[0] == "error"


@pytest.mark.parametrize(
    ("worker", "gpus", "expected"),
    [("gw0", "3,5", "3"), ("gw1", "3,5", "5"), ("gw2", "3,5", "3"), ("gw1", "", ""), ("", "3,5", "3,5")],
)
def test_each_worker_of_a_host_takes_its_own_gpu(worker: str, gpus: str, expected: str) -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTEST_XDIST_WORKER": worker, "PYTEST_XDIST_WORKER_COUNT": "3", "CUDA_VISIBLE_DEVICES": gpus}
    code = "import os, runpy; runpy.run_path('conftest.py'); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=HOME, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == expected, done.stderr
