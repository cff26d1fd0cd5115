"""What a sweep costs on many GPUs, on paper, from measured figures: python scripts/scale_fleet.py

Reads reports/fleet.json and rewrites the table between the markers of docs/fleet.md. The model is plain: batches are
independent and go to whichever GPU is free, so the time of a sweep is the larger of the work divided by the GPUs and
the longest batch, and a start; builds that one host made serve the others of its kind, so each plan is built once a kind
and read by every other host that needs it. A batch on a GPU has a process of its own, whose start scripts/sweep_fleet.py
measured.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
START, END = "<!-- scaling: written by scripts/scale_fleet.py -->", "<!-- end of scaling -->"
GPUS = (1, 8, 100, 1000)


def row(figures: dict[str, Any], gpus: int) -> dict[str, Any]:
    """The sweep of all cells, on every kind, with so many GPUs."""
    assumed = figures["assumed"]
    cells = figures["cells"] * assumed["kinds"]
    batches = math.ceil(cells / assumed["cells_per_batch"])
    work = cells * figures["seconds_per_cell"] + batches * figures["seconds_per_batch"]
    longest = figures["longest_batch_seconds"]
    busy = min(gpus, batches)
    elapsed = max(work / busy, longest) + figures["start_seconds"]
    hosts = math.ceil(busy / assumed["gpus_per_host"])
    reads = assumed["networks"] * max(hosts - assumed["kinds"], 0)
    build_minutes = assumed["networks"] * assumed["kinds"] * assumed["build_seconds"] / 60
    return {
        "GPUs": gpus, "busy": busy, "cells": cells, "batches": batches, "minutes": round(elapsed / 60, 1),
        "GPU hours paid": round(gpus * elapsed / 3600, 2), "cost": f"{gpus * elapsed / 3600 * assumed['price_per_gpu_hour']:.2f} $",
        "build minutes": round(build_minutes, 1), "without the shared cache": round(build_minutes / assumed["kinds"] * max(hosts, assumed["kinds"]), 1),
        "cache traffic": f"{reads * assumed['plan_megabytes'] / 1000:.1f} GB",
    }  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    rows = [row(figures, gpus) for gpus in GPUS]
    lines = [
        " | ".join(rows[0]),
        " | ".join("---" for _ in rows[0]),
        *(" | ".join(map(str, one.values())) for one in rows),
    ]
    return "\n".join(f"| {line} |" for line in lines)


def page() -> str:
    """docs/fleet.md as it should be."""
    stored = json.loads((HOME / "reports" / "fleet.json").read_text("utf-8"))
    start = stored["sweep"]["operators"]["seconds"]["start of a process"]
    figures = {**stored["scaling"], "seconds_per_batch": start}
    text = (HOME / "docs" / "fleet.md").read_text("utf-8")
    given = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in figures.items() if name != "assumed")
    assumed = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in figures["assumed"].items())
    body = f"{START}\nMeasured:\n\n{given}\n\nAssumed (change them in reports/fleet.json):\n\n{assumed}\n\n{table(figures)}\n{END}"
    return re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: body, text, flags=re.S)


def main() -> None:
    (HOME / "docs" / "fleet.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
