"""Markers, options and Hypothesis profiles of the suites."""

from __future__ import annotations

import os
from pathlib import Path


def _gpus() -> list[str]:
    """The GPUs of this host that may be used, without asking CUDA: it would stay bound to what it was shown first."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    return [str(number) for number, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]


def _take_share() -> None:
    """A worker of pytest-xdist takes one GPU, in turn, and its share of the cores; before anything reads the variables."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", ""), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if not worker.startswith("gw") or os.environ.get("PYTEST_XDIST_SHARE"):
        return
    os.environ["PYTEST_XDIST_SHARE"] = worker  # processes that a test starts keep what the worker has
    gpus = _gpus()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(worker[2:]) % len(gpus)]
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, max(1, (os.cpu_count() or 1) // int(workers)))))


_take_share()

# The reference must be MXNet's own kernels: oneDNN changes edge cases (NaN in relu, target_shape of Deconvolution).
os.environ.setdefault("MXNET_MKLDNN_ENABLED", "0")
os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")
os.environ.setdefault("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")
os.environ.setdefault("OMP_NUM_THREADS", "2")

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "quick",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("quick")

pytest_plugins = ["harness.benchmark.pytest_plugin"]


def pytest_addoption(parser):
    parser.addoption("--isolate", action="store_true", help="run each operator case in a process of its own (slow)")


def pytest_configure(config):
    if not config.option.markexpr:
        config.option.markexpr = "not slow and not gpu"  # `-m slow` and `-m gpu` ask for them
    if config.getoption("--isolate"):
        os.environ["MXTRT_ISOLATE"] = "1"


def pytest_xdist_auto_num_workers(config):
    """``-m gpu -n auto``: a worker for each GPU; otherwise as pytest-xdist has it, one for each core."""
    return len(_gpus()) or None if config.getoption("markexpr") == "gpu" else None


def pytest_collection_modifyitems(config, items):
    """Benchmarks do not run beside anything: with several workers they are skipped, and say so."""
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") == "1":
        return
    import pytest

    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="a benchmark runs alone: leave -n out"))
