"""Fill pages from stored results: what stands between ``<!-- results:NAME -->`` and its end comes from reports/NAME.json.

    python scripts/fill_readme.py            write
    python scripts/fill_readme.py --check    exit 1 if a page is not what the results say

A result that is not stored leaves its place empty. How a result becomes a table is in RENDERERS; any other file holds
{"command": ..., "columns": [...], "rows": [[...], ...]}.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
PAGES = ("README.md", "docs/error-model.md")
PLACE = re.compile(r"(<!-- results:([\w-]+) -->\n).*?(<!-- /results:\2 -->)", re.DOTALL)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def demo(result: dict[str, Any]) -> str:
    """The demo's record, as harness.demo writes it."""
    latency, speedup, where = result["latency_ms"], result["speedup"], result["environment"]
    photographs = result["photographs"]
    same = sum({c[0] for c in p["mxnet"]} == {c[0] for c in p["compiled"]} for p in photographs)
    nodes = ", ".join(f"{part['nodes']} nodes on {part['engine']}" for part in result["segments"])
    speed = (
        f"MXNet {latency['mxnet']:.1f} ms, compiled {latency['compiled']:.1f} ms "
        f"({speedup['ratio']:.2f}x; 95 % interval {speedup['low']:.2f} to {speedup['high']:.2f})"
    )
    rows = [
        ["cut into", nodes],
        ["photographs with MXNet's top three classes", f"{same} of {len(photographs)}"],
        ["largest error of a logit", f"{result['max_error']:.1e}, {result['headroom']:.1%} of the tolerance"],
        ["median latency, batch 1", speed],
        ["saved and run without MXNet", "the same bits" if result["replayed_without_mxnet"] else "**differs**"],
    ]
    place = f"{where['machine']}, Python {where['Python']}, onnxruntime {where['onnxruntime']}, MXNet {where['mxnet']}"
    return table(["`make demo`: EfficientNet-Lite0, trained weights", place], rows)


def generic(result: dict[str, Any]) -> str:
    """A result that is a table already."""
    return f"`{result['command']}`\n\n{table(result['columns'], result['rows'])}"


def faults(result: dict[str, Any]) -> str:
    """What suites.meta.mutate stored: how many planted faults were caught, by kind; and which were not."""
    rows = [row for row in result["rows"] if not row["equivalent"]]
    kinds = Counter(row["kind"] for row in rows)
    missed = Counter(row["kind"] for row in rows if not row["caught"])
    table_rows = [[kind, count, count - missed[kind]] for kind, count in sorted(kinds.items())]
    total = [f"**all {len(rows)}**", len(rows), f"{result['caught']} ({result['caught'] / max(len(rows), 1):.2%})"]
    operators, functions = len({row["operator"] for row in rows}), len({(r["file"], r["function"]) for r in rows})
    text = (
        f"`{result['command']}`: {len(rows)} faults in {functions} functions, tables and constants, chosen for {operators} "
        f"operators; {result['equivalent']} more were planted and change no answer.\n\n"
    )
    text += table(["kind of fault", "planted", "caught"], [*table_rows, total])
    survivors = [row for row in rows if not row["caught"]]
    if survivors:
        text += "\nNot caught:\n\n"
    for row in survivors:
        text += f"- `{row['file']}:{row['line']}` ({row['function']}), {row['kind']}: `{row['change']}`. {row['why']}\n"
    return text


def faults_unseen(result: dict[str, Any]) -> str:
    """The same of a sample that no case was made for."""
    survivors = [row for row in result["rows"] if not row["caught"] and not row["why"]]
    text = (
        f"`{result['command']}`: {result['caught']} of {result['planted']} were caught "
        f"({result['caught'] / max(result['planted'], 1):.1%}); {result['equivalent']} more change no answer, with an "
        f"argument. {len(survivors)} survive:\n\n"
    )
    for row in survivors:
        text += f"- `{row['file']}` ({row['function']}), {row['kind']}: `{row['change']}`\n"
    return text


def false_alarms(result: dict[str, Any]) -> str:
    """What suites.meta.false_alarms stored."""
    dtypes = ", ".join(f"{name} {count}" for name, count in result["dtypes"].items())
    rows = [
        ["repetitions", result["repetitions"]],
        ["operators", result["operators"]],
        ["cases", f"{result['cases']} (first input: {dtypes})"],
        ["seeds", f"{result['seeds'][0]} to {result['seeds'][1]}"],
        ["repetitions with an alarm", result["alarms"]],
        ["upper 95 % bound of their rate (Clopper-Pearson)", f"{result['upper_bound']:.2%}"],
        ["largest error over its bound", f"{max(row['headroom'] for row in result['rows']):.2f}"],
    ]
    return table([f"`{result['command']}`", ""], rows)


RENDERERS = {"demo": demo, "faults": faults, "faults_unseen": faults_unseen, "false_alarms": false_alarms}


def filled(text: str, reports: Path) -> str:
    """``text`` with each place filled from its file in ``reports``."""

    def fill(found: re.Match[str]) -> str:
        path = reports / f"{found[2]}.json"
        if not path.is_file():
            return f"{found[1]}{found[3]}"
        return found[1] + RENDERERS.get(found[2], generic)(json.loads(path.read_text("utf-8"))) + found[3]

    return PLACE.sub(fill, text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fill README.md and other pages from reports/*.json.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check, stale = parser.parse_args().check, 0
    for name in PAGES:
        before = (HOME / name).read_text("utf-8")
        after = filled(before, HOME / "reports")
        stale += before != after
        if not check:
            (HOME / name).write_text(after, "utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
