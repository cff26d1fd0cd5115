"""The report: what it says of stored results, that it stands alone, and that it fits a phone and a desk."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

import harness
from harness.report import page, stored
from harness.report.collect import collect
from suites.meta import full_report

pytest.importorskip("jinja2", reason="the report needs Jinja2")
pytest.importorskip("matplotlib", reason="the report needs matplotlib")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("report")
    reports = full_report.store(folder)
    begin = time.process_time()
    return full_report.make(reports, folder / "out"), time.process_time() - begin


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
    heading = re.search(r"<h1.*?</span>(.*?)</h1>", text)
    assert heading
    assert heading[1] == (
        "Not everything is right: failing tests: 2, networks error: 1, networks on a GPU error: 1, "
        "operators on a GPU not built: 1, bars missed: 1."
    )
    reasons = text[text.index('id="wrong"') : text.index('id="environment"')]
    for word in ("test_drawn[", "broken", "resnet50_v1 int8", "too slow", "relu on tensorrt fp16"):
        assert word in reasons, word
    assert "it &lt;b&gt;broke&lt;/b&gt;" in text or "it &lt;b&gt;broke" in text
    assert "in " in text and "+20" in text, "the planted change point"


def test_every_stored_file_is_on_the_page(made: tuple[Path, float]) -> None:
    text = (made[0] / "index.html").read_text()
    names = {path.relative_to(made[0].parent / "reports").with_suffix("").as_posix()
             for path in (made[0].parent / "reports").rglob("*.json") if "baselines" not in path.parts}  # fmt: skip
    assert names == {"zoo", "gpu/zoo", "gpu/cells", "anything", "verdict", "speed"}
    for name in names:
        assert f">{name}</h3>" in text
    assert "3 entries: 3 right" in text


def test_every_cell_leads_to_its_case(made: tuple[Path, float]) -> None:
    text = (made[0] / "index.html").read_text()
    cells = set(re.findall(r'href="#(case-[^"]+)"', text))
    assert len(cells) > 2 * 400
    for target in list(cells)[:20]:
        row = text[text.index(f'id="{target}"') :]
        assert re.search(r"<code>(pytest &#34;suites|reports/)", row[: row.index("</tr>")]), target


def test_data_beside_it(made: tuple[Path, float]) -> None:
    content = json.loads((made[0] / "index.json").read_text())
    assert len(content["operators"]) == len(harness.operators())
    assert [bar["met"] for one in content["documents"] for bar in one["bars"]] == [True, False]
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
        ("speed.json", "\x00", "speed.json cannot be read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / name).write_text(text)
    with pytest.raises(harness.OptionError, match=words):
        collect(tmp_path / "reports")


def test_any_document_is_shown() -> None:
    """Tables as tables, bars as bars, anything else by its names; nothing is too long."""
    found = stored.read("x", {"command": "make it", "columns": ["a"], "rows": [[0.123456], ["w" * 999]]})
    assert found.rows[0] == ["0.1235"]
    assert len(found.rows[1][0]) == stored.MOST_CHARACTERS
    assert found.made_by == "make it"
    assert stored.read("x", {"results": [{"what": "w", "met": False}, 1]}).bars == [stored.Bar("w", False)]
    assert stored.read("x", {"a": {"b": [1, 2]}, "c": None}).facts == [("a b", "1, 2"), ("c", "")]
    assert stored.read("x", [{"state": "ok"}, {"state": "ok"}]).facts == [("entries", "2 entries: 2 ok")]
    steps = {"doctor": {"verdict": "passed"}, "speed": {"verdict": "failed", "why": "w"}, "gpu": {"verdict": "skipped"}}
    assert [bar.met for bar in stored.read("x", steps).bars] == [True, False]
    assert len(stored.read("x", {str(n): n for n in range(999)}).facts) == stored.MOST_FACTS


def test_the_stored_results_of_this_project_are_read() -> None:
    """What lies under reports/ is on the page: the networks' states are known words, and no row is lost."""
    content = collect(Path(__file__).parents[2] / "reports")
    assert content.networks
    known = {"agrees", "differs", "lowered", "not traceable", "timeout", "error", "crashed"}
    assert {row["status"] for row in content.networks} <= known
    assert content.bars
    assert page.render(content)


@pytest.mark.skipif(full_report.CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", full_report.WIDTHS)
def test_page_fits_the_screen(made: tuple[Path, float], width: int, tmp_path: Path) -> None:
    measured = full_report.probe(made[0] / "index.html", width, tmp_path)
    assert measured.pop("wide") <= width
    assert measured == {"inner": width, "outside": [], "broken": 0}
