"""What the report is made of: stored results, read as they are; what is missing is said, never invented."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..benchmark import baseline, machine
from ..benchmark.changepoints import ChangePoint, change_points
from ..errors import OptionError
from .stored import Bar, Document, documents

# the worst outcome of a cell's tests is the cell's
_WORST = ("failed", "wrong", "not built", "xfailed", "refused", "skipped", "passed", "right")
_SHOWN = {"failed": "fail", "xfailed": "xfail", "skipped": "not run", "passed": "pass", "right": "pass"}
GOOD = frozenset({"pass", "right", "agrees", "ok"})
BAD = frozenset({"fail", "wrong", "differs", "error", "not built", "failed", "crashed"})


@dataclass(frozen=True, slots=True)
class Cell:
    """One operator on one engine at one precision."""

    state: str
    tests: int
    example: str
    reason: str = ""

    @property
    def command(self) -> str:
        """What repeats the case; nothing where the stored result does not say."""
        return f'pytest "{self.example}"' if "::" in self.example else self.example


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
    """A benchmark over the stored sessions, with the latest baseline's band (its runs' range) and change points.

    Attributes:
        points: (time, commit, seconds), oldest first.
        throughput: items per second of the same sessions; empty where they do not have it.
    """

    name: str
    points: Sequence[tuple[str, str, float]]
    band: tuple[float, float]
    changes: Sequence[ChangePoint]
    throughput: Sequence[float] = ()


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
    documents: list[Document] = field(default_factory=list)
    history: list[History] = field(default_factory=list)
    nights: list[tuple[str, Counter[str]]] = field(default_factory=list)
    headrooms: list[float] = field(default_factory=list)
    limitations: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(one["outcome"] for one in self.tests)

    @property
    def bars(self) -> list[Bar]:
        return [bar for document in self.documents for bar in document.bars]

    @property
    def speed(self) -> Mapping[str, Any]:
        """The stored ratios against MXNet; empty if there are none."""
        found = (d.content for d in self.documents if d.name == "speed")
        return next((content for content in found if isinstance(content, Mapping)), {})

    @property
    def verdict(self) -> str:
        """In a sentence: what is wrong, or what is known to be right."""
        cells = [cell for row in self.operators for cell in row.cells.values() if not cell.tests]
        on_gpu = [str(cell.get("status")) for row in self.gpu_networks for cell in row.get("cells", {}).values()]
        slower = sum(counts["SLOWER"] for _, counts in self.nights)
        wrong = [
            *_counted("failing tests", ["failed"] * self.outcomes["failed"]),
            *_counted("networks", [str(row.get("status")) for row in self.networks]),
            *_counted("networks on a GPU", on_gpu),
            *_counted("operators on a GPU", [cell.state for cell in cells]),
            *([f"bars missed: {missed}"] if (missed := sum(not bar.met for bar in self.bars)) else []),
            *([f"benchmarks SLOWER: {slower}"] if slower else []),
        ]
        if wrong:
            return "Not everything is right: " + ", ".join(wrong) + "."
        if not (self.tests or self.networks or self.gpu_networks or self.documents):
            return "Nothing is stored yet, so nothing is claimed."
        return "Everything that was run is right."


def _counted(what: str, states: Sequence[str]) -> list[str]:
    bad = Counter(state for state in states if state in BAD)
    return [f"{what}: {count}" if state == "failed" else f"{what} {state}: {count}" for state, count in bad.items()]


def collect(
    folder: Path, results: Path | None = None, more: Sequence[Path] = (), baselines: Path | None = None
) -> Content:
    """Read what is stored in a folder of reports.

    Args:
        results: of tests; None takes results.jsonl in the folder, if it is there.
        more: other folders of results; their own reports in ``report/`` are left out.
        baselines: None is the folder's own.

    Raises:
        OptionError: a file is damaged, or ``results`` is not there.
    """
    root = folder.resolve().parent
    content = Content(machine.record(), machine.commit(root) or "unknown")
    results = _results_file(folder, results)
    content.tests = _lines(results) if results else []
    content.documents = documents(folder)
    for one in more:
        content.documents += documents(one, ("report/", "baselines/", "speed/", "gpu-speed/"), one.resolve().name)
    content.networks = [row for name, row in _networks(content.documents) if "cells" not in row]
    content.gpu_networks = [{**row, "source": name} for name, row in _networks(content.documents) if "cells" in row]
    content.limitations = _limitations(root / "docs" / "limitations.md")
    content.operators, content.columns = operator_rows([*content.tests, *_stored_cells(content.documents)])
    content.history, content.nights = _history(baselines or folder / "baselines")
    content.headrooms = _headrooms(content)
    absent = {
        "no test results: pytest --record-results reports/results.jsonl": not content.tests,
        "no networks: python -m scripts.run_zoo": not content.networks,
        "no networks on a GPU: python -m scripts.gpu_zoo": not content.gpu_networks,
        "no ratios: python scripts/bench_zoo.py": not content.speed,
        "no baselines: pytest suites/models --benchmark-save=NAME": not content.history,
    }
    content.missing = [text for text, is_missing in absent.items() if is_missing]
    return content


def _networks(found: Iterable[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, row) of each list of networks: rows with a status, or with cells by precision."""
    for document in found:
        content = document.content
        rows = content.get("networks") if isinstance(content, Mapping) else content
        for row in rows if isinstance(rows, list) else ():
            if (
                isinstance(row, dict)
                and "network" in row
                and ("status" in row or isinstance(row.get("cells"), Mapping))
            ):
                yield document.name, row


