"""What the report is made of: stored results, read as they are; what is missing is said, never invented."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..benchmark import baseline, machine
from ..benchmark.changepoints import ChangePoint, change_points
from ..errors import OptionError

# the worst outcome of a cell's tests is the cell's
_WORST = ("failed", "xfailed", "skipped", "passed")
_SHOWN = {"failed": "fail", "xfailed": "xfail", "skipped": "not run", "passed": "pass"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One operator on one engine at one precision."""

    state: str
    tests: int
    example: str
    reason: str = ""

    @property
    def command(self) -> str:
        return f'pytest "{self.example}"'


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """An operator of MXNet: whether it is lowered, and its cells by (engine, precision)."""

    name: str
    family: str
    lowered: bool
    reason: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class History:
    """A benchmark over the stored sessions, with the latest baseline's band (its runs' range) and change points."""

    name: str
    points: Sequence[tuple[str, str, float]]
    band: tuple[float, float]
    changes: Sequence[ChangePoint]


@dataclass(slots=True)
class Content:
    """Everything on the page."""

    environment: dict[str, Any]
    commit: str
    tests: list[dict[str, Any]] = field(default_factory=list)
    operators: list[OperatorRow] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    gpu_networks: list[dict[str, Any]] = field(default_factory=list)
    speed: dict[str, Any] = field(default_factory=dict)
    history: list[History] = field(default_factory=list)
    headrooms: list[float] = field(default_factory=list)
    limitations: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(one["outcome"] for one in self.tests)

    @property
    def verdict(self) -> str:
        """In a sentence: what is wrong, or what is known to be right."""
        wrong = [f"failing tests: {count}" for count in [self.outcomes["failed"]] if count]
        statuses = Counter(str(row.get("status")) for row in self.networks)
        wrong += [f"networks {status}: {count}" for status, count in statuses.items() if status != "right"]
        cells = Counter(str(cell.get("status")) for row in self.gpu_networks for cell in row.get("cells", {}).values())
        wrong += [f"networks on a GPU {status}: {count}" for status, count in cells.items() if status != "ok"]
        if wrong:
            return "Not everything is right: " + ", ".join(wrong) + "."
        if not (self.tests or self.networks or self.gpu_networks):
            return "Nothing is stored yet, so nothing is claimed."
        return "Everything that was run is right."


def collect(folder: Path, results: Path | None = None) -> Content:
    """Read what is stored in a folder of reports.

    Raises:
        OptionError: a file is damaged, or ``results`` is not there.
    """
    root = folder.resolve().parent
    content = Content(machine.record(), machine.commit(root) or "unknown")
    results = _results_file(folder, results)
    content.tests = _lines(results) if results else []
    content.networks = _list(folder / "zoo.json")
    content.gpu_networks = _gpu(folder)
    content.speed = _mapping(folder / "speed-cpu.json")
    content.limitations = _limitations(root / "docs" / "limitations.md")
    content.operators, content.columns = operator_rows(content.tests)
    content.history = _history(folder / "baselines")
    content.headrooms = _headrooms(content)
    absent = {
        "no test results: pytest --record-results reports/results.jsonl": not content.tests,
        "no networks: python scripts/run_zoo.py": not content.networks,
        "no GPU results: python scripts/gpu_zoo.py --out reports/gpu": not content.gpu_networks,
        "no ratios: python scripts/bench_zoo.py": not content.speed,
        "no baselines: pytest suites/models --benchmark-save=NAME": not content.history,
    }
    content.missing = [text for text, is_missing in absent.items() if is_missing]
    return content


def _results_file(folder: Path, given: Path | None) -> Path | None:
    if given is not None and not given.is_file():
        raise OptionError(f"--results {given}: there is no such file; pytest --record-results {given} writes it")
    path = given or folder / "results.jsonl"
    return path if path.is_file() else None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read: {error}; remove it or make it again") from None


