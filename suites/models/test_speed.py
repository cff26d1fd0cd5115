"""Speed: latency, throughput, memory and time to first answer of networks, each run a process of its own.

``pytest suites/models --benchmark-save=NAME`` (or ``--benchmark-autosave``) stores a baseline,
``pytest suites/models --benchmark-compare`` holds the present state against the latest one. pytest-benchmark's clock is
a virtual one that each run moves by its figure, so its statistics are over runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.benchmark import first_answer, sides
from harness.benchmark.clocks import VirtualClock

pytest.importorskip("pytest_benchmark", reason="the speed suite needs pytest-benchmark")

SECONDS, WARMUP = 0.4, 0.2


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network at one batch and precision on one engine; ``slow`` ones are the nightly's."""

    network: str
    size: int
    batch: int
    engine: str = "onnxruntime"
    slow: bool = True
    precision: str = "fp32"

    @property
    def name(self) -> str:
        precision = "" if self.precision == "fp32" else f"-{self.precision}"
        return f"{self.network}-{self.batch}x{self.size}-{self.engine}{precision}"

    @property
    def side(self) -> sides.Side:
        inputs = {"data": ((self.batch, 3, self.size, self.size), "float32")}
        options = {"threads": 2} if self.engine == "onnxruntime" else {}
        precision = None if self.engine == "mxnet" else self.precision
        return sides.Side(f"zoo:{self.network}", inputs, self.engine, precision, options=options)

    @property
    def marks(self) -> list[Any]:
        gpu = self.engine.startswith("tensorrt")
        return [*([pytest.mark.slow] if self.slow and not gpu else []), *([pytest.mark.gpu] if gpu else [])]


CELLS = [
    Cell("mobilenet0.25", 64, 1, slow=False),
    Cell("resnet18_v1", 64, 1, slow=False),
    *(
        Cell(name, 224, 1)
        for name in ("vgg16", "vgg19_bn", "resnet50_v1", "resnet50_v2", "resnet152_v1", "densenet121")
    ),
    *(Cell("resnet18_v1", 64, batch) for batch in (8, 32, 128)),
    Cell("resnet18_v1", 64, 1, "mxnet"),
    *(Cell(name, 224, 1, precision="int8") for name in ("resnet50_v1", "vgg16")),
    *(
        Cell(name, 224, batch, "tensorrt", precision=precision)
        for name in ("resnet50_v1", "vgg16")
        for precision in ("fp32", "tf32", "fp16", "bf16", "int8")
        for batch in (1, 32)
    ),
]
FIRST = [
    Cell("mobilenet0.25", 64, 1, slow=False),
    Cell("resnet50_v1", 224, 1),
    *(Cell("resnet50_v1", 224, 1, "tensorrt", precision=precision) for precision in ("fp16", "int8")),
]
CLOCK = VirtualClock()
One = Callable[[], sides.Run]


def cells(chosen: list[Cell]) -> list[Any]:
    return [pytest.param(cell, id=cell.name, marks=cell.marks) for cell in chosen]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the networks lie as MXNet's files, written once."""
    return tmp_path_factory.mktemp("networks")


def measured(run: One, metric: str, benchmark: Any, config: pytest.Config, record: Callable[[str, Any], None]) -> dict[str, Any]:  # fmt: skip
    """The runs of one benchmark, stored with it and recorded."""
    runs: list[sides.Run] = []

    def one_run() -> None:
        runs.append(run())
        CLOCK.advance(sides.figure(runs[-1], metric))

    benchmark.pedantic(one_run, rounds=config.option.runs, iterations=1)
    figures = sides.reduce(runs, metric)
    benchmark.extra_info.update(figures)
    for key in ("median", "p99", "throughput", "first_answer", "peak_rss"):
        record(key, figures[key])
    return figures


@pytest.mark.parametrize("cell", cells(CELLS))
@pytest.mark.benchmark(group="latency", timer=CLOCK)
def test_latency(cell: Cell, folder: Path, benchmark, pytestconfig: pytest.Config, record_property) -> None:
    with sides.prepared(cell.side, folder) as (ready, tree):
        run = lambda: sides.run(ready, tree, SECONDS, WARMUP)  # noqa: E731
        figures = measured(run, "median", benchmark, pytestconfig, record_property)
    assert set(figures["segments"]) == {cell.engine}, "a part of the network ran elsewhere"
    assert figures["minimum"] <= figures["median"] <= figures["p99"] <= figures["maximum"]


@pytest.mark.parametrize("start", [first_answer.FILES, first_answer.SAVED], ids=["files", "saved"])
@pytest.mark.parametrize("cell", cells(FIRST))
@pytest.mark.benchmark(group="first answer", timer=CLOCK)
def test_first_answer(
    cell: Cell, start: str, folder: Path, benchmark, pytestconfig: pytest.Config, record_property
) -> None:
    """Of a new process with an empty cache: a service that comes up on a new machine."""
    with sides.prepared(cell.side, folder) as (ready, tree):
        if start == first_answer.SAVED:
            ready = sides.save(ready, tree, folder / f"{cell.name}.mxtrt")
        way = first_answer.Way(start, ready, tree, None)
        figures = measured(way.run, "first_answer", benchmark, pytestconfig, record_property)
    assert 0 < figures["setup"] < figures["first_answer"]
