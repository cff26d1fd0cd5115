"""The report's files: index.html, index.json, index.csv, junit.xml, summary.md."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import EngineMissing, HarnessError, OptionError
from .collect import Content, collect

PAGE_LIMIT = 3_000_000  # bytes
SUMMARY_LIMIT = 1_000_000  # CI services drop a summary above 1,024 kB as a whole
_CHARTS = 24
_ILLEGAL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")  # characters that XML does not have


def main(arguments: Sequence[str]) -> int:
    """Write the report.

    Raises:
        OptionError: an argument is wrong, a stored file is damaged, or the folder cannot be written.
        EngineMissing: Jinja2 or matplotlib is not installed.
    """
    parser = argparse.ArgumentParser("mxtrt report", description="Write the report of stored results as one page.")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of index.html (default: reports)")
    parser.add_argument(
        "--reports", type=Path, default=None, help="folder of stored results (default: the checkout's reports)"
    )
    parser.add_argument("--results", type=Path, default=None, help="test results, from pytest --record-results")
    given = parser.parse_args(list(arguments))
    from ..benchmark.baseline import home

    content = collect(given.reports or home().parent, given.results)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        write(content, given.output)
    except OSError as error:
        raise OptionError(f"--output {given.output}: {error}") from None
    print(f"{content.verdict} {given.output / 'index.html'}")
    return 0


def write(content: Content, folder: Path) -> None:
    """All files of the report."""
    (folder / "index.html").write_text(render(content), "utf-8")
    (folder / "index.json").write_text(json.dumps(_finite(as_json(content)), indent=1) + "\n", "utf-8")
    (folder / "index.csv").write_text(as_csv(content), "utf-8", newline="")
    (folder / "junit.xml").write_bytes(junit(content))
    (folder / "summary.md").write_text(summary(content), "utf-8")


def render(content: Content) -> str:
    """The page: no script, nothing loaded from elsewhere.

    Raises:
        HarnessError: it came out larger than it may be.
    """
    try:
        import jinja2

        from .charts import headroom_chart, history_chart, speed_chart
    except ImportError as error:
        raise EngineMissing(f"the report needs Jinja2 and matplotlib ({error}); pip install 'mxtrt[bench]'") from None
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html.j2"
    )
    measured = [row for row in content.speed.get("measured", ()) if "ratio" in row]
    where = content.speed.get("machine", {})
    text = template.render(
        content=content,
        lowered=[row for row in content.operators if row.lowered],
        refused=[row for row in content.operators if not row.lowered],
        failures=[test for test in content.tests if test["outcome"] == "failed"][:200],
        speed=speed_chart(measured, f"{where.get('cpu')}, {where.get('cores')} cores") if measured else "",
        ratios=measured,
        geometric=geometric_mean([row["ratio"] for row in measured]),
        headroom=headroom_chart(content.headrooms) if content.headrooms else "",
        histories=[(one, history_chart(one)) for one in content.history[:_CHARTS]],
        flat=flat,
        short=short,
    )
    if len(text.encode()) > PAGE_LIMIT:
        raise HarnessError(
            f"the report has {len(text.encode())} bytes, the limit is {PAGE_LIMIT}; pass fewer --results"
        )
    return text


def geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def short(value: Any) -> str:
    """Three digits of a number; anything else as it is, and nothing for None."""
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def flat(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """The machine record as lines; what is not there is left out."""
    lines = []
    for name, value in environment.items():
        if isinstance(value, dict):
            lines += [(key, str(item)) for key, item in value.items() if item is not None]
        elif value is not None:
            lines.append((name, str(value)))
    return lines


def as_json(content: Content) -> dict[str, Any]:
    return {"verdict": content.verdict, "outcomes": dict(content.outcomes), **dataclasses.asdict(content)}


def as_csv(content: Content) -> str:
    """One line per cell of the matrix, per operator without one, and per network."""
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(("kind", "name", "where", "state", "detail"))
    for row in content.operators:
        for column, cell in row.cells.items():
            table.writerow(("operator", row.name, column, cell.state, cell.reason or cell.example))
        if not row.cells:
            table.writerow(("operator", row.name, "", "not run" if row.lowered else "unsupported", row.reason))
    for network in content.networks:
        table.writerow(
            ("network", network.get("network"), "onnxruntime fp32", network.get("status"), network.get("reason", ""))
        )
    for network in content.gpu_networks:
        for precision, cell in network.get("cells", {}).items():
            table.writerow(
                (
                    "network",
                    network["network"],
                    f"{network['source']} {precision}",
                    cell.get("status"),
                    cell.get("error", ""),
                )
            )
    return file.getvalue()


def junit(content: Content) -> bytes:
    """JUnit XML below the limit: texts are cut first, then passed tests are left out (they stay in the counts)."""
    for length, passed in ((1000, True), (200, True), (200, False)):
        text = _junit(content, length, passed)
        if len(text) <= SUMMARY_LIMIT:
            return text
    return _junit(content, 200, False, 1000)


def _junit(content: Content, length: int, passed: bool, most: int | None = None) -> bytes:
    counts = content.outcomes
    skipped = counts["skipped"] + counts["xfailed"]
    suite = ElementTree.Element(
        "testsuite", name="mxtrt", tests=str(len(content.tests)), failures=str(counts["failed"]), skipped=str(skipped)
    )
    chosen = [test for test in content.tests if passed or test["outcome"] != "passed"]
    for test in sorted(chosen, key=lambda one: one["outcome"] != "failed")[:most]:
        module, _, name = test["test"].partition("::")
        case = ElementTree.SubElement(suite, "testcase", classname=module, name=_legal(name), time=str(test["seconds"]))
        if test["properties"]:
            properties = ElementTree.SubElement(case, "properties")
            for key, value in test["properties"].items():
                ElementTree.SubElement(properties, "property", name=str(key), value=_legal(str(value))[:length])
        if test["outcome"] != "passed":
            tag = "failure" if test["outcome"] == "failed" else "skipped"
            ElementTree.SubElement(case, tag, message=_legal(str(test["reason"]))[:length])
    return bytes(ElementTree.tostring(suite, "utf-8", xml_declaration=True))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("?", text)


def summary(content: Content) -> str:
    """The job summary, in Markdown, below the limit."""
    lines = [f"## {content.verdict}", "", f"Commit {content.commit}.", ""]
    lines += [f"- {count} {outcome}" for outcome, count in content.outcomes.most_common()]
    lines += [f"- {text}" for text in content.missing]
    failures = [test for test in content.tests if test["outcome"] == "failed"]
    if failures:
        lines += ["", "| fails | why |", "|---|---|"]
    room = SUMMARY_LIMIT - len("\n".join(lines).encode()) - 200
    for number, test in enumerate(failures):
        reason = " ".join(str(test["reason"]).split())[:300].replace("|", "\\|")
        line = f"| `{test['test']}` | {reason} |"
        room -= len(line.encode()) + 1
        if room < 0:
            lines.append(f"\n{len(failures) - number} more are in index.html.")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