def _list(path: Path) -> list[dict[str, Any]]:
    found = _load(path)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _mapping(path: Path) -> dict[str, Any]:
    found = _load(path)
    return found if isinstance(found, dict) else {}


def _gpu(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files that scripts/gpu_zoo.py left, each with the folder's name."""
    rows = []
    for path in sorted(folder.glob("gpu*/**/zoo*.json")):
        rows += [{**row, "source": str(path.parent.relative_to(folder))} for row in _list(path) if "network" in row]
    return rows


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found.append(
                {"reason": "", "properties": {}, "seconds": 0.0, **row, "test": row["test"], "outcome": row["outcome"]}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"{path}, line {number}, is not a test's result ({error}); run pytest --record-results again"
            ) from None
    return found


def operator_rows(tests: Iterable[Mapping[str, Any]]) -> tuple[list[OperatorRow], list[str]]:
    """The matrix: a row per operator of MXNet, a column per engine and precision that any test has."""
    from ..operators.registry import operators

    table = operators()
    names = {alias: name for name, info in table.items() for alias in (name, *info.aliases)}
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for test in tests:
        operator = names.get(_operator_of(test, names))
        if operator is not None:
            found[operator, _column_of(test)].append(test)
    columns = sorted({column for _, column in found})
    rows = [
        OperatorRow(name, info.family or "", info.native, info.reason or "",
                    {column: _cell(found[name, column]) for column in columns if (name, column) in found})
        for name, info in table.items()
    ]  # fmt: skip
    return rows, columns


def _operator_of(test: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """By the property, else by the longest start of the test's label that is an operator's name."""
    if "operator" in test["properties"]:
        return str(test["properties"]["operator"])
    bracket = re.search(r"suites/ops/.*\[(.+)\]$", str(test["test"]))
    words = re.split(r"[-.=,\[ ]", bracket[1]) if bracket else []
    return next((word for word in words if word in names), "")


def _column_of(test: Mapping[str, Any]) -> str:
    properties = test["properties"]
    engine = properties.get("engine") or ("tensorrt" if "gpu" in str(test["test"]).lower() else "onnxruntime")
    return f"{engine} {properties.get('precision') or 'fp32'}"


def _cell(tests: Sequence[Mapping[str, Any]]) -> Cell:
    worst = min(tests, key=lambda one: _WORST.index(one["outcome"]) if one["outcome"] in _WORST else 0)
    return Cell(_SHOWN.get(worst["outcome"], "fail"), len(tests), worst["test"], str(worst["reason"])[:300])


def _history(root: Path) -> list[History]:
    found = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        sessions = baseline.stored(folder)
        for name, points in baseline.series(sessions).items():
            runs = next(
                session.cells[name]["runs"] for session in reversed(sessions) if session.cells.get(name, {}).get("runs")
            )
            changes = change_points([value for _, _, value in points], [commit for _, commit, _ in points])
            found.append(History(f"{folder.name}: {name.rpartition('::')[2]}", points, (min(runs), max(runs)), changes))
    return found


def _headrooms(content: Content) -> list[float]:
    values = [row.get("headroom_before_sorting", row.get("headroom")) for row in content.networks]
    values += [test["properties"].get("headroom") for test in content.tests]
    values += [cell.get("headroom") for row in content.gpu_networks for cell in row.get("cells", {}).values()]
    return [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def _limitations(path: Path) -> list[tuple[str, list[list[str]]]]:
    """(heading, table) of the generated document; the first line of a table is its head."""
    if not path.is_file():
        return []
    found: list[tuple[str, list[list[str]]]] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("## "):
            found.append((line[3:], []))
        elif line.startswith("|") and found and not re.fullmatch(r"[|\s:-]+", line):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found[-1][1].append([cell.strip().replace("`", "").replace("\\|", "|") for cell in cells])
    return [(heading, rows) for heading, rows in found if len(rows) > 1]
