"""What scripts/gpu_speed.py measured, as its stored document: ratios, goals, and a table with a line for each cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.gpu_queue import Row

# What MXNet's users could have: NVIDIA's container 20.12, ResNet-50 in FP16 on one A100 80 GB (NGC's page), images/s.
MXNET_PUBLISHED = {
    "machine": "A100 80GB, MXNet 20.12, FP16, ResNet-50",
    "img_s": {1: 463, 8: 2522, 32: 2964, 128: 5530},
}


def ratios(rows: Mapping[str, Row], precisions: Sequence[str]) -> dict[str, float]:
    """Times of the peers over ours, and ours over the same plan enqueued by hand at its better.

    The second is of their fastest blocks: where the GPU did other work just before, the launches of a graph, ours and
    those by hand alike, took 7 % longer on an H100 until the plan was next enqueued without its graph. Medians would
    compare who had which turns.
    """
    found = {}

    def fastest_block(key: str) -> float:
        return min(rows[key]["walls_ms"]) if key in rows else float("inf")

    fastest = fastest_torch(rows)
    peers = [row["wall_ms"] for key, row in rows.items() if key.startswith("torch.compile")]
    for precision in precisions:
        ours = rows[f"mxtrt {precision}"]["wall_ms"]
        plain = rows[f"raw {precision}"]["wall_ms"]
        graph = rows.get(f"raw graph {precision}", {}).get("wall_ms", plain)
        by_hand = min(fastest_block(f"raw {precision}"), fastest_block(f"raw graph {precision}"))
        against_torch, over_raw = ratio_names(precision)
        found[over_raw] = round(fastest_block(f"mxtrt {precision}") / by_hand, 4)
        found[f"raw enqueue over CUDA graph {precision}"] = round(plain / graph, 3)
        if peers:
            found[f"torch.compile over mxtrt {precision}"] = round(min(peers) / ours, 3)
        if fastest is not None:
            found[against_torch] = round(fastest / ours, 3)
    return found


def fastest_torch(rows: Mapping[str, Row]) -> float | None:
    """Milliseconds of PyTorch's fastest way."""
    return min((row["wall_ms"] for key, row in rows.items() if key.startswith("torch")), default=None)


def ratio_names(precision: str) -> tuple[str, str]:
    """Of the two ratios that have a goal."""
    return f"PyTorch over mxtrt {precision}", f"mxtrt {precision} over raw enqueue"


def goals(cells: Sequence[Row]) -> list[Row]:
    """What was aimed at, and the figure."""
    found = []

    def goal(what: str, value: float | None, bar: float, at_least: bool, unit: str) -> None:
        if value is not None:
            met = value >= bar if at_least else value <= bar
            found.append({"what": what, "value": value, "bar": bar, "unit": unit, "at_least": at_least, "met": met})

    def best(network: str, key: str) -> float | None:
        speeds = [c["rows"][key]["img_s"] for c in cells if c["network"] == network and key in c["rows"]]
        return max(speeds, default=None)

    for cell in cells:
        what = f"{cell['network']}, batch {cell['batch']}, {short(cell['gpu'])}"
        for precision in (key.removeprefix("mxtrt ") for key in cell["rows"] if key.startswith("mxtrt ")):
            ratio, over = (cell["ratios"].get(key) for key in ratio_names(precision))
            if over is None:
                continue  # a further way of calling
            given = f" (image in {cell['torch_input']})" if cell["torch_input"] != "float32" else ""
            goal(
                f"{what}: time of PyTorch in FP16{given}, at its fastest, over mxtrt's in {precision}",
                ratio,
                1.5,
                True,
                "x",
            )
            goal(f"{what}: {precision} over raw enqueue", round(100 * (over - 1), 2), 2, False, "%")
    goal("ResNet-50 INT8 offline", best("resnet50_v1", "mxtrt int8"), 60000, True, "img/s")
    goal("VGG-16 FP16 offline", best("vgg16", "mxtrt fp16"), 15000, True, "img/s")
    return found


COLUMNS = [
    "network", "batch", "FP16, ms", "img/s", "PyTorch FP16 at its fastest, ms", "its time over ours (aim: 1.5x)",
    "over raw enqueue (aim: 2 %)", "INT8, ms", "img/s", "PyTorch's time over INT8's", "over raw enqueue", "PyTorch's image", "GPU",
]  # fmt: skip


def line(cell: Row) -> list[str]:
    """A cell's row of the table."""
    rows: dict[str, Row] = cell["rows"]
    torch_ms = fastest_torch(rows)

    def of(precision: str) -> tuple[list[str], list[str]]:
        ours = rows.get(f"mxtrt {precision}")
        if ours is None:
            return ["", ""], ["", ""]
        ratio, over = (cell["ratios"].get(key) for key in ratio_names(precision))
        times = "" if ratio is None else f"{ratio:.2f}x"
        return [f"{ours['wall_ms']:.3f}", f"{ours['img_s']:,.0f}"], [times, f"{100 * (over - 1):.1f} %"]

    (half, half_ratios), (eight, eight_ratios) = of("fp16"), of("int8")
    peer = "" if torch_ms is None else f"{torch_ms:.3f}"
    return [
        cell["network"],
        str(cell["batch"]),
        *half,
        peer,
        *half_ratios,
        *eight,
        *eight_ratios,
        cell["torch_input"],
        short(cell["gpu"]),
    ]


def short(gpu: str) -> str:
    """ "H100" of "NVIDIA H100 80GB HBM3"."""
    return gpu.removeprefix("NVIDIA ").partition(" ")[0]


def place_of(row: Row) -> tuple[str, int]:
    return row["network"], row["batch"]


def cell_of(row: Row) -> tuple[str, int, str]:
    return *place_of(row), row["gpu"]


def document(where: Row, cells: Sequence[Row], failed: Sequence[Row], builds: Sequence[Row]) -> Row:
    done = sorted(cells, key=cell_of)
    return {
        "command": "python -m scripts.gpu_speed", "machine": where, "published": MXNET_PUBLISHED, "columns": COLUMNS,
        "rows": [line(cell) for cell in done], "results": goals(done), "cells": done, "failed": list(failed), "builds": list(builds),
    }  # fmt: skip


def joined(earlier: Row, cells: Sequence[Row], failed: Sequence[Row], builds: Sequence[Row], where: Row) -> Row:
    """The document with further cells, in place of the same ones of before."""
    done = {cell_of(row): row for row in (*earlier["cells"], *cells)}
    now = {place_of(row) for row in cells}
    failures = {place_of(row): row for row in (*earlier["failed"], *failed) if place_of(row) not in now}
    built: dict[tuple[str, int, str], Row] = {}
    for row in (*earlier["builds"], *builds):
        key = (*place_of(row), row["kind"])
        told = key in built and "error" not in built[key]
        if not (told and row.get("hit")):  # what finds a plan says nothing of building it
            built[key] = row
    return document(where, list(done.values()), list(failures.values()), list(built.values()))


def join(paths: Sequence[Path]) -> Row:
    """The cells of several documents in one, without those in which nothing of ours was measured."""
    found = document({}, [], [], [])
    for path in paths:
        later = json.loads(path.read_text())
        measured = [row for row in later["cells"] if any(key.startswith("mxtrt ") for key in row["rows"])]
        cells = [{"gpu": later["machine"]["gpu"].partition(",")[0], **row} for row in measured]
        found = joined(found, cells, later.get("failed", []), later.get("builds", []), later["machine"])
    return {**found, "notes": []}
