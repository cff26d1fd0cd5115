"""Stored figures: pytest-benchmark's JSON files under ``reports/baselines/<hardware>/``, and the verdict on two of them.

Each benchmark of a file holds in ``extra_info`` what :func:`harness.benchmark.sides.reduce` makes: ``runs``, one
latency per process, is what verdicts rest on; ``machine_info["mxtrt"]`` is the machine record.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import OptionError
from . import machine
from .verdict import Decision, Verdict, decide

STORED_EFFECT = 0.05  # between two days a machine differs by more than within one comparison
RECORD = "mxtrt"  # the key of the machine record in machine_info


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored session: its file, when and at which commit it was made, on what, and its benchmarks by name."""

    path: Path | None
    time: str
    commit: str
    machine: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path.name if self.path else 'this run'} ({self.commit[:12]}, {self.time[:16]})"


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark's comparison; a side that has no such benchmark is empty."""

    name: str
    baseline: Mapping[str, Any]
    candidate: Mapping[str, Any]
    decision: Decision


def reports() -> Path:
    """Where results are stored: in the checkout, or below the working directory where there is none."""
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "reports"


def home() -> Path:
    """Where baselines lie: ``reports/baselines``, or where the variable MXTRT_BASELINES says."""
    return Path(os.environ.get("MXTRT_BASELINES") or reports() / "baselines")


def read(path: Path) -> Stored:
    """A stored session.

    Raises:
        OptionError: the file is not one.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        cells = {one["fullname"]: {**one["extra_info"], "stats": one.get("stats", {})} for one in content["benchmarks"]}
        info = content["machine_info"].get(RECORD, {})
        return Stored(path, str(content["datetime"]), str(content["commit_info"].get("id") or "unknown"), info, cells)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is not a stored benchmark ({type(error).__name__}: {error}); pytest --benchmark-save=NAME or `mxtrt bench --save NAME` make one") from None  # fmt: skip


def stored(folder: Path) -> list[Stored]:
    """All sessions of one hardware, oldest first, whichever Python made them; other files are left alone."""
    found = []
    for path in folder.rglob("[0-9][0-9][0-9][0-9]_*.json"):
        session = read(path)
        if session.machine:
            found.append(session)
    return sorted(found, key=lambda one: (one.time, str(one.path)))


def elsewhere(root: Path, hardware: str) -> list[Stored]:
    """The latest session of each other hardware."""
    folders = sorted(path for path in root.glob("*") if path.is_dir() and path.name != hardware)
    return [sessions[-1] for sessions in map(stored, folders) if sessions]


def find(root: Path, hardware: str, name: str | None) -> Stored | None:
    """A session by file, by number or by part of its name; the latest of this hardware if no name is given.

    Raises:
        OptionError: there is none of this name.
    """
    if name and Path(name).is_file():
        return read(Path(name))
    sessions = stored(root / hardware)
    if name is None:
        return sessions[-1] if sessions else None
    matches = [one for one in sessions if one.path and (one.path.name.startswith(f"{name}_") or name in one.path.name)]
    if not matches:
        known = ", ".join(one.path.stem for one in sessions if one.path) or "none"
        raise OptionError(f"no stored benchmark {name!r} for {hardware}; there are: {known}")
    return matches[-1]


def compare(baseline: Stored, candidate: Stored, min_effect: float = STORED_EFFECT) -> list[Row]:
    """The verdict on each benchmark that either session has."""
    gate = machine.differences(baseline.machine, candidate.machine)
    return list(_rows(baseline, candidate, gate, min_effect))


def _rows(baseline: Stored, candidate: Stored, gate: Sequence[str], min_effect: float) -> Iterator[Row]:
    for name in dict.fromkeys((*baseline.cells, *candidate.cells)):
        before, after = baseline.cells.get(name, {}), candidate.cells.get(name, {})
        if not before.get("runs") or not after.get("runs"):
            where = "the baseline" if not before.get("runs") else "this run"
            yield Row(name, before, after, Decision(Verdict.INCOMPARABLE, reasons=(f"{where} does not have it",)))
            continue
        reasons = [*gate, *machine_moved(before, after, min_effect)]
        yield Row(name, before, after, decide(before["runs"], after["runs"], min_effect, reasons))


def machine_moved(before: Mapping[str, Any], after: Mapping[str, Any], min_effect: float) -> list[str]:
    """Whether the machine itself had another speed, by the yardstick that every run takes: a reason not to decide."""
    first, second = ([value for value in one.get("yardstick") or () if value] for one in (before, after))
    found = decide(first, second, min_effect)
    if found.verdict in (Verdict.SLOWER, Verdict.FASTER) or abs(found.ratio - 1) > 2 * min_effect:
        return [f"the machine itself took {found.ratio:.2f}x the time of then (a fixed matrix product)"]
    return []


def series(sessions: Sequence[Stored]) -> dict[str, list[tuple[str, str, float]]]:
    """(time, commit, latency) of each benchmark over sessions, oldest first."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for session in sessions:
        for name, cell in session.cells.items():
            if cell.get("runs"):
                ordered = sorted(cell["runs"])
                found.setdefault(name, []).append((session.time, session.commit, ordered[len(ordered) // 2]))
    return found


def save(root: Path, record: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]], name: str) -> Path:
    """Store figures as pytest-benchmark would; the file's path.

    Raises:
        OptionError: the name is not one of a file.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise OptionError(f"--save {name!r}: a name is letters, digits, dots, dashes and underscores")
    bits = platform.architecture()[0]
    version = ".".join(platform.python_version_tuple()[:2])
    hardware = root / machine.hardware(record)
    folder = hardware / f"{platform.system()}-{platform.python_implementation()}-{version}-{bits}"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(path.name[:4]) for path in hardware.rglob("[0-9][0-9][0-9][0-9]_*.json")]
    path = folder / f"{max(numbers, default=0) + 1:04d}_{name}.json"
    content = {
        "machine_info": {RECORD: dict(record)},
        "commit_info": {"id": machine.commit(reports().parent) or "unknown"},
        "benchmarks": [
            {
                "fullname": key,
                "name": key,
                "group": "bench",
                "params": None,
                "extra_info": dict(cell),
                "stats": _stats(cell["runs"]),
            }
            for key, cell in cells.items()
        ],
        "datetime": datetime.now(timezone.utc).isoformat(),
        "version": "mxtrt",
    }
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return path


def _stats(runs: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark's own comparison reads."""
    import numpy as np

    quarter, middle, three = (float(value) for value in np.quantile(runs, (0.25, 0.5, 0.75)))
    mean = float(np.mean(runs))
    return {
        "min": min(runs), "max": max(runs), "mean": mean, "stddev": float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0,
        "rounds": len(runs), "median": middle, "iqr": three - quarter, "q1": quarter, "q3": three, "iqr_outliers": 0,
        "stddev_outliers": 0, "outliers": "0;0", "ld15iqr": min(runs), "hd15iqr": max(runs), "ops": 1 / mean,
        "total": float(sum(runs)), "iterations": 1,
    }  # fmt: skip
