"""Speed: latency, throughput, memory and time to first answer of networks, each run a process of its own.

``pytest suites/models --benchmark-save=NAME`` stores a baseline, ``pytest suites/models --benchmark-compare`` holds the
present state against the latest one. pytest-benchmark's clock is a virtual one that a run's median moves, so its
statistics are over runs. Under xdist each cell runs once, to see that it still does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.benchmark import sides
from harness.benchmark.clocks import VirtualClock

pytest.importorskip("pytest_benchmark", reason="the speed suite needs pytest-benchmark")

SECONDS, WARMUP = 0.4, 0.2


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network at one batch on one engine; ``slow`` ones are the nightly's."""

    network: str
    size: int
    batch: int
    engine: str = "onnxruntime"
    slow: bool = True

    @property
    def name(self) -> str:
        return f"{self.network}-{self.batch}x{self.size}-{self.engine}"


CELLS = [
    Cell("mobilenet0.25", 64, 1, slow=False),
    Cell("resnet18_v1", 64, 1, slow=False),
    *(
        Cell(name, 224, 1)
        for name in ("vgg16", "vgg19_bn", "resnet50_v1", "resnet50_v2", "resnet152_v1", "densenet121")
    ),
    *(Cell("resnet18_v1", 64, batch) for batch in (8, 32, 128)),
    *(Cell("resnet18_v1", 64, 1, engine) for engine in ("mxnet",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the networks lie as MXNet's files, written once."""
    yield tmp_path_factory.mktemp("networks")


CLOCK = VirtualClock()


@pytest.mark.parametrize(
    "cell", [pytest.param(c, id=c.name, marks=[pytest.mark.slow] if c.slow else []) for c in CELLS]
)
@pytest.mark.benchmark(group="latency", timer=CLOCK)
def test_latency(cell: Cell, folder: Path, benchmark, pytestconfig: pytest.Config, record_property) -> None:
    shape = (cell.batch, 3, cell.size, cell.size)
    options = {} if cell.engine == "mxnet" else {"threads": 2}
    side = sides.Side(f"zoo:{cell.network}", {"data": (shape, "float32")}, cell.engine, options=options)
    runs: list[sides.Run] = []
    with sides.prepared(side, folder) as (ready, tree):

        def one_run() -> None:
            runs.append(sides.run(ready, tree, SECONDS, WARMUP))
            CLOCK.advance(runs[-1].summary.median)

        benchmark.pedantic(one_run, rounds=pytestconfig.option.runs, iterations=1)
    figures = sides.reduce(runs)
    benchmark.extra_info.update(figures)
    for key in ("median", "p99", "throughput", "peak_rss"):
        record_property(key, figures[key])
    assert set(figures["segments"]) == {cell.engine}, "a part of the network ran elsewhere"
    assert figures["minimum"] <= figures["median"] <= figures["p99"] <= figures["maximum"]