def _stored_cells(found: Iterable[Document]) -> Iterator[dict[str, Any]]:
    """The cells of GPU runs in the form of test results, without a test that repeats them here."""
    for document in found:
        for cell in document.cells:
            engine = cell.get("engine") or document.content.get("engine") or "tensorrt"
            yield {
                "test": "", "outcome": str(cell["state"]), "seconds": 0.0, "stored": document.name,
                "properties": {"operator": cell["operator"], "engine": engine, "precision": cell.get("precision")},
                "reason": str(cell.get("words") or cell.get("refused") or ""),
            }  # fmt: skip


def _results_file(folder: Path, given: Path | None) -> Path | None:
    if given is not None and not given.is_file():
        raise OptionError(f"--results {given}: there is no such file; pytest --record-results {given} writes it")
    path = given or folder / "results.jsonl"
    return path if path.is_file() else None


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
    state = _SHOWN.get(worst["outcome"], worst["outcome"] if worst["outcome"] in _WORST else "fail")
    ran = sum("stored" not in test for test in tests)
    example = worst["test"] or f"reports/{worst['stored']}.json"
    return Cell(state, ran, example, str(worst["reason"])[:300])


def _history(root: Path) -> tuple[list[History], list[tuple[str, Counter[str]]]]:
    """The series of each hardware, and the verdicts of its latest session on the one before."""
    found, nights = [], []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        sessions = baseline.stored(folder)
        if len(sessions) > 1:
            rows = [row for row in baseline.compare(sessions[-2], sessions[-1]) if row.candidate.get("runs")]
            nights.append((folder.name, Counter(row.decision.verdict.value for row in rows)))
        for name, points in baseline.series(sessions).items():
            cells = [session.cells[name] for session in sessions if session.cells.get(name, {}).get("runs")]
            changes = change_points([value for _, _, value in points], [commit for _, commit, _ in points])
            throughput = [cell["throughput"] for cell in cells if cell.get("throughput")]
            found.append(
                History(
                    f"{folder.name}: {name.rpartition('::')[2]}", points, (min(cells[-1]["runs"]), max(cells[-1]["runs"])),
                    changes, throughput if len(throughput) == len(points) else (),
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: not one.changes), nights


def _headrooms(content: Content) -> list[float]:
    values = [row.get("headroom") for row in content.networks]
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
