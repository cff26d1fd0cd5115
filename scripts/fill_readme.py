"""Fill README.md from stored results: what stands between ``<!-- results:NAME -->`` and its end comes from reports/NAME.json.

    python scripts/fill_readme.py            write
    python scripts/fill_readme.py --check    exit 1 if the README is not what the results say

A result that is not stored leaves its place empty. How a result becomes a table is in RENDERERS; any other file holds
{"command": ..., "columns": [...], "rows": [[...], ...]}.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
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


RENDERERS = {"demo": demo}


def filled(text: str, reports: Path) -> str:
    """``text`` with each place filled from its file in ``reports``."""

    def fill(found: re.Match[str]) -> str:
        path = reports / f"{found[2]}.json"
        if not path.is_file():
            return f"{found[1]}{found[3]}"
        return found[1] + RENDERERS.get(found[2], generic)(json.loads(path.read_text("utf-8"))) + found[3]

    return PLACE.sub(fill, text)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fill README.md from reports/*.json.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    readme = HOME / "README.md"
    before = readme.read_text("utf-8")
    after = filled(before, HOME / "reports")
    if parser.parse_args().check:
        return int(before != after)
    readme.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
