"""The plan cache: what a hit saves, and whether kills damage it; writes reports/cache.json.

    python -m scripts.bench_cache [--row NAME ...] [--resume] [--out reports/cache.json]

Needs TensorRT-RTX, whose builder needs no GPU. Each row is measured in a process of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.rows import ROOT, Row, main, row

HITS = 9


def hit() -> Row:
    """ResNet-50: digests, parser and builder, against digests and a read that checks the plan's SHA-256."""
    from harness.compiler import plan
    from harness.engines.plan_cache import PlanCache
    from harness.engines.tensorrt import TensorRTEngine, build
    from harness.engines.tensorrt import library as libraries
    from harness.engines.tensorrt.judge import Judge
    from harness.frontend.compat import mxnet

    library = libraries.find("tensorrt_rtx")
    device = SimpleNamespace(name="SM89", compute_capability=(8, 9), memory=1 << 34, driver="none")
    engine = TensorRTEngine(library, SimpleNamespace(device=device))
    net = mxnet().gluon.model_zoo.vision.resnet50_v1()
    net.initialize(mxnet().init.Xavier())
    net(mxnet().nd.zeros((1, 3, 224, 224)))  # parameters get their shapes

    def find(cache: PlanCache) -> tuple[float, Any]:
        (model,) = plan(net, inputs={"data": (1, 3, 224, 224)}, engine=Judge(), fallback="error").models
        assert model is not None
        recipe = build.Recipe("part0", model, [], {}, targets=("SM89",))
        start = time.perf_counter()
        fields = engine.key_fields(recipe, device)  # type: ignore[arg-type]
        found = cache.find_or_build(fields, lambda: build.build(library, recipe))
        return time.perf_counter() - start, found

    with tempfile.TemporaryDirectory() as folder:
        built, first = find(PlanCache(Path(folder)))
        again = [find(PlanCache(Path(folder))) for _ in range(HITS)]
        if any(found.outcome != "hit" or bytes(found.plan) != bytes(first.plan) for _, found in again):
            raise SystemExit("another plan was found, or none")
        size = memoryview(first.plan).nbytes
    seconds = [taken for taken, _ in again]
    return row(
        "ResNet-50 on TensorRT-RTX's builder: time of a build over that of a hit", built / statistics.median(seconds),
        50, "x", at_least=True, build_seconds=built, first_hit_seconds=seconds[0],
        hit_seconds=statistics.median(seconds), plan_bytes=size,
    )  # fmt: skip


def kills() -> Row:
    """Processes that fill a cache, killed at a random moment."""
    from suites.meta.kill_trials import main as trials

    found = trials(200)
    return row("caches that are damaged after kill -9 at a random moment, of 200", found["damaged"], 0, **found)


ROWS: dict[str, Callable[[], Row]] = {"hit": hit, "kills": kills}

if __name__ == "__main__":
    sys.exit(main("scripts.bench_cache", ROWS, ROOT / "reports" / "cache.json", __doc__ or ""))
