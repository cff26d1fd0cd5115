"""The results of a sweep merged: one JUnit file, and one JSON of counts and times."""

from __future__ import annotations

import collections
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .journal import Result

_STATES = {"failure": "failed", "error": "error", "skipped": "skipped"}


@dataclass(frozen=True, slots=True)
class Report:
    """A finished sweep.

    Attributes:
        counts: GPU kind -> state ("passed", "failed", "error", "skipped", "xfailed") -> cells.
        failed: "KIND CELL: reason" of each that failed.
        ran, resumed: cells that this call ran, and that an earlier one had.
        folder: where ``junit.xml``, ``sweep.json`` and the journal are.
    """

    counts: Mapping[str, Mapping[str, int]]
    failed: Sequence[str]
    ran: int
    resumed: int
    folder: Path

    @property
    def ok(self) -> bool:
        return not self.failed


def state_of(cases: Iterable[str]) -> tuple[str, str]:
    """The state of a cell and its reason, from pytest's own elements."""
    found = [_state_of(ElementTree.fromstring(case)) for case in cases]
    return next((one for one in found if one[0] in ("error", "failed")), found[0])


def _state_of(case: ElementTree.Element) -> tuple[str, str]:
    for child in case:
        if child.tag in _STATES:
            xfailed = child.get("type") == "pytest.xfail"
            return "xfailed" if xfailed else _STATES[child.tag], child.get("message", "")
    return "passed", ""


def died(cell: str, reason: str) -> str:
    """The element of a cell whose process died."""
    path, _, name = cell.partition("::")
    case = ElementTree.Element("testcase", classname=path.removesuffix(".py").replace("/", "."), name=name, time="0")
    properties = ElementTree.SubElement(case, "properties")
    ElementTree.SubElement(properties, "property", name="cell", value=cell)
    ElementTree.SubElement(case, "error", message=f"the process that ran it died: {reason}").text = reason
    return ElementTree.tostring(case, "unicode")


def write(folder: Path, results: Sequence[Result], ran: int, header: Mapping[str, Any]) -> Report:
    """``junit.xml`` (a suite per GPU kind, cells in the given order) and ``sweep.json``."""
    root = ElementTree.Element("testsuites", name="mxtrt sweep")
    counts: dict[str, dict[str, int]] = {}
    failed: list[str] = []
    for kind in dict.fromkeys(result.kind for result in results):
        members = [result for result in results if result.kind == kind]
        states = [state_of(result.cases) for result in members]
        counts[kind] = dict(collections.Counter(state for state, _ in states))
        failed += [
            f"{kind} {r.cell}: {text}" for r, (state, text) in zip(members, states) if state in ("failed", "error")
        ]
        root.append(_suite(kind, members, counts[kind]))
    ElementTree.ElementTree(root).write(folder / "junit.xml", "utf-8", xml_declaration=True)
    document = {**header, "counts": counts, "failed": failed, "ran": ran, "batches": _batches(results)}
    (folder / "sweep.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return Report(counts, failed, ran, len(results) - ran, folder)


def _suite(kind: str, members: Sequence[Result], counts: Mapping[str, int]) -> ElementTree.Element:
    seconds = sum(batch["seconds"] for batch in _batches(members))
    suite = ElementTree.Element(
        "testsuite", name=kind, tests=str(len(members)), failures=str(counts.get("failed", 0)),
        errors=str(counts.get("error", 0)), skipped=str(counts.get("skipped", 0) + counts.get("xfailed", 0)),
        time=f"{seconds:.3f}",
    )  # fmt: skip
    for result in members:
        for case in result.cases:
            suite.append(ElementTree.fromstring(case))
    return suite


def _batches(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What ran together: where, how many cells, how long."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        entry = {"kind": result.kind, "batch": result.batch, "node": result.node, "seconds": result.seconds, "cells": 0}
        found.setdefault((result.kind, result.batch), entry)["cells"] += 1
    return list(found.values())
