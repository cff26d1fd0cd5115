"""The mutation runner: its faults are faults, a sample of them is caught, and a blind suite is seen to be blind.

The whole: ``python -m suites.meta.mutate --count 500 --json reports/faults.json`` (docs/error-model.md).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.frontend import compat
from harness.operators import registry

if not compat.available():
    pytest.skip("MXNet is not installed", allow_module_level=True)

from suites.ops.case import Case, Tensor

from . import planting
from .equivalent import EXPLAINED
from .isolation import each
from .known import Known, KnownLoop, KnownRange, Store
from .mutate import Judge, explained, score
from .planting import Fault, all_faults, choose, functions_of, planted

ROOT = Path(__file__).parents[2]
OPERATORS = (
    "dot",
    "Pooling",
    "BatchNorm",
    "_npi_around",
    "slice_axis",
    "_linalg_trsm",
    "SequenceMask",
    "_image_normalize",
)
SAMPLE = 40


@pytest.fixture(scope="module")
def faults() -> dict[Fault, tuple[str, ...]]:
    return all_faults()


def fault_of(faults: dict[Fault, tuple[str, ...]], **wanted: Any) -> Fault:
    """The first fault with these fields."""
    return next(fault for fault in faults if all(getattr(fault, name) == value for name, value in wanted.items()))


# --- the figure ------------------------------------------------------------------------------------------------------


@pytest.mark.mxnet
def test_a_sample_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    arguments = ["--count", str(SAMPLE), "--json", str(path), "--operators", *OPERATORS]
    done = subprocess.run(
        [sys.executable, "-m", "suites.meta.mutate", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text("utf-8"))
    assert len(result["rows"]) == SAMPLE
    assert result["caught"] == result["planted"] >= 0.8 * SAMPLE, done.stdout
    assert all(row["case"] and row["check"] for row in result["rows"] if row["caught"])


def test_the_sample_is_spread(faults: dict[Fault, tuple[str, ...]]) -> None:
    chosen = choose(faults, 600, seed=0)
    assert chosen == choose(faults, 600, seed=0)
    assert len({fault for _, fault in chosen}) == 600
    assert {fault.module for _, fault in chosen} == {fault.module for fault in faults}
    assert {fault.kind for _, fault in chosen} == {fault.kind for fault in faults}
    assert len({operator for operator, _ in chosen}) > 250
    assert all(operator in faults[fault] for operator, fault in chosen)


def test_every_operator_with_code_of_its_own_has_faults(faults: dict[Fault, tuple[str, ...]]) -> None:
    """The others do nothing at inference, or only ask for the shape."""
    without = set(registry.definitions()) - {name for served in faults.values() for name in served}
    assert len(without) < 20
    assert {"Convolution", "sin", "_npi_less_scalar", "_foreach"}.isdisjoint(without)


# --- planting --------------------------------------------------------------------------------------------------------


def test_every_fault_changes_the_code(faults: dict[Fault, tuple[str, ...]]) -> None:
    for fault in [fault for fault in faults if fault.first_line and isinstance(fault.place, int)][::40]:
        (own,) = {f.__code__ for o in faults[fault] for f in functions_of(o) if planting.is_of(f, fault)}
        code = planting.code_with(fault, faults[fault])
        assert _content(code) != _content(own), fault


def _content(code: Any) -> tuple[Any, ...]:
    constants = tuple(_content(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts)
    return code.co_code, constants, code.co_names


@pytest.mark.parametrize(
    "wanted",
    [
        dict(function="dot", kind="negated condition"),
        dict(function="_native.<locals>.<lambda>", change="op_type='Sin' -> op_type='Cos'"),
        dict(function="_ACTIVATIONS", place="tanh"),
        dict(function="_FIRST", kind="wrong constant"),
        dict(function="_register_position.<locals>.lower", kind="negated condition"),
    ],
    ids=lambda wanted: wanted["function"],
)
def test_a_fault_is_there_and_leaves_no_trace(faults: dict[Fault, tuple[str, ...]], wanted: dict[str, Any]) -> None:
    fault = fault_of(faults, **wanted)
    before = _state(fault, faults[fault])
    with planted(fault, faults[fault]):
        assert _state(fault, faults[fault]) != before
    assert _state(fault, faults[fault]) == before


def _state(fault: Fault, operators: tuple[str, ...]) -> list[Any]:
    """Code, closures and globals of what a fault may change."""
    functions = [function for operator in operators for function in functions_of(operator)]
    cells = [cell.cell_contents for f in functions for cell in f.__closure__ or ()]
    module = vars(sys.modules[fault.module])
    return [[f.__code__ for f in functions], cells, repr(module.get(fault.function))]


def test_one_code_of_many_operators_is_changed_in_all_of_them(faults: dict[Fault, tuple[str, ...]]) -> None:
    fault = fault_of(faults, function="_register_exact.<locals>.lower", kind="negated condition")
    assert len(faults[fault]) > 10
    own = {registry.definitions()[name].lower.__code__ for name in faults[fault]}
    with planted(fault, faults[fault]):
        changed = {registry.definitions()[name].lower.__code__ for name in faults[fault]}
    assert len(own) == len(changed) == 1
    assert own != changed


def test_explanations_are_of_faults_that_exist(faults: dict[Fault, tuple[str, ...]]) -> None:
    """An argument about a line that is gone explains nothing."""
    stale = [item for item in EXPLAINED if not item.why.strip() or not any(item.fits(fault) for fault in faults)]
    assert not stale


# --- judging ---------------------------------------------------------------------------------------------------------


class OneCase(Store):
    """A store that knows one case alone."""

    def __init__(self, known: Known) -> None:
        self.known = known

    def load(self, operator: str) -> list[Any]:
        return [self.known]


def _known(folder: Path, case: Case) -> Known:
    return Store(folder).known(case, dynamic=False)


@pytest.mark.mxnet
@pytest.mark.parametrize("kind", [KnownLoop, KnownRange])
def test_what_judges_beside_the_cases_runs(kind: type[KnownLoop]) -> None:
    """They are tests of the suite, whose arguments may change."""
    assert not kind(0, False, frozenset()).wrong()


@pytest.mark.mxnet
@pytest.mark.parametrize("values, seen", [(None, True), ([0.0], False)], ids=["numbers", "zeros"])
def test_a_blind_suite_is_seen(
    tmp_path: Path, faults: dict[Fault, tuple[str, ...]], values: list[float] | None, seen: bool
) -> None:
    """Zeros tell nothing, numbers do: it is not the runner that makes the figure."""
    case = Case("hard_sigmoid", {"alpha": "0.3"}, {"data": Tensor((3, 4), values=values)})
    judge = Judge(OneCase(_known(tmp_path, case)), ["hard_sigmoid"])
    fault = fault_of(faults, function="hard_sigmoid", change="a.alpha -> ignored(a, 'alpha')")
    (row,) = judge.run([("hard_sigmoid", fault, faults[fault])], workers=1)
    assert row.caught is seen
    assert row.reaching == 1
    assert seen or row.changed == 1
    assert score([row]) == (int(seen), 1)


@pytest.mark.mxnet
def test_a_fault_that_ends_the_process_is_caught(tmp_path: Path, faults: dict[Fault, tuple[str, ...]]) -> None:
    class Deadly(Known):
        def wrong(self) -> str:
            os.kill(os.getpid(), signal.SIGSEGV)
            return ""

    known = _known(tmp_path, Case("hard_sigmoid", {}, {"data": Tensor((3, 4))}))
    judge = Judge(OneCase(Deadly(known.case, False, known.answers, known.lines)), ["hard_sigmoid"])
    fault = fault_of(faults, function="hard_sigmoid", kind="ignored attribute")
    (row,) = judge.run([("hard_sigmoid", fault, faults[fault])], workers=1)
    assert row.caught
    assert row.check == "process: SIGSEGV"


@pytest.mark.parametrize("caught, changed, equivalent", [(False, 0, True), (False, 2, False), (True, 0, False)])
def test_a_refuted_explanation_fails_the_run(
    faults: dict[Fault, tuple[str, ...]], caught: bool, changed: int, equivalent: bool
) -> None:
    claimed = [item for item in EXPLAINED if item.equivalent and item.same_graph]
    row = explained(next(fault for fault in faults if any(item.fits(fault) for item in claimed)), caught, changed)
    assert row["why"]
    assert row["equivalent"] is equivalent
    assert row["refuted"] is not equivalent


# --- isolation -------------------------------------------------------------------------------------------------------


def _work(task: str, report: Any) -> str:
    report(f"about to {task}")
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    while task == "loop":
        pass
    if task == "wait":
        time.sleep(600)
    if task == "raise":
        raise ValueError("an error of the work itself")
    if task == "grow":
        return str(len(bytearray(1 << 40)))
    return task.upper()


def test_each_task_ends_on_its_own() -> None:
    found = dict(each(["work", "die", "loop", "wait", "raise", "grow", "go on"], _work, seconds=0.2, together=3))
    assert {name: outcome.value for name, outcome in found.items() if outcome.value} == {
        "work": "WORK",
        "go on": "GO ON",
    }
    assert found["die"].death == "SIGSEGV"
    assert found["loop"].death == found["wait"].death == "time limit"
    assert "an error of the work itself" in found["raise"].death
    assert "MemoryError" in found["grow"].death
    assert all(outcome.step == f"about to {name}" for name, outcome in found.items())


def test_each_step_has_the_time_limit_anew() -> None:
    def slow(task: str, report: Any) -> str:
        for step in range(6):
            report(str(step))
            until = time.process_time() + 0.3
            while time.process_time() < until:
                pass
        return task

    ((_, outcome),) = each(["done"], slow, seconds=1)
    assert outcome.value == "done"
