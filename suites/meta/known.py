"""The operator suite's cases with MXNet's answers: what planted faults are judged by.

MXNet's answers do not depend on the lowerings, so they are computed once, and kept between runs in a folder. So are the
lines of the lowerings that each case runs through: a fault elsewhere cannot change what the case answers.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import itertools
import os
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

from suites.ops import check, test_control, test_open_sizes
from suites.ops.case import Case, Spec, all_specs
from suites.ops.coverage import suite_cases
from suites.ops.limitations import limitation_of
from suites.ops.reference import Answers, answers
from suites.ops.written import to_json

from .isolation import Outcome, Report, each
from .planting import functions_of

HOME = Path(__file__).parents[2]
LOWERINGS = HOME / "harness" / "operators"
CASES = HOME / "suites" / "ops"
_INFRASTRUCTURE = {"context.py", "registry.py", "schema.py", "__init__.py"}
SECONDS = 60  # for one case in MXNet

Line = tuple[str, int]


@dataclass(frozen=True)
class Known:
    """A case with MXNet's answers.

    Attributes:
        case: the case.
        dynamic: whether sizes that may vary are compiled as ranges.
        answers: MXNet's.
        lines: (file name, line) of the lowerings that it runs through.
    """

    case: Case
    dynamic: bool
    answers: Answers
    lines: frozenset[Line]

    def __str__(self) -> str:
        return f"{self.case}{' with varying sizes' if self.dynamic else ''}"

    @property
    def digest(self) -> str:
        """What the verdict of this case depends on, but for the lowerings."""
        return digest(to_json(self.case), self.dynamic, _reference())

    def compiled(self) -> Any:
        """The model, compiled anew."""
        return check.compiled(self.case, self.case.arrays(), "onnxruntime", "fp32", self.dynamic)

    def wrong(self) -> str:
        """What is wrong with the compiled answer; "" if nothing is."""
        model, arrays = self.compiled(), self.case.arrays()
        found = model(**{name: arrays[name] for name in model.input_names})
        return check.judge(self.case, model, found, self.answers, "fp32")[1]


@dataclass(frozen=True)
class KnownLoop:
    """A test of control flow, which draws a whole graph."""

    number: int
    constant: bool
    lines: frozenset[Line]

    def __str__(self) -> str:
        name = test_control.CASES[self.number][0].__name__.strip("_")
        return f"test_control_flow[{name}-{'parameter' if self.constant else 'input'}]"

    @property
    def digest(self) -> str:
        """What the verdict of this case depends on, but for the lowerings: its name; its code is what all share."""
        return str(self)

    def wrong(self) -> str:
        """What is wrong with the compiled answer; "" if nothing is."""
        try:
            test_control.test_control_flow("onnxruntime", *test_control.CASES[self.number], self.constant)
        except AssertionError as error:
            return f"values: {error}"
        return ""


@dataclass(frozen=True)
class KnownRange(KnownLoop):
    """A test of a range that is as long as what it is used with."""

    def __str__(self) -> str:
        attributes, length = _RANGES[self.number]
        return f"test_a_range_is_as_long_as_its_partner[{length}-{attributes}]"

    def wrong(self) -> str:
        """What is wrong with the compiled answer; "" if nothing is."""
        try:
            test_open_sizes.test_a_range_is_as_long_as_its_partner(*_RANGES[self.number])
        except AssertionError as error:
            return f"values: {error}"
        return ""


LOOPS = ("_foreach", "_while_loop", "_cond")
_RANGES = list(itertools.product(test_open_sizes.RANGES, (7, (1, 7, 9))))


@functools.cache
def specs_of() -> dict[str, list[Spec]]:
    """Operator -> its specs."""
    found: dict[str, list[Spec]] = {}
    for spec in all_specs():
        found.setdefault(spec.operator, []).append(spec)
    return found


# --- MXNet's answers -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def traced() -> Iterator[set[Line]]:
    """The lines of the lowerings that are run within it."""
    lines: set[Line] = set()
    files: dict[str, str] = {}

    def local(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            lines.add((files[frame.f_code.co_filename], frame.f_lineno))
        return local

    def called(frame: Any, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if path not in files:
            inside = Path(path).parent == LOWERINGS and Path(path).name not in _INFRASTRUCTURE
            files[path] = Path(path).name if inside else ""
        if not files[path]:
            return None
        lines.add((files[path], frame.f_lineno))
        return local

    before = sys.gettrace()
    sys.settrace(called)
    try:
        yield lines
    finally:
        sys.settrace(before)


def digest(*parts: object) -> str:
    """A short hash of texts."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


@functools.cache
def _text(path: Path) -> str:
    return path.read_text("utf-8")


@functools.cache
def _common() -> str:
    """A digest of what every case depends on: all but the families' files, here and in the suite."""
    families = {*LOWERINGS.glob("*.py"), *(CASES / f"{name}.py" for name in set(_family_files().values()))}
    families -= {LOWERINGS / name for name in _INFRASTRUCTURE}
    paths = [path for folder in (HOME / "harness", CASES) for path in sorted(folder.rglob("*.py"))]
    versions = [f"{name} {metadata.version(name)}" for name in ("hypothesis", "mxnet", "numpy", "onnxruntime")]
    return digest(*versions, *(_text(path) for path in paths if path not in families))


