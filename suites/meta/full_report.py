"""A folder with everything that can be stored, of the size of the whole zoo; the report of it; and what a browser says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import harness
from harness.benchmark import baseline, machine
from harness.report import report

LONG = "a_reason_without_any_space_" * 20
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1440)
NETWORKS = 334


def store(folder: Path, networks: int = NETWORKS) -> Path:
    """Write the folder's ``reports``, with one of each thing that can go wrong."""
    reports = folder / "reports"
    (reports / "gpu").mkdir(parents=True)
    zoo = [{"network": f"network{n}", "status": "agrees", "headroom": 0.01 * (n + 1) / networks, "segments": 1, "nodes": 99,
            "fallbacks": 0, "input": [1, 3, 224, 224], "reason": LONG if n == 3 else ""} for n in range(networks)]  # fmt: skip
    zoo.append({"network": "broken", "status": "error", "reason": "it <b>broke</b> & fell"})
    zoo.append({"network": "unknown", "status": "not traceable", "reason": "needs weights"})
    _write(
        reports / "zoo.json", {"command": "python -m scripts.run_zoo", "columns": ["a"], "rows": [[1]], "networks": zoo}
    )
    cells = {"fp16": {"status": "ok", "headroom": 0.3, "latency_ms": 0.2}, "int8": {"status": "error", "error": "x"}}
    _write(reports / "gpu" / "zoo.json", [{"network": "resnet50_v1", "cells": cells}])
    states = [("Convolution", "right"), ("relu", "not built"), ("abs", "refused")]
    _write(reports / "gpu" / "cells.json", {"machine": "one GPU", "cells": [
        {"operator": name, "precision": "fp16", "state": state, "words": LONG} for name, state in states]})  # fmt: skip
    _write(reports / "anything.json", {"note": LONG, "deep": {"figures": [1, 2.5], "list": [{"state": "right"}] * 3}})
    results = {"a": {"what": "seconds", "value": 1, "bar": 2, "unit": "s", "at_least": False, "met": True},
               "b": {"what": f"too slow {LONG}", "value": 3, "bar": 2, "unit": "s", "at_least": False, "met": False}}  # fmt: skip
    rows = [[row["what"], str(row["value"]), "at most 2", "yes" if row["met"] else "no"] for row in results.values()]
    document = {
        "command": "python -m scripts.x",
        "columns": ["what", "measured", "bar", "met"],
        "rows": rows,
        "results": results,
    }
    _write(reports / "verdict.json", document)
    _write(reports / "speed.json", speed(34))
    for number in range(8):
        runs = [(0.001 if number < 5 else 0.0012) * (1 + 0.001 * n) for n in range(5)]
        cell = {"runs": runs, "throughput": 1 / runs[0]}
        baseline.save(reports / "baselines", machine.record(), {"suites/models/test_speed.py::test_latency[a]": cell}, f"night{number}")  # fmt: skip
    with (reports / "results.jsonl").open("w") as file:
        for number, name in enumerate(harness.operators()):
            for precision in ("fp32", "fp16"):
                outcome = "failed" if number == 7 else "xfailed" if number == 8 else "passed"
                row = {"test": f"suites/ops/test_operators.py::test_drawn[{name}-{precision}]", "outcome": outcome, "seconds": 0.1,
                       "properties": {"operator": name, "precision": precision, "engine": "onnxruntime", "headroom": 0.2},
                       "reason": f"{LONG} \x00 | <i>" if outcome == "failed" else ""}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return reports


def speed(count: int) -> dict[str, Any]:
    """What scripts/bench_zoo.py stores."""

    def over(n: int) -> dict[str, float]:
        return {"ratio": 1 + n / 10, "low": 0.9 + n / 10, "high": 1.1 + n / 10, "ms": 5.0, "difference": 1e-6}

    rows = [
        {"network": f"network{n}", "batch": 1, "precision": "fp32", "mxnet": over(n), "gluon": over(n + 1), "memory": 2e8,
         "mxnet_memory": 4e8, "compile_seconds": 1.5} for n in range(count)
    ]  # fmt: skip
    return {"what": "latency", "command": "bench", "commit": "abc", "machine": machine.record(), "measured": rows}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), "utf-8")


def make(reports: Path, out: Path) -> Path:
    """The report of a folder; where it lies."""
    assert report(["--reports", str(reports), "--output", str(out)]) == 0
    return out


def probe(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """How a page comes out on a screen of a width, as Chromium measures it.

    A copy gets a script that writes into the document: ``wide``, the page's width; ``outside``, elements beyond the
    screen that no scrolling pane holds; ``broken``, pictures that came out empty.

    Raises:
        RuntimeError: Chromium is not installed, or says nothing.
    """
    if CHROMIUM is None:
        raise RuntimeError("no Chromium is installed (Debian: apt-get install chromium)")
    script = """<script>addEventListener("load", () => { const wide = document.documentElement.scrollWidth;
    const outside = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg, nav") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
    const broken = [...document.images].filter(i => !i.naturalWidth).length + [...document.querySelectorAll("main svg")].filter(s => s.closest("main") && s.getBoundingClientRect().height < 40).length;
    document.body.innerHTML = `<pre id="found">${JSON.stringify({inner: innerWidth, wide, outside, broken})}</pre>`; });</script>"""
    (folder / "page.html").write_text(page.read_text("utf-8").replace("</body>", script + "</body>"), "utf-8")
    # headless Chromium has no window below 500 pixels, so a frame of the page's width stands in for a phone
    outer = folder / "frame.html"
    outer.write_text(f'<body style="margin:0"><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
                     '<script>addEventListener("load", () => setTimeout(() => { document.body.dataset.found = frames[0].document.getElementById("found").textContent; }, 300));</script>')  # fmt: skip
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
               "--window-size=1600,1000", "--virtual-time-budget=15000", "--dump-dom", outer.resolve().as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-found="([^"]+)"', done.stdout)
    if not found:
        raise RuntimeError(f"Chromium says nothing of the page: {done.stderr[-500:]}")
    measured: dict[str, Any] = json.loads(found[1].replace("&quot;", '"'))
    return measured
