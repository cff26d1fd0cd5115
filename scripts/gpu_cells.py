"""JUnit files of `pytest suites/ops -m gpu` as the stored table of operator cells; a later run replaces what it repeats.

Files are runs, the earliest first; one may be an earlier table, of which all count as one run.

python scripts/gpu_cells.py FIRST.xml [LATER.xml ...] --machine "GPU, driver, TensorRT" --out reports/gpu/cells.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

CELL = re.compile(r"test_cell\[(?P<operator>.+)-(?P<precision>fp32|tf32|fp16|bf16|int8)\]")


def cells(path: Path) -> list[dict[str, Any]]:
    """One row per cell: operator, precision, state, headroom, the library's words where it is not right."""
    if path.suffix == ".json":
        stored: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
        return stored
    rows = []
    for case in ElementTree.parse(path).iter("testcase"):
        match = CELL.search(case.get("name") or "")
        if not match:
            continue
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        failure, skipped = case.find("failure"), case.find("skipped")
        text = (
            (failure if failure is not None else skipped).get("message")
            if failure is not None or skipped is not None
            else ""
        )
        state = "right"
        if failure is not None:
            state = "not built" if "BuildError" in (text or "") else "wrong"
        elif skipped is not None:
            state = "refused"
        rows.append({
            "operator": match["operator"], "precision": match["precision"], "state": state,
            "headroom": properties.get("headroom"), "refused": properties.get("refused") or "",
            "words": " ".join((text or "").split())[:400],
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("junit", type=Path, nargs="+")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", action="append", default=[], help="what a reader of the table should know")
    options = parser.parse_args()
    newest = {
        (row["operator"], row["precision"]): {**row, "run": number}
        for number, path in enumerate(options.junit, 1)
        for row in cells(path)
    }
    rows = list(newest.values())
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["precision"], Counter())[row["state"]] += 1
    document = {
        "machine": options.machine,
        "notes": options.note,
        "runs": len(options.junit),
        "counts": counts,
        "cells": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    for precision, states in counts.items():
        print(precision, dict(states))
    return 0


if __name__ == "__main__":
    sys.exit(main())
