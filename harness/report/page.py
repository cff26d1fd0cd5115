"""The report's files: index.html, index.json, index.csv, junit.xml, summary.md."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import EngineMissing, HarnessError, OptionError
from ..jsontext import finite
from .collect import BAD, GOOD, Content, OperatorRow, collect

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
    parser.add_argument(
        "--more", type=Path, action="append", default=[], help="another folder of results, a night's (may be repeated)"
    )
    given = parser.parse_args(list(arguments))
    from ..benchmark import baseline

    baselines = given.reports / "baselines" if given.reports else baseline.home()
    content = collect(given.reports or baseline.reports(), given.results, given.more, baselines)
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
    (folder / "index.json").write_text(json.dumps(finite(as_json(content)), indent=1) + "\n", "utf-8")
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

        from .charts import headroom_chart, history_chart, speed_picture
    except ImportError as error:
        raise EngineMissing(f"the report needs Jinja2 and matplotlib ({error}); pip install 'mxtrt[bench]'") from None
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html.j2"
    )
    measured = [row for row in content.speed.get("measured", ()) if "mxnet" in row]
    plain = [row for row in measured if (row["batch"], row["precision"]) == (1, "fp32")]
    states = Counter(str(row.get("status")) for row in content.networks)
    text = template.render(
        content=content,
        mood="bad" if content.verdict.startswith("Not") else "good" if content.verdict.startswith("Every") else "empty",
        lowered=[row for row in content.operators if row.lowered],
        refused=[row for row in content.operators if not row.lowered],
        families=families(content),
        wrong=wrong(content)[:200],
        states=states,
        counted={"right": _sum(states, GOOD), "wrong": _sum(states, BAD)},
        speed=speed_picture(content.speed, card=False) if measured else "",
        ratios=plain,
        geometric=geometric_mean([row["mxnet"]["ratio"] for row in plain]),
        headroom=headroom_chart(content.headrooms) if content.headrooms else "",
        histories=[(one, history_chart(one)) for one in content.history[:_CHARTS]],
        flat=flat,
        short=short,
        tone=tone,
    )
    if len(text.encode()) > PAGE_LIMIT:
        raise HarnessError(
            f"the report has {len(text.encode())} bytes, the limit is {PAGE_LIMIT}; pass fewer --results"
        )
    return text


def tone(state: str) -> str:
    """The class of a state's colour."""
    return "good" if state in GOOD else "bad" if state in BAD else "other"


def _sum(states: Counter[str], of: frozenset[str]) -> int:
    return sum(count for state, count in states.items() if state in of)


def wrong(content: Content) -> list[tuple[str, str]]:
    """(what, why) of everything that makes the verdict what it is."""
    found = [(f'pytest "{one["test"]}"', str(one["reason"])) for one in content.tests if one["outcome"] == "failed"]
    found += [
        (str(row["network"]), f"{row['status']}: {row.get('difference') or row.get('reason') or ''}")
        for row in content.networks if row.get("status") in BAD
    ]  # fmt: skip
    found += [
        (f"{row['network']} {precision} ({row['source']})", f"{cell.get('status')}: {cell.get('error', '')}")
        for row in content.gpu_networks for precision, cell in row["cells"].items() if cell.get("status") in BAD
    ]  # fmt: skip
    found += [
        (bar.what, f"the bar is missed ({one.name})") for one in content.documents for bar in one.bars if not bar.met
    ]
    found += [(name, f"{counts['SLOWER']} benchmarks SLOWER") for name, counts in content.nights if counts["SLOWER"]]
    stored = [
        (f"{row.name} on {column}", f"{cell.state}: {cell.reason}")
        for row in content.operators for column, cell in row.cells.items() if not cell.tests and cell.state in BAD
    ]  # fmt: skip
    return found + stored


def families(content: Content) -> list[dict[str, Any]]:
    """The operators' matrix by family: (right, with cases) for each column."""
    groups: dict[str, list[OperatorRow]] = {}
    for row in content.operators:
        groups.setdefault(row.family, []).append(row)
    found = []
    for name, rows in sorted(groups.items()):
        if not any(row.lowered for row in rows):
            continue
        columns = {}
        for column in content.columns:
            states = [row.cells[column].state for row in rows if column in row.cells]
            columns[column] = (sum(state not in BAD for state in states), len(states))
        lowered = sum(row.lowered for row in rows)
        found.append({"name": name or "others", "lowered": lowered, "all": len(rows), "columns": columns})
    return found


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
    for document in content.documents:
        for bar in document.bars:
            table.writerow(("bar", bar.what, document.name, "met" if bar.met else "missed", document.made_by))
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
    lines += [f"- {sum(bar.met for bar in content.bars)} of {len(content.bars)} bars met"] if content.bars else []
    lines += [
        f"- {name}: {', '.join(f'{count} {state}' for state, count in counts.most_common())}"
        for name, counts in content.nights
    ]
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