@functools.cache
def _family_files() -> dict[str, str]:
    """Operator -> the module of the suite that its specs are in."""
    found: dict[str, str] = {}
    for path in sorted(CASES.glob("*.py")):
        if not path.name.startswith(("test_", "__")):
            for spec in getattr(importlib.import_module(f"suites.ops.{path.stem}"), "SPECS", []):
                found |= dict.fromkeys([spec.operator, *spec.also], path.stem)
    return found


def _imported(module: str) -> set[str]:
    """A module of the suite, and those that it imports."""
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += re.findall(r"^from \.(\w+) import", _text(CASES / f"{name}.py"), re.MULTILINE)
    return found


@functools.cache
def code(operator: str) -> str:
    """A digest of the code that an operator's answers depend on: what all share, and the functions of its lowering."""
    functions = [function for function in functions_of(operator) if Path(function.__code__.co_filename).is_file()]
    modules = sorted({function.__module__ for function in functions})
    sources = sorted({_source(function.__code__) for function in functions})
    return digest(_common(), *sources, *map(_statements, modules))


_source = functools.cache(inspect.getsource)


@functools.cache
def _statements(module: str) -> str:
    """What a module does when it is imported: its tables and constants, and what it registers in loops."""
    steps = ast.parse(_text(Path(sys.modules[module].__file__ or ""))).body
    kept = [step for step in steps if not isinstance(step, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))]
    return "\n".join(ast.unparse(step) for step in kept)


def _state(operator: str) -> str:
    """A digest of the code that an operator's cases depend on."""
    suite = [CASES / f"{name}.py" for name in _imported(_family_files().get(operator, "test_control"))]
    tests = _RANGES if operator == "_arange" else ()
    return digest(code(operator), *(_text(path) for path in sorted(suite)), *tests)


@functools.cache
def _reference() -> str:
    """A digest of how MXNet's answers come about."""
    return digest(
        *(_text(path) for path in (*sorted((HOME / "harness/numerics").glob("*.py")), CASES / "reference.py"))
    )


class Store:
    """The folder of what is known: MXNet's answers by case, and all cases of an operator by the state of the code."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(platformdirs.user_cache_dir("mxtrt")) / "known"

    def path(self, operator: str) -> Path:
        """Where an operator's cases are, for the code as it is."""
        return self.folder / "cases" / f"{operator}-{_state(operator)}.pickle"

    def load(self, operator: str) -> list[Known | KnownLoop]:
        """An operator's cases, cheap ones first."""
        with self.path(operator).open("rb") as file:
            found: list[Known | KnownLoop] = pickle.load(file)
        return found

    def make(self, operators: Sequence[str], workers: int = 2) -> Iterator[tuple[str, Outcome]]:
        """Compute what is not known yet; yields what went wrong, as an operator and how its process ended.

        A case that MXNet does not survive, or that the lowerings do not, is left out, and the rest computed.
        """
        missing = [operator for operator in operators if not self.path(operator).exists()]
        fatal: dict[str, list[str]] = {operator: [] for operator in missing}
        while missing:
            again = []
            tasks = [(operator, tuple(fatal[operator])) for operator in missing]
            for (operator, _), outcome in each(tasks, self._make, SECONDS, workers, together=4):
                if outcome.death:
                    yield operator, outcome
                    fatal[operator].append(outcome.step)
                    again.append(operator)
                else:
                    for message in outcome.value:
                        yield operator, Outcome(None, message, message, outcome.seconds)
            missing = again

    def _make(self, task: tuple[str, tuple[str, ...]], report: Report) -> list[str]:
        """In the child: all cases of one operator but fatal ones; returns what is wrong with them."""
        operator, fatal = task
        found: list[Known | KnownLoop] = []
        problems = []
        if operator in LOOPS:
            found += _tested(
                [KnownLoop(n, c, frozenset()) for n in range(len(test_control.CASES)) for c in (False, True)], report
            )
        if operator == "_arange":
            found += _tested([KnownRange(n, False, frozenset()) for n in range(len(_RANGES))], report)
        for case, dynamic in [pair for spec in specs_of().get(operator, []) for pair in suite_cases(spec)]:
            text = f"{case}{' with varying sizes' if dynamic else ''}"
            if text in fatal or limitation_of(case, "onnxruntime", "fp32") is not None:
                continue
            report(text)
            try:
                found.append(self.known(case, dynamic))
            except Exception as error:  # noqa: BLE001  the suite itself fails here, which is reported
                problems.append(f"{type(error).__name__}: {error}"[:600])
        _write(self.path(operator), found)
        return problems

    def known(self, case: Case, dynamic: bool) -> Known:
        """A case with its answers and lines; an error if it fails without a fault."""
        path = self.folder / "answers" / f"{digest(to_json(case), _reference())}.pickle"
        if not path.exists():
            _write(path, answers(case, case.arrays(), "fp32"))
        with path.open("rb") as file:
            found = pickle.load(file)
        with traced() as lines:
            check.compiled(case, case.arrays(), "onnxruntime", "fp32", dynamic)
        known = Known(case, dynamic, found, frozenset(lines))
        problem = known.wrong()
        if problem:
            raise AssertionError(f"fails without a fault: {problem}")
        return known


def _tested(tests: Sequence[KnownLoop], report: Report) -> list[KnownLoop]:
    """Tests with the lines that they run through."""
    found = []
    for test in tests:
        report(str(test))
        with traced() as lines:
            problem = test.wrong()
        assert not problem, problem
        found.append(replace(test, lines=frozenset(lines)))
    return found


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
    temporary.replace(path)
