"""The report: what it says of stored results, that it stands alone, and that it fits a phone and a desk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

import harness
from harness.benchmark import baseline, machine
from harness.report import page, report
from harness.report.collect import collect

pytest.importorskip("jinja2", reason="the report needs Jinja2")
pytest.importorskip("matplotlib", reason="the report needs matplotlib")

LONG = "a_reason_without_any_space_" * 20
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1440)


def _stored(folder: Path, networks: int = 334) -> Path:
    """A folder with everything that can be stored, of the size of the whole zoo."""
    reports = folder / "reports"
    reports.mkdir()
    operators = harness.operators()
    zoo = [{"zoo": "gluoncv", "network": f"network{n}", "status": "right", "headroom": 0.01 * (n + 1) / networks, "segments": 1, "nodes": 99,
            "fallbacks": 0, "input": [1, 3, 224, 224], "reason": LONG if n == 3 else ""} for n in range(networks)]  # fmt: skip
    zoo.append({"zoo": "gluoncv", "network": "broken", "status": "error", "reason": "it <b>broke</b> & fell"})
    (reports / "zoo.json").write_text(json.dumps(zoo))
    cells = {"fp16": {"status": "ok", "headroom": 0.3, "latency_ms": 0.2}, "int8": {"status": "error", "error": "x"}}
    (reports / "gpu").mkdir()
    (reports / "gpu" / "zoo.json").write_text(json.dumps([{"network": "resnet50_v1", "cells": cells}]))
    measured = [
        {"network": f"network{n}", "ratio": 1 + n / 10, "low": 0.9 + n / 10, "high": 1.1 + n / 10} for n in range(34)
    ]
    speed = {"what": "latency", "command": "bench", "commit": "abc", "machine": machine.record(), "measured": measured}
    (reports / "speed-cpu.json").write_text(json.dumps(speed))
    for number in range(8):
        runs = [(0.001 if number < 5 else 0.0012) * (1 + 0.001 * n) for n in range(5)]
        baseline.save(
            reports / "baselines",
            machine.record(),
            {"suites/models/test_speed.py::test_latency[a]": {"runs": runs}},
            f"night{number}",
        )
    with (reports / "results.jsonl").open("w") as file:
        for number, name in enumerate(operators):
            for precision in ("fp32", "fp16"):
                outcome = "failed" if number == 7 else "xfailed" if number == 8 else "passed"
                row = {"test": f"suites/ops/test_operators.py::test_drawn[{name}-{precision}]", "outcome": outcome, "seconds": 0.1,
                       "properties": {"operator": name, "precision": precision, "engine": "onnxruntime", "headroom": 0.2},
                       "reason": f"{LONG} \x00 | <i>" if outcome == "failed" else ""}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return reports


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("report")
    reports = _stored(folder)
    begin = time.process_time()
    assert report(["--reports", str(reports), "--output", str(folder / "out")]) == 0
    return folder / "out", time.process_time() - begin


def test_report_of_the_whole_zoo_is_fast_and_small(made: tuple[Path, float]) -> None:
    folder, seconds = made
    assert seconds < 10
    assert (folder / "index.html").stat().st_size < 3_000_000
    for name in ("junit.xml", "summary.md"):
        assert (folder / name).stat().st_size < 1_000_000, name


def test_page_stands_alone(made: tuple[Path, float]) -> None:
    text = (made[0] / "index.html").read_text()
    assert "<script" not in text
    assert not re.findall(r"""(?:src|@import|url\()\s*=?\s*["']?(?:https?:)?//[^"')]*""", text)
    assert not re.findall(r"<link\b", text)
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets <= set(re.findall(r'\bid="([^"]+)"', text))


def test_what_is_wrong_comes_first(made: tuple[Path, float]) -> None:
    text = (made[0] / "index.html").read_text()
    heading = re.search(r"<h1>(.*?)</h1>", text)
    assert heading
    assert heading[1] == "Not everything is right: failing tests: 2, networks error: 1, networks on a GPU error: 1."
    assert "it &lt;b&gt;broke&lt;/b&gt;" in text or "it &lt;b&gt;broke" in text
    assert "in " in text and "+20" in text, "the planted change point"


def test_data_beside_it(made: tuple[Path, float]) -> None:
    content = json.loads((made[0] / "index.json").read_text())
    assert len(content["operators"]) == len(harness.operators())
    assert content["outcomes"] == {"passed": 2 * (len(harness.operators()) - 2), "failed": 2, "xfailed": 2}
    suite = ElementTree.parse(made[0] / "junit.xml").getroot()
    assert suite.attrib["failures"] == "2"
    assert len(suite.findall("testcase/failure")) == 2
    assert (made[0] / "index.csv").read_text().startswith("kind,name,where,state,detail")
    assert "| fails | why |" in (made[0] / "summary.md").read_text()


def test_nothing_stored_is_nothing_claimed(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    content = collect(tmp_path / "reports")
    assert content.verdict == "Nothing is stored yet, so nothing is claimed."
    assert len(content.missing) == 5
    assert "None is stored." in page.render(content)


def test_huge_results_stay_below_the_limits(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    lines = [
        json.dumps({"test": f"suites/x.py::t[{n}]", "outcome": "failed", "reason": "w" * 2000}) for n in range(5000)
    ]
    (tmp_path / "reports" / "results.jsonl").write_text("\n".join(lines))
    content = collect(tmp_path / "reports")
    assert len(page.junit(content)) <= page.SUMMARY_LIMIT
    assert len(page.summary(content).encode()) <= page.SUMMARY_LIMIT
    assert len(page.render(content).encode()) <= page.PAGE_LIMIT
    assert ElementTree.fromstring(page.junit(content)).attrib["tests"] == "5000"


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("zoo.json", "[{", "zoo.json cannot be read"),
        ("results.jsonl", '{"outcome": "passed"}', "line 1"),
        ("speed-cpu.json", "\x00", "speed-cpu.json cannot be read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / name).write_text(text)
    with pytest.raises(harness.OptionError, match=words):
        collect(tmp_path / "reports")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_the_screen(made: tuple[Path, float], width: int, tmp_path: Path) -> None:
    """Chromium measures the page itself: a probe, added to a copy, writes its width and broken pictures into the title."""
    probe = """<script>addEventListener("load", () => { const wide = document.documentElement.scrollWidth;
    const outside = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
    const broken = [...document.images].filter(i => !i.naturalWidth).length + [...document.querySelectorAll("main svg")].filter(s => s.closest("main") && s.getBoundingClientRect().height < 40).length;
    document.body.innerHTML = `<pre id="found">${JSON.stringify({inner: innerWidth, wide, outside, broken})}</pre>`; });</script>"""
    framed = tmp_path / "page.html"
    framed.write_text((made[0] / "index.html").read_text().replace("</body>", probe + "</body>"))
    # headless Chromium has no window below 500 pixels, so a frame of the page's width stands in for a phone
    outer = tmp_path / "frame.html"
    outer.write_text(f'<body style="margin:0"><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
                     '<script>addEventListener("load", () => setTimeout(() => { document.body.dataset.found = frames[0].document.getElementById("found").textContent; }, 300));</script>')  # fmt: skip
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
               "--window-size=1600,1000", "--virtual-time-budget=15000", "--dump-dom", outer.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-found="([^"]+)"', done.stdout)
    assert found, done.stderr[-500:]
    measured = json.loads(found[1].replace("&quot;", '"'))
    assert measured.pop("wide") <= width
    assert measured == {"inner": width, "outside": [], "broken": 0}
