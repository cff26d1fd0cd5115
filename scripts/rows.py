"""Figures held to bars: a row is {what, value, bar, unit, at_least, met, details}, measured in a process of its own.

A script has a table of rows, name -> function, and hands it to :func:`main`. The stored document is also a table, which
README and docs/results.md take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.benchmark import machine

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["what", "measured", "bar", "met"]
Row = dict[str, Any]


def row(
    what: str, value: float, bar: float, unit: str = "", at_least: bool = False, provided: bool = True, **details: Any
) -> Row:
    """One line of the table; ``value`` is held to ``bar`` from above, or from below with ``at_least``.

    Without ``provided`` the bar is missed whatever the value: a speed counts only if the answers were right.
    """
    met = bool(provided and (value >= bar if at_least else value <= bar))
    return {
        "what": what, "value": value, "bar": bar, "unit": unit, "at_least": at_least, "met": met, "details": details,
    }  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    """That of a measurement: this checkout, and MXNet as its users have it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
    for name in ("MXNET_MKLDNN_ENABLED", "MXNET_SUBGRAPH_BACKEND"):
        found.pop(name, None)
    return found


def in_new_process(code: str, *arguments: str) -> dict[str, Any]:
    """What a program prints as its last line, in JSON."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def cells(found: Mapping[str, Any]) -> list[str]:
    """A row as text, in the order of ``COLUMNS``."""
    if "error" in found:
        return [found["what"], found["error"].strip().splitlines()[-1], "", "no"]
    value, bar = (f"{found[key]:.3g} {found['unit']}".strip() for key in ("value", "bar"))
    return [
        found["what"], value, f"{'at least' if found['at_least'] else 'at most'} {bar}", "yes" if found["met"] else "no",
    ]  # fmt: skip


def main(
    module: str, rows: Mapping[str, Callable[[], Row]], out: Path, about: str, limit: float = 1800,
    limits: Mapping[str, float] | None = None,
) -> int:  # fmt: skip
    """The command line of a table: measures the rows that are asked for, or all, and keeps the others as stored.

    Args:
        module: that has the rows, as ``python -m`` takes it.
        limit: seconds a row.
        limits: of the rows that have one of their own.

    Returns:
        1 if a bar is missed.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=list(rows), help="only this row (may be given again)")
    parser.add_argument("--resume", action="store_true", help="leave out what is stored and was met")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--one", choices=list(rows), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(rows[given.one]()))
        return 0
    known = json.loads(given.out.read_text("utf-8"))["results"] if given.out.is_file() else {}
    chosen = given.row or list(rows)
    for name in chosen:
        if given.resume and known.get(name, {}).get("met"):
            continue
        known[name] = measured(module, name, (limits or {}).get(name, limit))
        print(f"{name}: {' | '.join(cells(known[name]))}", flush=True)
        store(given.out, f"python -m {module}", {key: known[key] for key in rows if key in known})
    return int(not all(known[name]["met"] for name in chosen))


def measured(module: str, name: str, limit: float) -> Row:
    """A row from a process of its own; what went wrong, and not met, if it fails."""
    command = [sys.executable, "-m", module, "--one", name]
    variables = environment(OMP_NUM_THREADS="2")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=variables, timeout=limit, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"what": name, "met": False, "error": f"not done after {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"what": name, "met": False, "error": done.stderr.strip()[-500:] or f"exit code {done.returncode}"}
    found: Row = json.loads(lines[-1])
    return found


def store(out: Path, command: str, results: Mapping[str, Row]) -> None:
    """Write the document: the rows as they are, and as a table."""
    document = {
        "command": command, "machine": machine.record(), "commit": machine.commit(ROOT), "columns": COLUMNS,
        "rows": table(results.values()), "results": dict(results),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def table(results: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Rows as text."""
    return [cells(found) for found in results]
